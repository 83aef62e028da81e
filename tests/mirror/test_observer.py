"""When a search and a retraining are mirrored: W&B never matters to them, and the mirror ends with them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mc1opt.errors import StorageError
from mc1opt.mirror import observer
from mc1opt.mirror.command import wandb_folder
from mc1opt.mirror.observer import (
    BACKGROUND_SECONDS,
    MirrorProcess,
    WandbMirror,
    mirror_retraining,
    mirrored_search,
)
from tests.support.command import SECONDS, child_processes, wait_until
from tests.support.display import Clock, ended, started, study, trial
from tests.support.retraining import STORAGE
from tests.support.studies import facts, run_study, stored
from tests.support.wandb_runs import (
    API_KEY,
    FOLDER,
    fake_wandb,
    mirror,
    no_account,
    no_server,
    read_runs,
    silent_server,
    small,
)
from tests.workers.test_process import is_alive, wait_until_gone

__all__ = ["no_account", "small"]

DATABASE = "storage/mc1opt.db"
"""Of the stored study `small`."""


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes its time; that five seconds are the limit is tested on the command."""
    monkeypatch.setattr(observer, "WAIT_SECONDS", SECONDS)


def test_a_search_is_mirrored_at_its_end_and_is_the_same_as_without() -> None:
    Path("storage").mkdir()
    lines: list[str] = []
    with mirrored_search("offline", STORAGE, lines.append) as mirrors:
        run_study(2, path=STORAGE, observers=mirrors)
    (line,) = lines
    record = stored(STORAGE)
    complete = sum(entry.value is not None for entry in record.trials)
    assert line.startswith(
        f"W&B: {complete + 1} runs of study s mirrored offline, {complete + 1} written now."
    )
    found = read_runs(wandb_folder(STORAGE))
    assert len(found) == complete + 1
    assert len(next(read for read in found.values() if read.run["job_type"] == "study").history) == complete
    run_study(2, path="plain.db")
    assert facts(record) == facts(stored("plain.db"))


def test_without_a_mode_there_is_no_observer_and_no_line() -> None:
    lines: list[str] = []
    with mirrored_search(None, STORAGE, lines.append) as mirrors:
        assert mirrors == ()
    mirror_retraining(None, STORAGE, "s", lines.append)
    assert lines == []


def test_a_mirror_that_fails_is_one_line_that_says_why_and_how_to_try_again(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_wandb(tmp_path, monkeypatch, "import os; os._exit(3)")
    monkeypatch.syspath_prepend(tmp_path / "fake")
    lines: list[str] = []
    with mirrored_search("offline", "nowhere.db", lines.append) as (mirror,):
        mirror.study_started(started(study="small"))
        mirror.study_ended(ended(study(trial(0))))
    mirror_retraining("offline", DATABASE, "small", lines.append)
    for line, reason in zip(lines, ("nowhere.db", "exit code 3"), strict=True):
        assert line.startswith("W&B: ")
        assert reason in line
        assert "mc1opt mirror --study small" in line


@pytest.mark.skipif(not Path("/proc").exists(), reason="the list of processes is read in /proc")
def test_the_password_of_a_database_is_neither_in_the_list_of_processes_nor_said() -> None:
    process = MirrorProcess("small", "postgresql+psycopg://me:secret@127.0.0.1:1/db", "offline", 60.0)
    arguments = Path(f"/proc/{process._process.pid}/cmdline").read_bytes()
    said = process.finish()
    assert b"small" in arguments
    assert "--storage 'postgresql+psycopg://me:***@127.0.0.1:1/db'" in said
    assert b"secret" not in arguments
    assert "secret" not in said


def children() -> set[int]:
    """The child processes that are alive; the one that lists them has ended."""
    return {pid for pid in child_processes(os.getpid()) if is_alive(pid)}


def break_off(lines: list[str]) -> None:
    with mirrored_search("offline", DATABASE, lines.append) as (mirror,):
        mirror.study_started(started(study="small"))
        mirror.trial_ended(trial(0))
        mirror.tick()
        assert mirror.background is not None
        raise StorageError("broken")


def test_a_search_that_breaks_off_is_not_mirrored(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "BACKGROUND_SECONDS", 0.0)
    lines: list[str] = []
    before = children()
    with pytest.raises(StorageError, match="broken"):
        break_off(lines)
    assert lines == []
    assert children() == before


@pytest.mark.slow
def test_in_the_background_it_mirrors_when_the_best_have_changed_and_not_too_often(small: Path) -> None:
    clock = Clock()
    mirror = WandbMirror("offline", DATABASE, clock)
    mirror.study_started(started(trial(0), study="small"))
    clock.seconds += BACKGROUND_SECONDS
    mirror.tick()
    assert mirror.background is None  # nothing has changed
    mirror.trial_ended(trial(50, value=0.9))
    begun = time.monotonic()
    mirror.tick()
    assert time.monotonic() - begun < 1.0
    assert mirror.background is not None
    mirror.trial_ended(trial(51, value=0.95))
    wait_until(lambda: mirror.tick() or mirror.background is None)
    assert len(read_runs()) == 11
    mirror.tick()
    assert mirror.background is None  # too soon
    clock.seconds += BACKGROUND_SECONDS
    mirror.tick()
    assert mirror.background is not None
    mirror.close()
    assert mirror.background is None


# ---- Its end ---------------------------------------------------------------------------------------------

PARENT = f"""
import time
from mc1opt.mirror.observer import MirrorProcess
process = MirrorProcess("small", {DATABASE!r}, "online", 600.0)
time.sleep(600)
"""


@pytest.fixture
def parent(
    small: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that mirrors to a server that never answers, or is not there."""
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    with request.param() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        started = subprocess.Popen([sys.executable, "-c", PARENT])
        yield started
        started.kill()
        started.wait()


def uploading(parent: int) -> list[int]:
    """The mirror and wandb's service, once the upload has begun."""
    found: dict[str, Any] = {}

    def has_begun() -> bool:
        found["mirror"] = child_processes(parent)
        found["service"] = [pid for child in found["mirror"] for pid in child_processes(child)]
        return bool(found["service"]) and any(FOLDER.glob("*/*.syncstate"))

    wait_until(has_begun)
    return [*found["mirror"], *found["service"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parent", "victim"),
    [(silent_server, "parent"), (no_server, "parent"), (silent_server, "mirror")],
    indirect=["parent"],
)
def test_it_ends_with_its_parent_and_wandbs_service_with_it(
    parent: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    pids = uploading(parent.pid)
    assert all(map(is_alive, pids))
    assert os.getsid(pids[0]) == pids[0]  # a terminal's Ctrl-C does not reach it
    os.kill(parent.pid if victim == "parent" else pids[0], signal.SIGKILL)
    assert all(wait_until_gone(pid, SECONDS) for pid in pids)
    if victim == "parent":
        assert not list(FOLDER.glob(".mc1opt-scratch"))
    (FOLDER / "offline-run-20260101_000000-small-76a0a72e7442-trial-5").mkdir()  # begun, not finished
    assert mirror("--wandb", "offline")["written"] == []
    assert len(read_runs()) == 11
    assert not list(FOLDER.glob(".mc1opt-scratch"))
