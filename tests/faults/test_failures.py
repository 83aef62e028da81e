"""Faults 13 to 16: trainings diverge after a good start, all fail, hang, or take too much memory."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mc1opt.database.records import TrialRecord
from tests.faults.checker import Expected, check
from tests.faults.conftest import CURVES, QUICK, TRIALS, Commands
from tests.faults.test_processes import HANGS, VICTIM, worker_of
from tests.support.command import states
from tests.support.curves import Switches

DIVERGING = '''"""A network whose weights grow by a larger factor each step, and one that is well."""

from mc1opt.config import MLP, SGD, Config, LinearLayer, OneCycle

EPOCHS = 6
STARTING_POINTS = {"grows": {"peak": 4.0, "decay": 1.0}, "calm": {"peak": 0.05, "decay": 0.0}}


def search_space(trial):
    peak = trial.suggest_float("peak", 0.01, 4.0, log=True)
    decay = trial.suggest_float("decay", 0.0, 1.0)
    return Config(
        architecture=MLP(layers=(LinearLayer(width=32),) * 2),
        # A step multiplies a weight by 1 - learning rate * decay: from a learning rate of 2 on it grows.
        optimizer=SGD(learning_rate=peak, weight_decay=decay),
        schedule=OneCycle(warmup=0.9, start=0.001),
        batch_size=10,
    )
'''


def failure_kind(trial: TrialRecord) -> str:
    assert trial.failure is not None
    return trial.failure["kind"]


# ---- 13: NaN after a good start --------------------------------------------------------------------------


@pytest.mark.slow
def test_nan_after_a_good_start_fails_the_trial_and_gets_nowhere(commands: Commands) -> None:
    Path("studies/diverging.py").write_text(DIVERGING)
    arguments = ("run", "--study", "diverging", "--data", "images", "--trials", "2", "--workers", "1")
    ended = commands.finish(commands.start(*arguments, "--pruner", "none", changes=QUICK))
    assert (ended.code, ended.stderr) == (0, "")
    record = check(commands.folder, "diverging", Expected(2, on_curves=False))
    trial = record.trials[0]
    assert (trial.state, trial.outcome, failure_kind(trial)) == ("PRUNED", "failed", "diverged")
    assert 1 <= len(trial.values_by_epoch) < 6
    assert trial.value is None
    assert b"NaN" not in Path("storage/mc1opt.db").read_bytes()
    assert record.best is not None
    assert record.best.number != 0


# ---- 14: everything fails --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_search_in_which_every_training_crashes_ends_and_goes_on_when_that_is_mended(
    commands: Commands, switches: Switches
) -> None:
    switches.add("crash", epoch=None, value=3)
    ended = commands.finish(commands.search(workers=2, more=("--max-failures", "4")))
    assert ended.code == 1
    assert "--max-failures 4" in ended.stderr
    assert "exit code 3" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert set(states()) <= {"FAIL", "WAITING"}
    failed = [number for number, state in enumerate(states()) if state == "FAIL"]
    assert len(failed) in (4, 5)  # the other worker may have been about to fail as well
    switches.clear()
    commands.go_on(workers=2)
    record = check(commands.folder, "small", Expected(TRIALS))
    assert [trial.number for trial in record.trials if trial.outcome == "failed"] == failed


@pytest.mark.slow
def test_workers_that_cannot_start_are_an_error_and_cost_no_trial(commands: Commands) -> None:
    ended = commands.finish(
        commands.search(changes={**CURVES, "trainer": "tests.support.broken_trainer:train"})
    )
    assert ended.code == 1
    assert "3 attempts" in ended.stderr
    commands.go_on()
    record = check(commands.folder, "small", Expected(TRIALS))
    assert "failed" not in {trial.outcome for trial in record.trials}


# ---- 15: a worker hangs ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced_when_its_time_is_up(commands: Commands, switches: Switches) -> None:
    switches.add("hang", **HANGS)
    ended = commands.finish(commands.search(more=("--max-trial-time", "2s")))
    assert (ended.code, ended.stderr) == (0, "")
    record = check(commands.folder, "small", Expected(TRIALS))
    trial = record.trials[VICTIM]
    assert (trial.state, trial.outcome, failure_kind(trial)) == ("PRUNED", "failed", "timed_out")
    assert len(trial.values_by_epoch) == 2
    assert [t.number for t in record.trials if t.outcome == "failed"] == [VICTIM]
    hung = worker_of(switches, VICTIM)
    assert {begun["pid"] for begun in switches.epochs()} - {hung}


# ---- 16: a worker takes more memory than it may ----------------------------------------------------------

GLUTTON = {**CURVES, "trainer": "tests.faults.trainers:takes_all_memory"}
GROUP_BYTES = 1 << 30
"""Memory that a control group allows: more than a search needs, and less than the glutton takes."""


@contextlib.contextmanager
def memory_group() -> Iterator[Path]:
    """A control group with little memory; only root may make one, where the system lets it."""
    version_1, version_2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    top = version_1 if version_1.is_dir() else version_2
    limit = "memory.limit_in_bytes" if top is version_1 else "memory.max"
    group = top / f"mc1opt-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(GROUP_BYTES))
    except OSError as error:
        pytest.skip(f"no control group for memory can be made: {error}")
    try:
        yield group
    finally:
        group.rmdir()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS does nothing elsewhere")
def test_a_training_that_gets_no_more_memory_is_tried_in_smaller_steps_and_fails(
    commands: Commands, switches: Switches
) -> None:
    """A limit on the process's memory stands for the machine's end: what asks for more is told so."""
    switches.add("sleep", **{**HANGS, "times": None})
    ended = commands.finish(commands.search(changes=GLUTTON, env={"MC1OPT_TEST_GLUTTON": "limited"}))
    assert (ended.code, ended.stderr) == (0, "")
    record = check(commands.folder, "small", Expected(TRIALS))
    trial = record.trials[VICTIM]
    assert (trial.state, trial.outcome, failure_kind(trial)) == ("PRUNED", "failed", "out_of_memory")
    attempts = [b for b in switches.epochs() if b["seed"] == HANGS["seed"] and b["epoch"] == 2]
    assert len(attempts) == 2
    assert [t.number for t in record.trials if t.outcome == "failed"] == [VICTIM]


@pytest.mark.slow
def test_a_worker_that_the_kernel_kills_for_its_memory_fails_its_trial_alone(
    commands: Commands, switches: Switches
) -> None:
    """As in a container: search and workers share what is allowed, and the largest process is killed."""
    switches.add("sleep", **{**HANGS, "times": None})
    with memory_group() as group:

        def join() -> None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

        options = {"env": {"MC1OPT_TEST_GLUTTON": "killed"}, "preexec_fn": join}
        ended = commands.finish(commands.search(changes=GLUTTON, **options))
        assert (ended.code, ended.stderr) == (0, "")
        record = check(commands.folder, "small", Expected(TRIALS))
    trial = record.trials[VICTIM]
    assert (trial.state, trial.outcome, failure_kind(trial)) == ("PRUNED", "failed", "out_of_memory")
    attempts = [b for b in switches.epochs() if b["seed"] == HANGS["seed"] and b["epoch"] == 2]
    assert len({attempt["pid"] for attempt in attempts}) == 2
    assert [t.number for t in record.trials if t.outcome == "failed"] == [VICTIM]
