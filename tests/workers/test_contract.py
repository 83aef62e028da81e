"""What every pool does: the inline stand-in of tests, processes of this machine, actors of a Ray cluster."""

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from mc1opt.spec import EpochResult, Training, TrainingFailed
from mc1opt.workers.pool import Pool, ProcessPool
from mc1opt.workers.protocol import TrainingInterrupted
from tests.support.curves import TRAINER, CurvePool, curve, example_training
from tests.support.ray_cluster import connected, ray_nodes
from tests.workers.test_process import wait_until_gone

SECONDS = 60.0
"""Far more than anything here takes."""


@pytest.fixture(scope="module")
def ray_pool() -> Iterator[Callable[..., Pool]]:
    """Makes pools on a cluster that all tests here share."""
    with ray_nodes(cpus=2) as nodes, connected(nodes) as make:
        yield make


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Callable[..., Pool]:
    """Makes a pool of a number of workers."""
    if request.param == "ray":
        return request.getfixturevalue("ray_pool")
    return CurvePool if request.param == "curves" else functools.partial(ProcessPool, trainer=TRAINER)


RAY = pytest.param("ray", marks=pytest.mark.ray)
every_pool = pytest.mark.parametrize("make", ["curves", "processes", RAY], indirect=True)
with_processes = pytest.mark.parametrize("make", ["processes", RAY], indirect=True)


def go_on(result: EpochResult) -> bool:
    """Goes on."""
    return True


def results_of(pool: Pool, training: Training) -> list[EpochResult]:
    """The results of a training that goes to its end."""
    results: list[EpochResult] = []
    assert pool.train(training, lambda result: results.append(result) is None) is True
    return results


def in_thread(function: Callable[..., bool], *arguments: object) -> "Future[bool]":
    """Calls it in a thread that ends with the call."""
    with_one = ThreadPoolExecutor(1)
    future = with_one.submit(function, *arguments)
    with_one.shutdown(wait=False)
    return future


@every_pool
def test_every_epoch_is_handed_over_in_order(make):
    with make(1) as pool:
        assert results_of(pool, example_training(epochs=5)) == curve(example_training(epochs=5))


@every_pool
def test_a_training_ends_when_on_epoch_says_so(make, switches):
    results = []
    with make(1) as pool:
        assert pool.train(example_training(), lambda result: results.append(result) or False) is False
    assert len(results) == len(switches.epochs()) == 1


@with_processes
def test_workers_train_at_the_same_time(make, switches):
    both = threading.Barrier(2)

    def wait_for_the_other(result: EpochResult) -> bool:
        both.wait(SECONDS)  # raises if one trains after the other
        return True

    with make(2) as pair:
        trainings = [example_training(seed=seed) for seed in range(2)]
        futures = [in_thread(pair.train, training, wait_for_the_other) for training in trainings]
        assert all(future.result(SECONDS) for future in futures)
    assert len({epoch["pid"] for epoch in switches.epochs()}) == 2


@with_processes
def test_more_threads_than_workers_wait_for_their_turn(make):
    with make(2) as pair:
        futures = [in_thread(pair.train, example_training(seed=seed), go_on) for seed in range(8)]
        assert all(future.result(SECONDS) for future in futures)


@with_processes
def test_an_exception_of_on_epoch_goes_through_and_frees_the_worker(make, switches):
    def complain(result: EpochResult) -> bool:
        raise KeyError("full")

    with make(1) as pool:
        with pytest.raises(KeyError, match="full"):
            pool.train(example_training(), complain)
        assert pool.train(example_training(), go_on)
    assert len({epoch["pid"] for epoch in switches.epochs()}) == 1


@with_processes
@pytest.mark.parametrize(
    ("action", "kind", "text"),
    [
        ("diverge", "diverged", "nan"),
        ("raise", "crashed", "ValueError: raised on request\nTraceback"),
        ("out_of_memory", "out_of_memory", "MemoryError"),
        ("crash", "crashed", "about to crash"),
        ("kill", "killed", "SIGKILL"),
    ],
)
def test_a_failure_has_its_kind_and_message_and_the_next_training_goes_well(
    make, switches, action, kind, text
):
    switches.add(action, epoch=1, value=3, seed=1)
    results = []
    with make(1) as pool:
        with pytest.raises(TrainingFailed) as caught:
            pool.train(example_training(seed=1), lambda result: results.append(result) or True)
        assert caught.value.kind == kind
        assert text in caught.value.message
        assert len(results) == 1
        assert pool.train(example_training(seed=2), go_on)


