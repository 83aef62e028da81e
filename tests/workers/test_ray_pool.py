"""Pools on a Ray cluster: what they do beyond every pool (`test_contract.py`)."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import psutil
import pytest

from mc1opt.errors import UsageError, WorkerError
from mc1opt.spec import EpochResult, TrainingFailed
from mc1opt.workers import ray_pool
from mc1opt.workers.engine import Engine
from mc1opt.workers.pool import Pool
from mc1opt.workers.ray_pool import LOSSES, Cluster, RayPool
from tests.support.curves import TRAINER, Switches, curve, example_training
from tests.support.ray_cluster import Nodes, connected, ray_nodes
from tests.workers.test_contract import SECONDS, in_thread


def test_without_ray_the_option_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"mc1opt\[ray\]"):
        Engine(ray="local").find_device()


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers"), [(1, 0.0, 4 + 2), (3, 0.0, 1), (1, 0.25, 4), (4, 1.0, 1), (8, 0.0, 0)]
)
def test_the_capacity_is_that_of_the_machines_that_are_there(
    cpus: int, gpus: float, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}},
        {"Alive": True, "Resources": {"CPU": 2.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
        {"Alive": True, "Resources": {}},
    ]
    monkeypatch.setattr(ray_pool, "_ray", lambda: SimpleNamespace(nodes=lambda: nodes))
    assert Cluster("auto", cpus, gpus).capacity() == workers


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Nodes, Callable[..., Pool]]]:
    with ray_nodes(cpus=1) as nodes, connected(nodes) as make:
        yield nodes, make


def relay_of(pid: int) -> int:
    """The process of the actor that has a worker."""
    return psutil.Process(pid).ppid()


@pytest.mark.ray
def test_a_training_that_loses_its_actor_goes_on_and_tells_no_epoch_twice(
    started: tuple[Nodes, Callable[..., Pool]], switches: Switches
) -> None:
    _, make = started
    training, told = example_training(epochs=4), list[EpochResult]()

    def on_epoch(result: EpochResult) -> bool:
        told.append(result)
        if len(told) == 2:
            os.kill(relay_of(switches.epochs()[-1]["pid"]), signal.SIGKILL)
        return True

    with make(1) as pool:
        assert pool.train(training, on_epoch)
    assert told == curve(training)
    assert [each["epoch"] for each in switches.epochs()].count(0) == 2


@pytest.mark.ray
def test_a_training_that_loses_every_actor_fails_as_killed(
    started: tuple[Nodes, Callable[..., Pool]], switches: Switches, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, make = started
    monkeypatch.setattr(ray_pool, "LOSSES", 2)
    assert LOSSES > 2

    switches.add("hang", epoch=0, seed=1)
    with make(1) as pool:
        failing = in_thread(pool.train, example_training(seed=1), lambda _: True)
        for begun in (1, 2):
            os.kill(relay_of(switches.wait_for_epochs(begun)[-1]["pid"]), signal.SIGKILL)
        failure = failing.exception(SECONDS)
        assert isinstance(failure, TrainingFailed)
        assert failure.kind == "killed"
        assert pool.train(example_training(seed=2), lambda _: True)


@pytest.mark.ray
def test_the_pool_follows_nodes_that_come_and_go(started: tuple[Nodes, Callable[..., Pool]]) -> None:
    nodes, make = started
    with make(None) as pool:
        assert pool.size == 1
        second = nodes.add(cpus=2)
        wait_for(lambda: pool.size == 3)
        nodes.kill(second)
        assert pool.train(example_training(), lambda _: True)


@pytest.mark.ray
def test_a_cluster_without_place_is_said_and_waited_for(
    started: tuple[Nodes, Callable[..., Pool]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    nodes, _ = started
    monkeypatch.setattr(ray_pool, "PLACE_SECONDS", 1.0)
    with RayPool(Cluster(nodes.address, cpus=3), None, trainer=TRAINER) as pool:
        assert "3 CPUs" in caplog.text
        nodes.add(cpus=3)
        nodes.use_switches()
        assert pool.train(example_training(), lambda _: True)


@pytest.mark.ray
def test_a_worker_that_cannot_start_is_an_error_with_the_reason(
    started: tuple[Nodes, Callable[..., Pool]],
) -> None:
    _, make = started
    with make(1, trainer="tests.support.broken_trainer:train") as pool, pytest.raises(WorkerError):
        pool.train(example_training(), lambda _: True)


def wait_for(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    """Waits until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
