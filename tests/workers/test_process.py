"""The worker process by itself, spoken to over its pipes, without a pool."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mc1opt.config import CustomNetwork
from mc1opt.workers.protocol import (
    INTERRUPT_SIGNAL,
    Command,
    Continue,
    EpochDone,
    Failed,
    Finished,
    Message,
    Ready,
    Stop,
    Train,
    decode_message,
    encode,
)
from tests.support.command import wait_until
from tests.support.curves import TRAINER, curve, example_training

ROOT = Path(__file__).parents[2]
SECONDS = 30.0
"""Far more than anything here takes."""


def command_line(trainer: str = TRAINER, parent: int | None = None) -> list[str]:
    module = [sys.executable, "-m", "mc1opt.workers.process", "--trainer", trainer]
    return [*module, "--parent", str(parent or os.getpid())]


class Worker:
    """A worker process and how to talk to it, blocking."""

    def __init__(self, trainer: str = TRAINER) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command_line(trainer), stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT)

    def say(self, command: Command) -> None:
        self.process.stdin.write(encode(command))
        self.process.stdin.flush()

    def hear(self) -> Message:
        return decode_message(self.process.stdout.readline())


@pytest.fixture
def start() -> Iterator[Callable[..., Worker]]:
    """Starts a worker that this test leaves behind."""
    workers = []

    def start_one(trainer: str = TRAINER) -> Worker:
        workers.append(Worker(trainer))
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.process.kill()
        worker.process.wait()
        for pipe in (worker.process.stdin, worker.process.stdout, worker.process.stderr):
            pipe.close()


@pytest.fixture
def worker(start) -> Worker:
    """A worker that is ready."""
    worker = start()
    assert worker.hear() == Ready()
    return worker


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return sys.platform != "linux"


def wait_until_gone(pid: int, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: not is_alive(pid), seconds)
    return not is_alive(pid)


def test_it_sends_the_epochs_one_by_one_and_then_finished(worker):
    training = example_training(epochs=2)
    worker.say(Train(training=training))
    for result in curve(training):
        assert worker.hear() == EpochDone(result=result)
        worker.say(Continue())
    assert worker.hear() == Finished()


def test_an_error_for_people_comes_without_a_traceback(start):
    worker = start("tests.support.trainers:data_error")
    worker.hear()
    worker.say(Train(training=example_training()))
    assert worker.hear() == Failed(kind="crashed", message="the images are damaged")


@pytest.mark.parametrize(("seed", "kind"), [(0, "network"), (1, "crashed"), (2, "out_of_memory")])
def test_what_a_custom_network_raises_is_its_failure_and_not_the_machines(start, seed, kind):
    custom = CustomNetwork(arguments={"width": 8}, path="/there/net.py")
    training = example_training(seed=seed)
    training = training.model_copy(
        update={"config": training.config.model_copy(update={"architecture": custom})}
    )
    worker = start("tests.support.trainers:raises_what_the_seed_says")
    worker.hear()
    worker.say(Train(training=training))
    failed = worker.hear()
    assert isinstance(failed, Failed)
    assert failed.kind == kind
    assert ("build(data, width=8) of /there/net.py" in failed.message) == (kind == "network")


def test_stop_closes_the_generator_of_the_trainer(start):
    worker = start("tests.support.trainers:complains_when_closed")
    worker.hear()
    worker.say(Train(training=example_training()))
    worker.hear()
    worker.say(Stop())
    assert worker.hear() == Finished()
    worker.process.stdin.close()
    assert worker.process.stderr.read() == b"closed\n"


def test_memory_of_a_training_is_free_before_the_next(start):
    worker = start("tests.support.trainers:holds_much_memory")
    worker.hear()
    for seed in (1, 2):
        worker.say(Train(training=example_training(seed=seed)))
        assert worker.hear().result.seconds == 0
        worker.say(Continue())
        worker.hear()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_signals_that_the_parent_handles_are_ignored(worker, number):
    worker.process.send_signal(number)
    worker.say(Train(training=example_training(epochs=1)))
    assert isinstance(worker.hear(), EpochDone)
    worker.process.send_signal(number)
    worker.say(Continue())
    assert worker.hear() == Finished()


@pytest.mark.parametrize("within", [True, False], ids=["within an epoch", "between two epochs"])
def test_an_interrupt_has_the_checkpoint_written_and_ends_it(switches, worker, within):
    training = example_training(checkpoint=str(Path("c.checkpoint").absolute()))
    switches.add("hang", epoch=1)
    worker.say(Train(training=training))
    worker.hear()
    if within:
        worker.say(Continue())
        switches.wait_for_epochs(2)
    worker.process.send_signal(INTERRUPT_SIGNAL)
    assert worker.process.wait(SECONDS) == 0
    assert json.loads(Path("c.checkpoint").read_text())["epochs"] == 1


def test_an_interrupt_ends_it_while_it_waits_for_a_training(worker):
    worker.process.send_signal(INTERRUPT_SIGNAL)
    assert worker.process.wait(SECONDS) == 0
    assert worker.process.stderr.read() == b""


def test_it_ends_in_the_middle_of_an_epoch_when_its_input_is_closed(switches, worker):
    switches.add("hang", epoch=1)
    worker.say(Train(training=example_training()))
    worker.hear()
    worker.say(Continue())
    switches.wait_for_epochs(2)
    worker.process.stdin.close()
    assert worker.process.wait(SECONDS) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="oom_score_adj is Linux' own")
def test_where_memory_runs_out_it_is_killed_before_its_parent(worker):
    own, of_the_worker = (
        int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (os.getpid(), worker.process.pid)
    )
    assert of_the_worker > own


def test_a_trainer_that_raises_when_imported_ends_it_with_the_reason(start):
    worker = start("tests.support.broken_trainer:train")
    assert worker.process.wait(SECONDS) == 1
    assert b"torchvision 0.1" in worker.process.stderr.read()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux' own")
def test_it_is_killed_with_its_parent_although_its_input_stays_open():
    read, write = os.pipe()
    code = (
        "import os, subprocess, sys, time\n"
        f"command = {command_line()[:-1]!r} + [str(os.getpid())]\n"
        f"worker = subprocess.Popen(command, stdin={read}, stdout=subprocess.PIPE)\n"
        "worker.stdout.readline()\n"  # it is ready
        "print(worker.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], pass_fds=[read], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    os.close(read)
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.communicate()
    try:
        assert wait_until_gone(pid, 15.0)
    finally:
        os.close(write)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux' own")
def test_it_ends_at_once_when_its_parent_is_gone_already():
    somebody_else = os.getppid() or 2**22
    with subprocess.Popen(command_line(parent=somebody_else), stdin=subprocess.PIPE, cwd=ROOT) as process:
        assert process.wait(SECONDS) == 1
