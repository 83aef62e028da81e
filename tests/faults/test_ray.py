"""Fault 23: workers on a Ray cluster of several node processes, which come and go."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from mc1opt.database.records import StudyRecord
from mc1opt.seeds import derive_seed
from tests.faults.checker import Expected, check
from tests.faults.conftest import CURVES, SECONDS, TRIALS, Commands
from tests.support.curves import Switches
from tests.support.ray_cluster import Nodes, ray_nodes
from tests.support.studies import SEED, facts, wait_until_begun

pytestmark = pytest.mark.ray

VICTIM = 6
"""The trial in the middle of which it happens."""
HANGS = {"seed": derive_seed(SEED, VICTIM), "epoch": 2, "times": 1}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """A cluster whose first node trains nothing."""
    with ray_nodes(cpus=0) as nodes:
        yield nodes


@pytest.fixture
def nodes(cluster: Nodes, switches: Switches) -> Iterator[Nodes]:
    """The same, with the switches of this test; nodes that it adds end with it."""
    cluster.use_switches()
    yield cluster
    cluster.kill_added()


def search(commands: Commands, nodes: Nodes, workers: int | str = "auto", **options: Any) -> Any:
    """Starts a search on the cluster."""
    return commands.search(workers=workers, more=("--ray", nodes.address), **options)


def node_of(pid: int, nodes: list[Any]) -> Any:
    """The node that a process runs on."""
    above = {process.pid for process in psutil.Process(pid).parents()}
    return next(node for node in nodes if node.all_processes["raylet"][0].process.pid in above)


def test_one_worker_of_a_cluster_gives_the_study_of_a_local_one(
    commands: Commands, nodes: Nodes, undisturbed: StudyRecord
) -> None:
    nodes.add(cpus=1)
    ended = commands.finish(search(commands, nodes, workers=1))
    assert (ended.code, ended.stderr) == (0, "")
    assert facts(check(commands.folder, "small", Expected(TRIALS))) == facts(undisturbed)


def test_a_lost_node_costs_no_trial(commands: Commands, nodes: Nodes, switches: Switches) -> None:
    added = [nodes.add(cpus=1) for _ in range(2)]
    switches.add("hang", **HANGS)
    running = search(commands, nodes)
    wait_until_begun(switches, VICTIM, 2)
    hanging = [each["pid"] for each in switches.epochs() if each["seed"] == HANGS["seed"]][-1]
    nodes.kill(node_of(hanging, added))
    ended = commands.finish(running)
    assert (ended.code, ended.stderr) == (0, "")
    record = check(commands.folder, "small", Expected(TRIALS))
    assert record.trials[VICTIM].outcome in ("complete", "pruned")


def test_a_killed_driver_goes_on_with_the_same_trials(
    commands: Commands, nodes: Nodes, switches: Switches, undisturbed: StudyRecord
) -> None:
    nodes.add(cpus=1)
    switches.add("hang", **HANGS)
    running = search(commands, nodes, workers=1)
    wait_until_begun(switches, VICTIM, 2)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    ended = commands.finish(search(commands, nodes, workers=1))
    assert (ended.code, ended.stderr) == (0, "")
    assert facts(check(commands.folder, "small", Expected(TRIALS))) == facts(undisturbed)


def test_a_node_that_joins_is_used(commands: Commands, nodes: Nodes, switches: Switches) -> None:
    nodes.add(cpus=1)
    switches.add("sleep", epoch=None, value=0.5)
    running = search(commands, nodes)
    switches.wait_for_epochs(1, SECONDS)
    nodes.add(cpus=1)
    ended = commands.finish(running)
    assert (ended.code, ended.stderr) == (0, "")
    check(commands.folder, "small", Expected(TRIALS))
    assert len({each["pid"] for each in switches.epochs()}) == 2


def test_a_driver_on_another_machine_gets_its_weights(
    commands: Commands, nodes: Nodes, undisturbed: StudyRecord
) -> None:
    nodes.add(cpus=1)
    ended = commands.finish(search(commands, nodes, workers=1, changes={**CURVES, "host": "elsewhere"}))
    assert (ended.code, ended.stderr) == (0, "")
    assert facts(check(commands.folder, "small", Expected(TRIALS))) == facts(undisturbed)


def test_a_signal_ends_a_search_in_good_order(
    commands: Commands, nodes: Nodes, switches: Switches, undisturbed: StudyRecord
) -> None:
    nodes.add(cpus=1)
    switches.add("hang", **HANGS)
    running = search(commands, nodes, workers=1)
    wait_until_begun(switches, VICTIM, 2)
    started = time.monotonic()
    os.kill(running.pid, signal.SIGTERM)
    assert commands.finish(running).code == 128 + signal.SIGTERM
    assert time.monotonic() - started < 30.0
    ended = commands.finish(search(commands, nodes, workers=1))
    assert (ended.code, ended.stderr) == (0, "")
    assert facts(check(commands.folder, "small", Expected(TRIALS))) == facts(undisturbed)
