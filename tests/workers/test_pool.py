"""Worker processes together: real processes, killed for real, with learning curves instead of training."""

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from mc1opt.config import config_id
from mc1opt.errors import WorkerError
from mc1opt.spec import TrainingFailed
from mc1opt.workers import pool as pool_module
from mc1opt.workers.child import Child
from mc1opt.workers.pool import ProcessPool
from mc1opt.workers.protocol import TrainingInterrupted
from tests.support.curves import TRAINER, curve, example_training
from tests.workers.test_contract import go_on, in_thread, results_of
from tests.workers.test_process import ROOT, is_alive, wait_until_gone

SECONDS = 30.0
"""Far more than anything here takes."""


@pytest.fixture
def pool(switches):
    with ProcessPool(1, trainer=TRAINER) as pool:
        yield pool


@pytest.fixture
def pair(switches):
    with ProcessPool(2, trainer=TRAINER) as pool:
        yield pool


# ---- Trainings that go well ------------------------------------------------------------------------------


def test_workers_outlive_the_thread_and_the_trainings_that_used_them(pool, switches):
    for seed in range(6):
        training = example_training(seed=seed)
        if seed % 3:
            assert in_thread(results_of, pool, training).result(SECONDS) == curve(training)
        else:
            assert not in_thread(pool.train, training, lambda _: False).result(SECONDS)
    assert len({epoch["pid"] for epoch in switches.epochs()}) == 1


def test_prints_of_libraries_do_no_harm(pool, switches):
    switches.add("print", epoch=None)
    assert results_of(pool, example_training()) == curve(example_training())


def test_a_pool_without_workers_is_refused():
    with pytest.raises(ValueError, match="0"):
        ProcessPool(0, trainer=TRAINER)


# ---- Trainings that fail ---------------------------------------------------------------------------------


def test_a_worker_that_dies_between_trainings_fails_none(pool):
    pool.train(example_training(), go_on)
    child = pool._free[0].result()
    os.kill(child.pid, signal.SIGKILL)
    child._process.wait(SECONDS)
    assert pool.train(example_training(), go_on)


def test_epochs_of_a_checkpoint_count_as_training(switches):
    training = example_training(epochs=2, checkpoint=str(Path("c.checkpoint").absolute()))
    content = {"seed": 0, "config_id": config_id(training.config), "epochs": 1}
    Path("c.checkpoint").write_text(json.dumps(content))
    seconds = curve(training)[0].seconds
    with (
        ProcessPool(1, trainer=TRAINER, max_training_seconds=seconds) as pool,
        pytest.raises(TrainingFailed) as caught,
    ):
        pool.train(training, go_on)
    assert caught.value.kind == "timed_out"


def test_time_in_which_this_process_was_halted_does_not_count_as_training(monkeypatch, switches):
    """As by Ctrl-Z: the clock runs on, and the worker has its epoch and waits."""
    receive = Child.receive
    halts = iter([0.0, 2.0])

    def halted(child, wait):
        if switches.epochs() and (seconds := next(halts, 0.0)):
            time.sleep(seconds)
        return receive(child, wait)

    with ProcessPool(1, trainer=TRAINER, max_training_seconds=1.5) as pool:
        monkeypatch.setattr(Child, "receive", halted)
        assert pool.train(example_training(epochs=3), go_on)
    assert next(halts, None) is None


def test_time_in_on_epoch_does_not_count_as_training():
    with ProcessPool(1, trainer=TRAINER, max_training_seconds=0.5) as pool:
        assert pool.train(example_training(epochs=2), lambda result: time.sleep(0.4) is None)


def test_torch_out_of_memory_is_recognised():
    with (
        ProcessPool(1, trainer="tests.support.trainers:out_of_memory_in_torch") as pool,
        pytest.raises(TrainingFailed) as caught,
    ):
        pool.train(example_training(), go_on)
    assert caught.value.kind == "out_of_memory"


def test_a_worker_that_does_not_stop_is_replaced(monkeypatch):
    monkeypatch.setattr(pool_module, "STOP_SECONDS", 0.2)
    with ProcessPool(1, trainer="tests.support.trainers:closes_slowly") as pool:
        assert pool.train(example_training(), lambda result: False) is False
        assert pool.train(example_training(), lambda result: False) is False


def test_workers_that_cannot_start_are_an_error_with_the_reason():
    with (
        ProcessPool(2, trainer="tests.support.broken_trainer:train") as pool,
        pytest.raises(WorkerError, match=r"3 attempts.*exit code 1(.|\n)*torchvision 0.1"),
    ):
        pool.train(example_training(), go_on)


