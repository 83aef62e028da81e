"""Faults 1 to 4: processes are killed, stopped by signals, or lose their parent."""

import os
import signal
import time

import pytest

from mc1opt.database.interrupted import MAX_STALLED
from mc1opt.database.records import StudyRecord
from mc1opt.seeds import derive_seed
from tests.faults.checker import Expected, check, processes_of, wait_for_processes
from tests.faults.conftest import CURVES, TRIALS, Commands
from tests.support.command import child_processes, epochs_of_running_trials, states, wait_until
from tests.support.curves import Switches
from tests.support.studies import SEED, facts, wait_until_begun

VICTIM = 6
"""The trial in the middle of which it happens: a sampled one."""
HANGS = {"seed": derive_seed(SEED, VICTIM), "epoch": 2, "times": 1}
"""Its third epoch does not end the first time."""


def worker_of(switches: Switches, number: int) -> int:
    """The process that has begun a trial's last epoch."""
    seed = derive_seed(SEED, number)
    return [begun["pid"] for begun in switches.epochs() if begun["seed"] == seed][-1]


# ---- 1: a worker is killed within an epoch ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_fails_its_trial_alone(commands: Commands, switches: Switches, workers: int) -> None:
    switches.add("hang", **HANGS)
    search = commands.search(workers=workers)
    wait_until_begun(switches, VICTIM, 2)
    killed = worker_of(switches, VICTIM)
    os.kill(killed, signal.SIGKILL)
    ended = commands.finish(search)
    assert (ended.code, ended.stderr) == (0, "")
    record = check(commands.folder, "small", Expected(TRIALS))
    trial = record.trials[VICTIM]
    assert (trial.state, trial.outcome, len(trial.values_by_epoch)) == ("FAIL", "failed", 2)
    assert trial.failure is not None
    assert trial.failure["kind"] == "killed"
    assert "SIGKILL" in trial.failure["message"]
    assert sum(trial.outcome == "failed" for trial in record.trials) == 1
    later = {begun["pid"] for begun in switches.epochs()} - {killed}
    assert later  # with two workers the other one may train all that is left


# ---- 2: the main process is killed, alone or with all the others -----------------------------------------


def kill_main(commands: Commands, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def kill_everything(commands: Commands, pid: int) -> None:
    """As a container's end does it: the workers don't lose their parent, they are killed with it."""
    commands.kill_all()


@pytest.mark.slow
@pytest.mark.parametrize(("kill", "workers"), [(kill_everything, 1), (kill_main, 1), (kill_main, 2)])
def test_a_killed_search_goes_on_with_the_same_trials(
    commands: Commands, switches: Switches, undisturbed: StudyRecord, kill, workers: int
) -> None:
    switches.add("hang", **HANGS)
    search = commands.search(workers=workers)
    wait_until_begun(switches, VICTIM, 2)
    kill(commands, search.pid)
    assert commands.finish(search).code == -signal.SIGKILL
    assert wait_for_processes(commands.folder) == []
    assert states()[VICTIM] == "RUNNING"
    before = len(switches.epochs())

    ended = commands.go_on(workers=workers)
    assert ended.stderr == ""
    assert "taken up" in ended.stdout
    record = check(commands.folder, "small", Expected(TRIALS))
    assert record.trials[VICTIM].interrupted == 1
    again = [b["epoch"] for b in switches.epochs()[before:] if b["seed"] == derive_seed(SEED, VICTIM)]
    assert again[0] == 2  # what came before is not trained again
    if workers == 1:
        assert facts(record) == facts(undisturbed)


@pytest.mark.slow
def test_a_trial_that_dies_with_its_process_five_times_without_a_new_epoch_fails(
    commands: Commands, switches: Switches
) -> None:
    switches.add("hang", **{**HANGS, "times": MAX_STALLED})
    for death in range(MAX_STALLED):
        search = commands.search()
        while sum(b["seed"] == HANGS["seed"] and b["epoch"] == 2 for b in switches.epochs()) <= death:
            time.sleep(0.02)
        commands.kill_all()
        commands.finish(search)
    commands.go_on()
    trial = check(commands.folder, "small", Expected(TRIALS)).trials[VICTIM]
    assert (trial.state, trial.interrupted) == ("FAIL", MAX_STALLED)
    assert trial.failure == {
        "kind": "killed",
        "message": f"its process died {MAX_STALLED} times without a new epoch",
    }


# ---- 3: signals ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_a_signal_ends_a_search_in_good_order(
    commands: Commands, switches: Switches, undisturbed: StudyRecord, number: signal.Signals, workers: int
) -> None:
    switches.add("hang", **HANGS)
    search = commands.search(workers=workers)
    wait_until_begun(switches, VICTIM, 2)
    search.send_signal(number)
    ended = commands.finish(search, 30.0)
    assert (ended.code, ended.stderr) == (128 + number, "")
    assert number.name in ended.stdout
    assert "RUNNING" not in states()
    assert states()[VICTIM] == "WAITING"
    assert processes_of(commands.folder) == []
    before = len(switches.epochs())
    commands.go_on(workers=workers)
    record = check(commands.folder, "small", Expected(TRIALS))
    again = [b["epoch"] for b in switches.epochs()[before:] if b["seed"] == derive_seed(SEED, VICTIM)]
    assert again[0] == 2
    if workers == 1:
        assert facts(record) == facts(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_the_second_signal_ends_a_search_at_once(
    commands: Commands, switches: Switches, undisturbed: StudyRecord, number: signal.Signals, workers: int
) -> None:
    switches.add("hang", **HANGS)
    search = commands.search(workers=workers)
    wait_until_begun(switches, VICTIM, 2)
    # Another signal: the same one, so soon, is taken for the same request (`tests/cli/test_signals.py`).
    other = signal.SIGINT if number == signal.SIGTERM else signal.SIGTERM
    search.send_signal(number)
    search.send_signal(other)
    ended = commands.finish(search, 10.0)
    assert ended.code in (128 + number, 128 + other)  # the second may overtake the first in its handler
    assert "Go on with" not in ended.stdout
    assert wait_for_processes(commands.folder) == []
    commands.go_on(workers=workers)
    record = check(commands.folder, "small", Expected(TRIALS))
    if workers == 1:
        assert facts(record) == facts(undisturbed)


# ---- 4: the parent alone is killed -----------------------------------------------------------------------


@pytest.mark.slow
def test_workers_that_compute_without_a_pause_end_with_their_parent(
    commands: Commands, switches: Switches
) -> None:
    """A computation that does not let the thread run which would see the parent's end."""
    search = commands.search(
        workers=2, changes={**CURVES, "trainer": "tests.faults.trainers:computes_for_ever"}
    )
    wait_until(lambda: epochs_of_running_trials() == 2)
    assert len(child_processes(search.pid)) == 2
    time.sleep(0.5)  # the computation begins after the report
    os.kill(search.pid, signal.SIGKILL)
    commands.finish(search)
    assert wait_for_processes(commands.folder) == []
    commands.go_on(workers=2)
    check(commands.folder, "small", Expected(TRIALS))
