"""One worker process, seen from its parent."""

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from mc1opt.workers import child as child_module
from mc1opt.workers.child import TAIL_BYTES, Child, WorkerDied
from mc1opt.workers.protocol import Continue, EpochDone, Failed, Finished, Ready, Train
from tests.support.curves import TRAINER, example_training
from tests.workers.test_process import is_alive, wait_until_gone

SECONDS = 30.0


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    """Starts a worker and waits until it is ready; it is closed after the test."""
    children = []

    def start_one(trainer: str = TRAINER, threads: int = 1) -> Child:
        children.append(Child(trainer, threads))
        assert children[-1].receive(SECONDS) == Ready()
        return children[-1]

    yield start_one
    for child in children:
        child.close()


@pytest.fixture
def child(start) -> Child:
    """A worker that is ready."""
    return start()


def test_it_is_not_usable_before_it_is_ready():
    child = Child(TRAINER, 1)
    assert not child.usable
    child.close()


def test_it_is_usable_when_it_is_not_in_a_training(child):
    assert child.usable
    assert child.receive(0.01) is None  # nothing comes
    child.send(Train(training=example_training(epochs=1)))
    assert not child.usable
    child.receive(SECONDS)
    assert not child.usable
    child.send(Continue())
    assert child.receive(SECONDS) == Finished()
    assert child.usable


@pytest.mark.parametrize(
    ("action", "usable"), [("diverge", True), ("raise", False), ("out_of_memory", False)]
)
def test_only_failures_that_may_have_broken_the_process_make_it_unusable(switches, child, action, usable):
    switches.add(action)
    child.send(Train(training=example_training()))
    assert isinstance(child.receive(SECONDS), Failed)
    assert child.usable == usable


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGKILL, "killed"), (signal.SIGABRT, "crashed"), (signal.SIGSEGV, "crashed")]
)
def test_a_death_by_signal_is_named(child, number, kind):
    os.kill(child.pid, number)
    with pytest.raises(WorkerDied, match=number.name) as caught:
        child.receive(SECONDS)
    assert caught.value.kind == kind


def test_a_kill_for_want_of_memory_is_told_from_others(child, monkeypatch):
    """By the system's own count, which a test cannot make rise without killing something else."""
    before = child_module.memory_kills() or 0
    monkeypatch.setattr(child_module, "memory_kills", lambda: before + 1)
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="SIGKILL") as caught:
        child.receive(SECONDS)
    assert caught.value.kind == "out_of_memory"


def test_sending_to_a_dead_process_says_how_it_died(child):
    os.kill(child.pid, signal.SIGKILL)
    child._process.wait(SECONDS)
    with pytest.raises(WorkerDied, match="SIGKILL"):
        child.send(Continue())


def test_the_last_output_is_kept_and_bounded(switches, child):
    switches.add("print")
    switches.add("crash", value=3)
    child.send(Train(training=example_training()))
    with pytest.raises(WorkerDied, match="exit code 3") as caught:
        child.receive(SECONDS)
    assert "about to crash" in caught.value.message
    assert len(caught.value.message) < TAIL_BYTES + 200


def test_what_is_no_message_ends_the_process(child):
    child._lines.feed(b"no message\n")
    with pytest.raises(WorkerDied, match="no message") as caught:
        child.receive(SECONDS)
    assert caught.value.kind == "crashed"
    assert not is_alive(child.pid)


def test_a_process_that_was_asked_to_end_does_so_by_itself(child):
    child.hang_up()
    child.wait_for_end(SECONDS)
    assert child._process.returncode == 0


@pytest.mark.parametrize("how", ["asked", "interrupted"])
def test_a_process_that_does_not_end_is_killed(child, how):
    os.kill(child.pid, signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)  # until all its threads have stopped
    if how == "asked":
        child.hang_up()
        child.wait_for_end(0.1)
    else:
        child.interrupt(0.1)
    assert child._process.returncode == -signal.SIGKILL


def test_an_interrupted_process_ends_by_itself(switches, child):
    switches.add("hang")
    child.send(Train(training=example_training()))
    switches.wait_for_epochs(1)
    child.interrupt(SECONDS)
    assert child._process.returncode == 0
    child.interrupt(SECONDS)  # without harm


def test_warnings_come_before_the_message_and_go_to_the_log(start, caplog):
    child = start("tests.support.trainers:warns")
    child.send(Train(training=example_training(epochs=1)))
    assert isinstance(child.receive(SECONDS), EpochDone)
    assert [record.getMessage() for record in caplog.records] == ["the disk is full"]


def test_the_threads_are_set_before_torch_is_imported(start):
    child = start("tests.support.trainers:tells_its_threads", threads=3)
    child.send(Train(training=example_training()))
    assert child.receive(SECONDS).result.seconds == 33


def test_what_the_worker_started_ends_with_it(start):
    child = start("tests.support.trainers:leaves_a_child_process")
    child.send(Train(training=example_training()))
    grandchild = int(child.receive(SECONDS).result.seconds)
    assert is_alive(grandchild)
    child.close()
    assert wait_until_gone(grandchild, SECONDS)