@with_processes
def test_a_worker_that_is_killed_is_replaced_and_the_other_does_not_notice(make, switches):
    switches.add("hang", seed=1, epoch=1)
    with make(2) as pair:
        victim = in_thread(pair.train, example_training(seed=1), go_on)
        pid = switches.wait_for_epochs(2)[-1]["pid"]
        results = []
        training = example_training(seed=2)

        def kill_the_other(result: EpochResult) -> bool:
            results.append(result)
            if result.epoch == 0:
                os.kill(pid, signal.SIGKILL)
                assert isinstance(victim.exception(SECONDS), TrainingFailed)
            return True

        assert pair.train(training, kill_the_other)
        assert victim.exception().kind == "killed"
        assert results == curve(training)
        switches.clear()
        futures = [in_thread(pair.train, example_training(seed=seed), go_on) for seed in range(3, 7)]
        assert all(future.result(SECONDS) for future in futures)


@with_processes
def test_a_training_that_takes_too_long_is_timed_out_and_its_worker_replaced(make, switches):
    switches.add("hang", epoch=1, seed=1)
    with make(1, max_training_seconds=0.5) as pool:
        with pytest.raises(TrainingFailed, match=r"0\.5 seconds") as caught:
            pool.train(example_training(seed=1), go_on)
        assert caught.value.kind == "timed_out"
        wait_until_gone(switches.epochs()[0]["pid"], SECONDS)
        assert pool.train(example_training(seed=2), go_on)


@every_pool
@pytest.mark.parametrize("end", ["interrupt", "close"])
def test_a_training_in_an_epoch_is_interrupted(switches, make, end):
    switches.add("hang", epoch=1)
    pool = make(1)
    training, waiting = (in_thread(pool.train, example_training(), go_on) for _ in range(2))
    switches.wait_for_epochs(2)
    getattr(pool, end)()
    for future in (training, waiting):
        assert isinstance(future.exception(3.0), TrainingInterrupted)
    with pytest.raises(TrainingInterrupted):
        pool.train(example_training(), go_on)
    pool.close()


@every_pool
def test_an_interrupt_within_the_last_on_epoch_comes_too_late(make):
    pool = make(1)
    results = []

    def on_epoch(result):
        results.append(result)
        if result.epoch == example_training().fidelity.epochs - 1:
            pool.interrupt()
        return True

    assert pool.train(example_training(), on_epoch) is True
    assert len(results) == example_training().fidelity.epochs
    pool.close()


@every_pool
def test_a_training_that_on_epoch_ends_during_an_interrupt_counts_as_ended(make):
    pool = make(1)
    assert pool.train(example_training(), lambda result: pool.interrupt() is not None) is False
    pool.close()


@every_pool
def test_an_interrupted_training_goes_on_from_its_last_epoch(switches, make):
    training = example_training(epochs=4, checkpoint=str(Path("c.checkpoint").absolute()))
    switches.add("hang", epoch=2)
    pool = make(1)
    future = in_thread(pool.train, training, go_on)
    switches.wait_for_epochs(3)
    pool.interrupt()
    assert isinstance(future.exception(3.0), TrainingInterrupted)
    pool.close()
    switches.clear()
    with make(1) as pool:
        results = results_of(pool, training)
    assert [epoch["epoch"] for epoch in switches.epochs()] == [0, 1, 2, 2, 3]
    assert [result.restored for result in results] == [True, True, False, False]
    assert [result.model_copy(update={"restored": False}) for result in results] == curve(training)


@every_pool
def test_an_interrupt_within_on_epoch_ends_the_training_and_keeps_that_epoch(switches, make):
    training = example_training(checkpoint=str(Path("c.checkpoint").absolute()))
    pool = make(1)
    with pytest.raises(TrainingInterrupted):
        pool.train(training, lambda result: pool.interrupt() is None)
    pool.close()
    with make(1) as pool:
        assert pool.train(training, go_on)
    assert [epoch["epoch"] for epoch in switches.epochs()] == [0, 1, 2]
