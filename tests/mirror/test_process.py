"""The mirroring process ends at its limit with all that it started, and costs nothing until then."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mc1opt.mirror.messages import MirroredRun, MirrorTask
from mc1opt.mirror.process import Limits, MirrorOutcome, MirrorProcess
from tests.mirror.test_process_tree import is_alive, wait_until_gone
from tests.support.acting_mirror import PIECES

SECONDS = 30.0
"""How long anything may take that takes a second at most."""
SOON = Limits(step=SECONDS, total=SECONDS)

Start = Callable[..., MirrorProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a process that acts; it ends with the test at the latest."""
    started = []

    def start_one(act: str, limits: Limits = SOON, runs: tuple[MirroredRun, ...] = ()) -> MirrorProcess:
        task = MirrorTask(folder=str(tmp_path), identity="0", project=act, mode="offline", runs=runs)
        started.append(MirrorProcess(task, limits, module="tests.support.acting_mirror"))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()


def pids(folder: Path) -> list[int]:
    """Of a process that hangs, and of its child, once they are there."""
    deadline = time.monotonic() + SECONDS
    file = folder / "pids"
    while not file.exists() or len(file.read_text().split()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return [int(pid) for pid in file.read_text().split()]


def run_once(process: MirrorProcess) -> MirrorOutcome:
    """Waits by polling, as a search does."""
    deadline = time.monotonic() + SECONDS
    while (outcome := process.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return outcome


def test_what_it_says_is_what_it_did(start: Start) -> None:
    outcome = run_once(start("makes progress"))
    assert outcome == MirrorOutcome(written=[str(number) for number in range(PIECES)])
    failed = start("fails").finish()
    assert failed == MirrorOutcome(uploaded=["first"], no_login=True, error="the disk is full")


def test_one_that_hangs_is_killed_with_its_children_at_its_limit(start: Start, tmp_path: Path) -> None:
    process = start("hangs", Limits(step=SECONDS, total=2.0))
    begun = time.monotonic()
    found = pids(tmp_path)
    outcome = process.finish()
    assert time.monotonic() - begun < 6.0
    assert (outcome.written, outcome.error) == (["first"], "it took longer than 2 s")
    wait_until_gone(found)


@pytest.mark.slow
def test_one_without_progress_is_killed(start: Start) -> None:
    stuck = start("hangs", Limits(step=3.0)).finish()
    assert stuck.error == "there was no progress for 3 s"


@pytest.mark.slow
def test_one_that_makes_progress_goes_on_beyond_the_limit_of_a_step(start: Start) -> None:
    begun = time.monotonic()
    assert start("is slow", Limits(step=6.0)).finish().error is None
    assert time.monotonic() - begun > 6.0


@pytest.mark.slow
def test_polling_does_not_wait(start: Start, tmp_path: Path) -> None:
    process = start("hangs", Limits(step=SECONDS))
    pids(tmp_path)
    begun = time.monotonic()
    for _ in range(20):
        assert process.poll() is None
    assert time.monotonic() - begun < 1.0


def test_one_that_hangs_after_its_work_is_done_is_not_waited_for(start: Start) -> None:
    process = start("hangs at its end")
    assert process.finish() == MirrorOutcome()
    assert not is_alive(process.pid)


def test_one_that_breaks_says_why(start: Start) -> None:
    error = start("breaks").finish().error
    assert error == "it ended before its work was done (RuntimeError: no such thing)"


@pytest.mark.slow
def test_what_is_no_message_is_passed_over(start: Start) -> None:
    assert start("chatters").finish() == MirrorOutcome()


def test_killing_it_ends_its_children_and_may_be_repeated(start: Start, tmp_path: Path) -> None:
    process = start("hangs", Limits(step=SECONDS))
    found = pids(tmp_path)
    process.kill()
    process.kill()
    wait_until_gone(found)
    outcome = process.poll()
    assert outcome is not None
    assert outcome.error == "it was stopped"


@pytest.mark.slow
def test_a_terminal_s_ctrl_c_does_not_reach_it(start: Start, tmp_path: Path) -> None:
    process = start("hangs", Limits(step=SECONDS))
    pids(tmp_path)
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    assert os.getpgid(process.pid) != os.getpgid(0)


@pytest.mark.slow
def test_a_task_of_any_size_arrives_whole(start: Start, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"id": "a", "name": "a", "group": "a", "job_type": "trial", "tags": ()}
    run = MirroredRun(**fields, config={}, axis="epoch", history=(), summary={"failure": "x" * 1_000_000})
    process = start("shows its task", runs=(run,))
    assert process.finish() == MirrorOutcome()
    assert MirrorTask.model_validate_json((tmp_path / "task").read_text()).runs == (run,)


def test_only_account_and_server_are_taken_from_wandb_s_variables(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = {"WANDB_API_KEY": "k" * 40, "WANDB_BASE_URL": "http://localhost:1", "WANDB_ENTITY": "us"}
    others = {"WANDB_DIR": "/elsewhere", "WANDB_RUN_ID": "x", "WANDB_MODE": "online", "WANDB_SERVICE": "y"}
    for name, value in (ours | others | {"PLAIN": "1"}).items():
        monkeypatch.setenv(name, value)
    start("shows its environment").finish()
    seen = json.loads((tmp_path / "environment").read_text())
    assert ours.items() <= seen.items()
    assert seen["PLAIN"] == "1"
    assert seen["WANDB_DIR"] == str(tmp_path.parent)
    assert not {"WANDB_RUN_ID", "WANDB_MODE", "WANDB_SERVICE"} & seen.keys()


@pytest.mark.slow
def test_one_that_is_killed_by_the_system_is_an_error(start: Start, tmp_path: Path) -> None:
    process = start("hangs", Limits(step=SECONDS))
    found = pids(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    assert process.finish().error == "it ended before its work was done"
    os.kill(found[1], signal.SIGKILL)  # nobody knows any more that it was its child
