"""What is mirrored, when, and what people are told: W&B never matters to a search."""

import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mc1opt.errors import StorageError
from mc1opt.results import mirror_command
from mc1opt.results.mirror_command import (
    BACKGROUND_SECONDS,
    MirrorOptions,
    MirrorReport,
    WandbMirror,
    mirror_retraining,
    mirror_study,
    mirrored_search,
    report_lines,
    study_identity,
    wandb_folder,
)
from mc1opt.results.mirror_process import Limits
from mc1opt.search.records import StudyRecord
from tests.results.retraining import STORAGE, STUDY, retrain_curves, retrainable, retrainable_folder
from tests.results.wandb_runs import FOLDER, SECONDS, no_account, read_runs
from tests.search.display import Clock, ended, started, study, trial
from tests.search.studies import facts, run_study, small_definition, stored

__all__ = ["no_account", "retrainable", "retrainable_folder"]

OPTIONS = MirrorOptions(study=STUDY, storage=STORAGE, mode="offline")
REPORT = MirrorReport(
    study="cnn",
    project="mc1opt",
    mode="offline",
    folder="storage/wandb",
    runs=3,
    written=["a"],
    uploaded=[],
    missing=[],
    waiting=["a", "b", "c"],
    no_login=False,
    error=None,
)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes its time; that five seconds are the limit is tested on the command."""
    monkeypatch.setattr(mirror_command, "WAIT_SECONDS", SECONDS)


def without_wandb(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb cannot be imported by what is started from now on."""
    (folder / "broken/wandb").mkdir(parents=True)
    (folder / "broken/wandb/__init__.py").write_text("raise ImportError('no such library')")
    monkeypatch.syspath_prepend(folder / "broken")


# ---- Identity --------------------------------------------------------------------------------------------


def test_a_study_keeps_its_identity(retrainable: StudyRecord) -> None:
    first = study_identity(STORAGE, STUDY)
    assert len(first) == 32
    assert study_identity(STORAGE, STUDY) == first
    assert stored(STORAGE, STUDY) == retrainable


def test_studies_of_the_same_name_in_two_databases_differ() -> None:
    for path in ("a.db", "b.db"):
        run_study(1, small_definition(), path=path)
    assert study_identity("a.db", "s") != study_identity("b.db", "s")


def test_there_is_no_identity_of_a_study_that_is_not_there(retrainable: StudyRecord) -> None:
    with pytest.raises(StorageError, match="no study 'other'"):
        study_identity(STORAGE, "other")
    with pytest.raises(StorageError, match="no study database"):
        study_identity("nowhere.db", STUDY)


def test_runs_lie_beside_the_database() -> None:
    assert wandb_folder("some/where.db") == Path("some/wandb")
    assert wandb_folder("postgresql+psycopg://user@host/database") == Path("storage/wandb")


# ---- A stored study --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_study_and_its_retraining_are_mirrored(retrainable: StudyRecord) -> None:
    retrain_curves(top=1, seeds=1, folds=2)
    report = mirror_study(replace(OPTIONS, top=2), Limits(step=SECONDS))
    assert (report.error, report.missing, report.no_login) == (None, [], False)
    found = read_runs(FOLDER)
    assert set(report.written) == set(report.waiting) == set(found)
    names: dict[str, list[str]] = {}
    for read in found.values():
        names.setdefault(read.run["job_type"], []).append(read.run["display_name"])
    best = sorted(retrainable.trials, key=lambda entry: -(entry.value or 0.0))[:2]
    assert names["study"] == ["s"]
    assert sorted(names["trial"]) == sorted(f"s #{entry.number}" for entry in best)
    assert sorted(names["retraining"]) == [
        f"s #{best[0].number}, {part}, seed 1"
        for part in ("fold 1 of 2", "fold 2 of 2", "on all images", "retrained")
    ]
    (final,) = (read for read in found.values() if "on all images" in read.run["display_name"])
    assert final.summary["test_accuracy"] == pytest.approx(0.8)


# ---- A search --------------------------------------------------------------------------------------------


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


# ---- What people read ------------------------------------------------------------------------------------


def test_lines_say_what_was_done_and_what_to_do_next() -> None:
    (line,) = report_lines(REPORT, "storage/mc1opt.db")
    assert line == (
        f"W&B: 3 runs of study cnn mirrored offline, 1 written now. Upload them:  {REPORT.upload_command}"
    )
    assert shlex.split(REPORT.upload_command)[1:] == ["sync", "storage/wandb"]
    (line,) = report_lines(replace(REPORT, mode="online", no_login=True), "storage/mc1opt.db")
    assert "mirrored offline (no login: neither WANDB_API_KEY nor `wandb login`), 1 written now" in line
    (line,) = report_lines(replace(REPORT, waiting=[]), "storage/mc1opt.db")
    assert line.endswith("1 written now. All are uploaded.")
    (line,) = report_lines(replace(REPORT, mode="online", uploaded=["a", "b"], waiting=[]), "s.db")
    assert line == "W&B: 3 runs of study cnn mirrored to the project mc1opt, 2 uploaded now."


def test_what_was_not_mirrored_or_uploaded_is_one_line_with_the_reason() -> None:
    slow = replace(REPORT, mode="online", error="it took longer than 4.5 s")
    (line,) = report_lines(slow, "s.db")
    assert line.startswith("W&B: 3 of 3 runs of study cnn were not uploaded: it took longer than 4.5 s. ")
    assert line.endswith(REPORT.upload_command)
    (line,) = report_lines(replace(slow, missing=["b"]), "s.db")
    assert line == (
        "W&B: 1 of 3 runs of study cnn were not mirrored: it took longer than 4.5 s. The study is not "
        "affected. Try again with:  mc1opt mirror --study cnn --storage s.db"
    )


def test_the_command_that_uploads_is_only_given_where_something_waits() -> None:
    assert REPORT.to_json()["upload_command"] == REPORT.upload_command
    assert replace(REPORT, waiting=[]).to_json()["upload_command"] is None