def test_a_worker_that_never_gets_ready_is_given_up(monkeypatch):
    monkeypatch.setattr(ProcessPool, "start_seconds", 0.01)
    with (
        ProcessPool(1, trainer=TRAINER) as pool,
        pytest.raises(WorkerError, match=r"0\.01 seconds"),
    ):
        pool.train(example_training(), go_on)


def test_a_process_that_cannot_be_made_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/does/not/exist")
    with ProcessPool(1, trainer=TRAINER) as pool, pytest.raises(WorkerError, match="/does/not/exist"):
        pool.train(example_training(), go_on)


# ---- Interrupting and closing ----------------------------------------------------------------------------


def test_a_worker_that_does_not_write_its_checkpoint_in_time_is_killed(switches, monkeypatch):
    monkeypatch.setattr(pool_module, "SAVE_SECONDS", 0.2)
    switches.add("hang", epoch=1)
    pool = ProcessPool(1, trainer=TRAINER)
    training = example_training(checkpoint=str(Path("c.checkpoint").absolute()))
    future = in_thread(pool.train, training, go_on)
    pid = switches.wait_for_epochs(2)[0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    pool.interrupt()
    assert isinstance(future.exception(SECONDS), TrainingInterrupted)
    assert not is_alive(pid)
    pool.close()


def open_descriptors() -> set[tuple[str, str]]:
    """With what each is open on, so that a new one is told from one that had its number before."""
    found = set()
    for path in Path("/dev/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of this very listing
            found.add((path.name, str(path.readlink()) if path.is_symlink() else ""))
    return found


def test_closing_leaves_no_process_thread_or_descriptor(switches):
    threads = set(threading.enumerate())
    gc.collect()  # what earlier tests have left is closed now, and not in between
    before = open_descriptors()
    switches.add("hang", seed=1)
    pool = ProcessPool(3, trainer=TRAINER)
    pool.train(example_training(seed=0), go_on)
    future = in_thread(pool.train, example_training(seed=1), go_on)
    pids = {epoch["pid"] for epoch in switches.wait_for_epochs(4)}
    pids |= {slot.result().pid for slot in pool._free}
    assert len(pids) == 3
    pool.close()
    pool.close()
    assert isinstance(future.exception(SECONDS), TrainingInterrupted)
    for pid in pids:
        with pytest.raises(ProcessLookupError):  # a zombie would still be found
            os.kill(pid, 0)
    assert open_descriptors() - before == set()
    deadline = time.monotonic() + SECONDS
    while set(threading.enumerate()) - threads and time.monotonic() < deadline:
        time.sleep(0.01)  # the test's own thread ends a moment after its future
    assert set(threading.enumerate()) <= threads


def test_closing_within_on_epoch_ends_the_training(monkeypatch):
    monkeypatch.setattr(pool_module, "CLOSE_SECONDS", 0.2)
    pool = ProcessPool(1, trainer=TRAINER)
    with pytest.raises(TrainingInterrupted):
        pool.train(example_training(), lambda result: pool.close() is None)
    assert not pool._taken


def test_closing_at_once_after_starting_leaves_no_process():
    pool = ProcessPool(2, trainer=TRAINER)
    started = list(pool._free)
    pool.close()
    assert not pool._free
    for slot in started:
        assert slot.cancelled() or not psutil.pid_exists(slot.result().pid)


def test_signals_to_workers_that_are_just_starting_are_ignored(pool):
    child = pool._free[0].result()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(child.pid, number)  # long before Python has started
    assert pool.train(example_training(), go_on)
    assert child.usable


# ---- The parent ------------------------------------------------------------------------------------------

DRIVER = """
import sys, threading
from mc1opt.workers.pool import ProcessPool
from tests.support.curves import TRAINER, example_training

pool = ProcessPool(2, trainer=TRAINER)
for seed in range(2):
    arguments = (example_training(seed=seed), lambda result: True)
    threading.Thread(target=pool.train, args=arguments, daemon=True).start()
sys.stdin.readline()
"""


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "ends without closing the pool"])
def test_workers_end_with_their_parent(switches, killed):
    switches.add("hang", epoch=1)
    command = [sys.executable, "-c", DRIVER]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, text=True) as driver:
        pids = {epoch["pid"] for epoch in switches.wait_for_epochs(4)}
        assert [is_alive(pid) for pid in pids] == [True] * 2
        if killed:
            driver.kill()
        else:
            driver.stdin.write("\n")
    assert all(wait_until_gone(pid, 15.0) for pid in pids)


def test_modules_of_the_current_folder_do_not_hide_others(tmp_path, monkeypatch):
    (tmp_path / "queue.py").write_text("raise ImportError('not the one of the standard library')")
    monkeypatch.chdir(tmp_path)
    with ProcessPool(1, trainer=TRAINER) as pool:
        assert pool.train(example_training(), go_on)
