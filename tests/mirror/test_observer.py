"""When a search and a retraining are mirrored: W&B never matters to them."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mc1opt.database.records import StudyRecord
from mc1opt.errors import StorageError
from mc1opt.mirror import observer as mirror_search
from mc1opt.mirror.command import MirrorOptions, wandb_folder
from mc1opt.mirror.observer import BACKGROUND_SECONDS, WandbMirror, mirror_retraining, mirrored_search
from tests.support.display import Clock, ended, started, study, trial
from tests.support.retraining import STORAGE, STUDY, retrainable, retrainable_folder
from tests.support.studies import facts, run_study, stored
from tests.support.wandb_runs import SECONDS, no_account, read_runs

__all__ = ["no_account", "retrainable", "retrainable_folder"]

FOLDER = wandb_folder(STORAGE)
OPTIONS = MirrorOptions(study=STUDY, storage=STORAGE, mode="offline")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes its time; that five seconds are the limit is tested on the command."""
    monkeypatch.setattr(mirror_search, "WAIT_SECONDS", SECONDS)


def without_wandb(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb cannot be imported by what is started from now on."""
    (folder / "broken/wandb").mkdir(parents=True)
    (folder / "broken/wandb/__init__.py").write_text("raise ImportError('no such library')")
    monkeypatch.syspath_prepend(folder / "broken")


def test_a_search_is_mirrored_at_its_end_and_is_the_same_as_without() -> None:
    Path("storage").mkdir()
    lines: list[str] = []
    with mirrored_search("offline", STORAGE, lines.append) as mirrors:
        run_study(2, path=STORAGE, observers=mirrors)
    (line,) = lines
    record = stored(STORAGE)
    complete = sum(entry.value is not None for entry in record.trials)
    runs = complete + 1
    assert line.startswith(f"W&B: {runs} runs of study s mirrored offline, {runs} written now. Upload them:")
    found = read_runs(FOLDER)
    assert len(found) == runs
    assert len(next(read for read in found.values() if read.run["job_type"] == "study").history) == complete
    run_study(2, path="plain.db")
    assert facts(record) == facts(stored("plain.db"))


def test_without_a_mode_there_is_no_observer_and_no_line() -> None:
    lines: list[str] = []
    with mirrored_search(None, STORAGE, lines.append) as mirrors:
        assert mirrors == ()
    mirror_retraining(None, STORAGE, STUDY, lines.append)
    assert lines == []


def test_without_wandb_there_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_wandb(tmp_path, monkeypatch)
    Path("storage").mkdir()
    lines: list[str] = []
    with mirrored_search("online", STORAGE, lines.append) as mirrors:
        run_study(1, path=STORAGE, observers=mirrors)
    assert lines == [
        "W&B: 2 of 2 runs of study s were not mirrored: wandb cannot be used: ImportError: no such library. "
        "The study is not affected. Try again with:  mc1opt mirror --study s --storage storage/s.db"
    ]


def test_a_mirror_that_cannot_even_begin_is_one_warning() -> None:
    lines: list[str] = []
    with mirrored_search("offline", "nowhere.db", lines.append) as mirrors:
        (mirror,) = mirrors
        mirror.study_started(started())
        mirror.tick()
        mirror.study_ended(ended(study(trial(0))))
    mirror_retraining("offline", "nowhere.db", "cnn", lines.append)
    for line in lines:
        assert line.startswith("W&B: nothing was mirrored, because there is no study database nowhere.db.")
        assert line.endswith("Try again with:  mc1opt mirror --study cnn --storage nowhere.db")
    assert len(lines) == 2


def break_off(lines: list[str]) -> None:
    with mirrored_search("offline", STORAGE, lines.append) as (mirror,):
        mirror.study_started(started(study=STUDY))
        raise StorageError("broken")


def test_a_search_that_breaks_off_is_not_mirrored(retrainable: StudyRecord) -> None:
    lines: list[str] = []
    with pytest.raises(StorageError, match="broken"):
        break_off(lines)
    assert lines == []
    assert not FOLDER.exists()


@pytest.mark.slow
def test_in_the_background_it_mirrors_when_the_best_have_changed_and_not_too_often(
    retrainable: StudyRecord,
) -> None:
    clock = Clock()
    mirror = WandbMirror(replace(OPTIONS, top=1), clock)
    mirror.study_started(started(study=STUDY, record=retrainable))
    clock.seconds += BACKGROUND_SECONDS
    mirror.tick()
    assert not FOLDER.exists()  # nothing has changed
    mirror.trial_ended(trial(50, value=0.9))
    wait_for_trial(mirror, 50)
    mirror.trial_ended(trial(51, value=0.95))
    for _ in range(20):
        mirror.tick()
        time.sleep(0.05)
    assert 51 not in mirrored_trials()  # too soon
    clock.seconds += BACKGROUND_SECONDS
    begun = time.monotonic()
    mirror.tick()
    assert time.monotonic() - begun < 1.0
    wait_for_trial(mirror, 51)
    assert mirror.finish() == []


def mirrored_trials() -> dict[int, Any]:
    """The tags of the trials that were mirrored."""
    found = read_runs(FOLDER).values() if FOLDER.exists() else ()
    whole = [read for read in found if read.exit_code is not None]
    return {read.config["trial"]: read.run.get("tags") for read in whole if "trial" in read.config}


def wait_for_trial(mirror: WandbMirror, number: int) -> None:
    """Ticks until a mirroring in the background has ended that has this trial in it."""
    deadline = time.monotonic() + SECONDS
    while mirror.is_busy or number not in mirrored_trials():
        assert time.monotonic() < deadline
        mirror.tick()
        time.sleep(0.1)
