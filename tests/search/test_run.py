"""A search as a whole: the same study however it is interrupted, exact totals, and every way to stop."""

import math
import re
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import BaseTrial, FrozenTrial, TrialState, create_trial

from mc1opt.config import Config
from mc1opt.database import records
from mc1opt.database import storage as storage_module
from mc1opt.database.records import TrialRecord
from mc1opt.errors import StorageError, WorkerError
from mc1opt.search import forecast as forecast_module
from mc1opt.search import stop_conditions
from mc1opt.search.forecast import forecast
from mc1opt.search.observers import Observer, SearchEnded, SearchStarted
from mc1opt.seeds import derive_seed
from mc1opt.spec import EpochResult, Fidelity, Training
from mc1opt.workers import stop as stop_module
from mc1opt.workers.stop import StopFlag
from tests.support.curves import CurvePool, Switches
from tests.support.forking import POINTS, fork_searches
from tests.support.studies import (
    DRAWN,
    FOREIGN,
    ONE_EPOCH,
    SEED,
    SMOOTH_RANGES,
    WHOLE,
    Clock,
    choosy_space,
    counted,
    definition_of,
    facts,
    fail_some,
    many_starting_points,
    run_study,
    smooth_space,
    stored,
    tiny_space,
    wait_until_begun,
    write_foreign_trials,
)

SMOOTH = definition_of(smooth_space)


class Diary(Observer):
    """Writes down what it is told, and does something at a line of it."""

    def __init__(self, at: tuple[Any, ...] = (), do: Callable[[], object] = lambda: None) -> None:
        self.lines: list[tuple[Any, ...]] = []
        self.threads: set[int] = set()
        self._at = at
        self._do = do

    def _write(self, *line: Any) -> None:
        self.lines.append(line)
        self.threads.add(threading.get_ident())
        if line == self._at:
            self._do()

    def study_started(self, search: SearchStarted) -> None:
        self._write("study started", search.counted)

    def trial_started(self, number: int, summary: str) -> None:
        self._write("started", number)

    def epoch(self, number: int, result: EpochResult) -> None:
        self._write("epoch", number, result.epoch)

    def trial_ended(self, trial: TrialRecord) -> None:
        self._write("ended", trial.number, trial.outcome)

    def study_ended(self, search: SearchEnded) -> None:
        self._write("study ended", search.reason)


# ---- The same study, however it is interrupted -----------------------------------------------------------


def test_everything_happens_in_the_study_that_others_are_compared_with(whole: Path) -> None:
    record = stored(str(whole / "s.db"))
    outcomes = {trial.outcome for trial in record.trials}
    assert outcomes == {"complete", "pruned", "failed", "too_large", "duplicate"}
    kinds = {trial.failure["kind"] for trial in record.trials if trial.failure}
    assert kinds == {"diverged", "out_of_memory", "crashed", "killed"}
    assert [trial.starting_point for trial in record.trials[:3]] == ["narrow", "wide", None]
    assert len(counted(record)) == WHOLE
    assert all(math.isfinite(value) for trial in record.trials for value in trial.values_by_epoch)


def test_a_study_that_is_made_in_parts_is_trial_by_trial_the_same(whole: Path, switches: Switches) -> None:
    fail_some(switches)
    for trials in (WHOLE // 2, WHOLE):
        assert run_study(trials, keep=3).reason == "finished"
    assert facts(stored()) == facts(stored(str(whole / "s.db")))


def test_a_study_that_is_stopped_within_trials_is_trial_by_trial_the_same(
    whole: Path, switches: Switches
) -> None:
    fail_some(switches)
    reference = stored(str(whole / "s.db"))
    sampled = counted(reference)[-1]
    places = [(0, 0), (1, 2), (sampled.number, len(sampled.values_by_epoch) - 1)]
    for number, epoch in places:
        # A flag that is set, as by a signal, within an epoch of a trial.
        switches.add("hang", seed=derive_seed(SEED, number), epoch=epoch, times=1)
        stop = StopFlag()

        def set_flag(number: int = number, epoch: int = epoch, stop: StopFlag = stop) -> None:
            wait_until_begun(switches, number, epoch)
            stop.set("signal", "SIGINT")

        diary = Diary(("epoch", number, epoch - 1) if epoch else ("started", number), set_flag)
        ended = run_study(WHOLE, keep=3, stop=stop, observers=(diary,))
        assert (ended.reason, ended.message) == ("signal", "SIGINT")
        begun = [trial for trial in ended.record.trials if trial.config is not None]
        assert [trial.number for trial in begun if trial.outcome == "waiting"] == [number]
        assert len(ended.record.trials[number].values_by_epoch) == epoch
    run_study(WHOLE, keep=3)
    assert facts(stored()) == facts(reference)
    assert [trial.number for trial in stored().trials if trial.interrupted] == [n for n, _ in places]
    assert trained_twice(switches) == len(places)  # the epochs within which it was stopped
    assert names(Path()) == names(whole)


def names(folder: Path) -> set[str]:
    """The names of the files of study s."""
    return {path.name for path in (folder / "s.db.files/checkpoints/s").iterdir()}


def trained_twice(switches: Switches) -> int:
    """How many epochs were begun that had been begun before, because of interruptions."""
    # The one that runs out of memory is tried again in smaller steps.
    apart = derive_seed(SEED, 3)
    begun = [(epoch["seed"], epoch["epoch"]) for epoch in switches.epochs() if epoch["seed"] != apart]
    return len(begun) - len(set(begun))


@pytest.mark.parametrize(
    ("kills", "seed"), [(3, 0), *(pytest.param(8, seed, marks=pytest.mark.slow) for seed in (1, 2, 3))]
)
def test_a_study_whose_process_is_killed_at_random_moments_is_trial_by_trial_the_same(
    whole: Path, switches: Switches, kills: int, seed: int
) -> None:
    fail_some(switches)
    fork_searches("kill", kills, seed)
    assert facts(stored()) == facts(stored(str(whole / "s.db")))
    if kills > 3:  # three may all fall between two trials
        assert any(trial.interrupted for trial in stored().trials)
    assert trained_twice(switches) <= kills
    assert names(Path()) == names(whole)


# ---- Totals ----------------------------------------------------------------------------------------------


def test_the_total_is_exact_with_four_workers_whatever_else_happens(switches: Switches) -> None:
    fail_some(switches)
    for trials in (5, 8):
        record = run_study(trials, workers=4).record
        assert len(counted(record)) == trials
        assert not {trial.outcome for trial in record.trials} & {"running", "waiting"}
    assert sum(trial.outcome == "failed" for trial in record.trials) >= 3


def test_the_total_is_exact_when_the_last_trial_in_training_fails(switches: Switches) -> None:
    switches.add("sleep", seed=derive_seed(SEED, 0), value=0.3, epoch=0)
    switches.add("diverge", seed=derive_seed(SEED, 0), epoch=0)
    record = run_study(2, SMOOTH, workers=2).record
    assert Counter(trial.outcome for trial in record.trials) == {"failed": 1, "complete": 2}


def test_a_study_that_has_enough_trials_trains_nothing(switches: Switches) -> None:
    run_study(3, SMOOTH)
    before = len(switches.epochs())
    for trials in (3, 2):
        assert run_study(trials, SMOOTH).reason == "finished"
    assert len(switches.epochs()) == before
    assert len(stored().trials) == 3


def each_once(switches: Switches) -> list[int]:
    """How many epochs were trained of each starting point's config, one epoch a training."""
    points = [trial for trial in stored().trials if trial.starting_point]
    trained = Counter(epoch["config_id"] for epoch in switches.epochs())
    return [trained[trial.config_id] for trial in points]


def test_starting_points_are_trained_exactly_once_by_four_workers(switches: Switches) -> None:
    run_study(POINTS, many_starting_points(POINTS), workers=4, fidelity=ONE_EPOCH)
    assert each_once(switches) == [1] * POINTS
    assert len(stored().trials) == POINTS


@pytest.mark.slow
def test_starting_points_are_trained_exactly_once_by_four_processes(switches: Switches) -> None:
    fork_searches("together", 4)
    assert each_once(switches) == [1] * POINTS
    assert len(counted(stored())) == POINTS
    assert len({epoch["pid"] for epoch in switches.epochs()}) > 1


# ---- Combinations that are no network --------------------------------------------------------------------


def test_infeasible_trials_are_told_without_training_also_in_a_study_made_in_parts() -> None:
    for trials in (3, 9):
        run_study(trials, definition_of(choosy_space), fidelity=ONE_EPOCH)
    record = run_study(9, definition_of(choosy_space), study="whole", fidelity=ONE_EPOCH).record
    assert facts(stored()) == facts(record)
    assert len(counted(record)) == 9
    infeasible = [trial for trial in record.trials if trial.outcome == "infeasible"]
    assert infeasible
    for trial in infeasible:
        assert (trial.state, trial.values_by_epoch, trial.config) == ("PRUNED", [], None)
        assert trial.constraints == {records.INFEASIBLE: 1.0}
        assert trial.params["batch_size"] > 200
        assert trial.infeasible == f"batches of {trial.params['batch_size']} are too large"
    assert all(trial.infeasible is None for trial in counted(record))


@pytest.mark.parametrize("reason", [(), (3,)], ids=str)
def test_infeasible_trials_in_a_row_end_the_study(
    reason: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop_conditions, "MAX_UNTRAINED", 8)

    def space(trial: BaseTrial) -> Config:
        if isinstance(trial, optuna.Trial) and trial.study.study_name == "s" and trial.number >= 2:
            raise optuna.TrialPruned(*reason)
        return smooth_space(trial)

    ended = run_study(20, definition_of(space))
    assert ended.reason == "exhausted"
    outcomes = [trial.outcome for trial in ended.record.trials]
    assert outcomes == ["complete"] * 2 + ["infeasible"] * 8
    assert {trial.infeasible for trial in ended.record.trials[2:]} == {"".join(map(str, reason))}


def test_an_infeasible_starting_point_is_done_and_not_tried_again(switches: Switches) -> None:
    point = {"width": 64, "learning_rate": 0.1, "batch_size": 300}
    definition = definition_of(
        choosy_space, starting_points={"large": point, "fine": point | {"batch_size": 16}}
    )
    for trials in (1, 3):
        record = run_study(trials, definition, sampler="random").record
    assert [trial.starting_point for trial in record.trials[:2]] == ["large", "fine"]
    assert [trial.outcome for trial in record.trials[:2]] == ["infeasible", "complete"]
    assert sum(trial.starting_point is not None for trial in record.trials) == 2


def test_infeasible_points_of_a_grid_are_done(switches: Switches) -> None:
    grid = {"width": [64], "learning_rate": [0.1, 0.2], "batch_size": [16, 300, 400]}
    for _ in range(2):
        ended = run_study(100, definition_of(choosy_space, grid=grid), sampler="grid", pruner="none")
        assert ended.reason == "finished"
        outcomes = Counter(trial.outcome for trial in ended.record.trials)
        assert outcomes == {"complete": 2, "infeasible": 4}


# ---- Trials of other programs ----------------------------------------------------------------------------


def stopped() -> StopFlag:
    """A flag that was set before the search starts."""
    stop = StopFlag()
    stop.set("signal", "SIGTERM")
    return stop


def plain_study(name: str = "s") -> optuna.Study:
    """The stored study, as other programs open it."""
    return optuna.load_study(study_name=name, storage="sqlite:///s.db")


@pytest.mark.parametrize(("before", "workers"), [(0, 4), (3, 1)])
def test_trials_of_other_programs_are_passed_over(before: int, workers: int, switches: Switches) -> None:
    run_study(before or 1, SMOOTH, stop=None if before else stopped())
    study = plain_study()
    write_foreign_trials(study)
    study.enqueue_trial(DRAWN)
    theirs = slice(before, before + FOREIGN)
    stored_before = study.trials[theirs]
    ended = run_study(6, SMOOTH, workers=workers, confirm=2)
    assert ended.reason == "finished"
    record = ended.record
    outcomes = Counter(trial.outcome for trial in record.trials)
    assert (outcomes["foreign"], outcomes["complete"] + outcomes["pruned"]) == (FOREIGN, 6)
    assert {trial.outcome for trial in record.trials[theirs]} == {"foreign"}
    assert record.best not in (None, *record.trials[theirs])
    assert all(not trial.confirmations and not trial.values_by_epoch for trial in record.trials[theirs])
    enqueued = record.trials[theirs.stop]
    assert (enqueued.params, enqueued.outcome) == (DRAWN, "complete")
    assert plain_study().trials[theirs] == stored_before


@pytest.mark.parametrize("pruner", ["narrowing", "median", "halving"])
def test_draws_and_prunings_do_not_depend_on_what_other_programs_found(pruner: str) -> None:
    """A draw depends on the trial's number, so there are as many foreign trials in both studies."""
    fidelity = Fidelity(train_images=1000, epochs=2)

    def own(name: str, foreign: list[FrozenTrial]) -> list[dict[str, Any]]:
        run_study(1, SMOOTH, study=name, pruner=pruner, fidelity=fidelity)
        for trial in foreign:
            plain_study(name).add_trial(trial)
        record = run_study(9, SMOOTH, study=name, pruner=pruner, fidelity=fidelity).record
        return [trial for trial in facts(record) if trial["outcome"] != "foreign"]

    silent = [create_trial(state=TrialState.FAIL)] * 9
    loud = [
        create_trial(
            value=0.999,
            params=DRAWN,
            distributions=SMOOTH_RANGES,
            intermediate_values=dict.fromkeys(range(4), 0.999),
        )
    ] * 9
    trials = own("silent", silent)
    assert own("loud", loud) == trials
    assert len(trials) == 9


def test_a_parameter_that_another_program_drew_otherwise_refuses_none_of_ours() -> None:
    run_study(1, SMOOTH, stop=stopped())
    choices = optuna.distributions.CategoricalDistribution(["a", "b"])
    plain_study().add_trial(create_trial(value=0.9, params={"width": "a"}, distributions={"width": choices}))
    ended = run_study(4, SMOOTH)
    assert Counter(trial.outcome for trial in ended.record.trials) == {"foreign": 1, "complete": 4}


def test_a_config_of_a_trial_that_is_passed_over_may_be_trained(switches: Switches) -> None:
    run_study(3, definition_of(tiny_space), pruner="none")
    study = plain_study()
    connection = sqlite3.connect("s.db")
    with connection:  # as `optuna tell` would have ended it
        connection.execute("UPDATE trial_values SET value = 0.99 WHERE trial_id = 1")
    connection.close()
    ended = run_study(3, definition_of(tiny_space), pruner="none")
    assert [trial.outcome for trial in ended.record.trials if trial.outcome != "duplicate"] == [
        "foreign", "complete", "complete", "complete",
    ]  # fmt: skip
    assert study.trials[0].value == 0.99
    again = next(t for t in ended.record.trials[1:] if t.config_id == study.trials[0].user_attrs["config_id"])
    assert again.outcome in ("complete", "duplicate")


# ---- Nothing new -----------------------------------------------------------------------------------------


def test_untrained_trials_in_a_row_end_the_study_and_running_trials_end_well(
    switches: Switches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop_conditions, "MAX_UNTRAINED", 12)
    switches.add("sleep", seed=derive_seed(SEED, 0), epoch=2, value=2.0)
    ended = run_study(100, definition_of(tiny_space), workers=2, confirm=1, pruner="none")
    assert ended.reason == "exhausted"
    assert "12 " in ended.message
    outcomes = [trial.outcome for trial in ended.record.trials]
    assert Counter(outcomes)["complete"] == 3
    assert outcomes[-12:] == ["duplicate"] * 12
    assert set(outcomes) == {"complete", "duplicate"}
    best = ended.record.best
    assert best is not None
    assert len(best.confirmations) == 2


def test_an_interruption_does_not_make_an_exhausted_study_begin_to_count_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stop_conditions, "MAX_UNTRAINED", 8)
    first = run_study(100, definition_of(tiny_space))
    again = run_study(100, definition_of(tiny_space))
    assert (first.reason, again.reason) == ("exhausted", "exhausted")
    assert len(again.record.trials) == len(first.record.trials) + 1


# ---- Enough ----------------------------------------------------------------------------------------------


LOCAL: dict[str, Any] = {"sampler": "local", "fidelity": ONE_EPOCH, "pruner": "none"}


def test_a_search_that_patience_ends_is_the_same_in_parts_and_trains_nothing_more(switches: Switches) -> None:
    whole = run_study(100, SMOOTH, study="whole", patience=4, **LOCAL)
    assert (whole.reason, whole.message.partition(" ")[0]) == ("enough", "4")
    for trials in (2, 5, 100):
        stop = StopFlag()
        diary = Diary(("epoch", trials, 0), partial(stop.set, "signal", "SIGINT"))
        run_study(trials, SMOOTH, patience=4, stop=stop, observers=(diary,), **LOCAL)
    ended = run_study(100, SMOOTH, patience=4, **LOCAL)
    assert facts(ended.record) == facts(whole.record)
    before = len(switches.epochs())
    diary = Diary()
    again = run_study(100, SMOOTH, patience=4, observers=(diary,), **LOCAL)
    assert (again.reason, again.message) == ("enough", whole.message)
    assert len(switches.epochs()) == before
    more = run_study(100, SMOOTH, patience=6, **LOCAL).record.trials
    assert len(more) > len(whole.record.trials)


def test_a_search_ends_when_its_best_has_the_value_with_both_seeds(switches: Switches) -> None:
    first = run_study(1, SMOOTH, study="first", **LOCAL).record.best
    assert first is not None
    ended = run_study(50, SMOOTH, until=first.value, confirm=0, workers=2, **LOCAL)
    assert ended.reason == "enough"
    reached = [trial for trial in ended.record.trials if trial.confirmations]
    assert f"#{reached[-1].number} " in ended.message
    assert (reached[-1].value + reached[-1].confirmations[0]["value"]) / 2 >= first.value
    assert not {trial.outcome for trial in ended.record.trials} & {"running", "waiting"}
    assert len(counted(ended.record)) < 50


def test_the_best_are_confirmed_also_where_patience_ends_the_search(switches: Switches) -> None:
    ended = run_study(50, SMOOTH, patience=2, confirm=1, fidelity=ONE_EPOCH)
    assert (ended.reason, len(ended.record.best.confirmations)) == ("enough", 2)


def test_a_trial_in_training_may_be_the_best_and_is_waited_for(switches: Switches) -> None:
    """#1, #3 and #4 have not improved #0, but #2 does."""
    rates = {"fair": (64, 0.1), "poor": (64, 1.0), "best": (512, 0.05), "poorer": (64, 0.9), "bad": (64, 0.8)}
    points = {
        name: {"width": width, "learning_rate": rate, "batch_size": 64}
        for name, (width, rate) in rates.items()
    }
    switches.add("sleep", seed=derive_seed(SEED, 2), value=2.0)
    definition = definition_of(smooth_space, starting_points=points)
    ended = run_study(6, definition, workers=2, patience=3, pruner="none", fidelity=ONE_EPOCH)
    values = [trial.value for trial in ended.record.trials]
    assert max(range(5), key=values.__getitem__) == 2
    assert (ended.reason, len(values)) == ("finished", 6)


def test_what_waits_is_trained_however_patient_the_search_is(switches: Switches) -> None:
    ended = run_study(50, SMOOTH, patience=2, fidelity=ONE_EPOCH)
    plain_study().enqueue_trial(DRAWN)
    again = run_study(50, SMOOTH, patience=2, fidelity=ONE_EPOCH)
    assert len(again.record.trials) == len(ended.record.trials) + 1
    assert (again.record.trials[-1].params, again.reason) == (DRAWN, "enough")


def test_the_end_has_a_forecast_unless_nothing_is_left_to_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_module, "LEAST_TRIALS", forecast_module.LARGEST + 2)
    count = 2 * forecast_module.LEAST_TRIALS + 2
    ended = run_study(count, SMOOTH, fidelity=ONE_EPOCH, pruner="none", sampler="random")
    assert ended.forecast is not None
    assert ended.forecast == forecast(ended.record, 1)
    grid = {"width": [64], "learning_rate": [0.001 * i for i in range(1, count + 1)], "batch_size": [64]}
    whole = run_study(
        count, definition_of(smooth_space, grid=grid), study="grid", fidelity=ONE_EPOCH, sampler="grid"
    )
    assert forecast(whole.record, 1) is not None
    assert whole.forecast is None


# ---- Failures --------------------------------------------------------------------------------------------


def test_failures_in_a_row_stop_the_search_and_name_the_commonest_reasons(switches: Switches) -> None:
    for number in (1, 2, 4):
        switches.add("diverge", seed=derive_seed(SEED, number))
    switches.add("crash", seed=derive_seed(SEED, 3), value=3)
    ended = run_study(30, SMOOTH, max_failures=4)
    assert ended.reason == "failures"
    assert re.search("--max-failures 4.* 3x .*nan; 1x .*code 3", ended.message)
    assert len(stored().trials) == 5


class BrokenPool(CurvePool):
    """Cannot start the worker for one seed, once others train."""

    def __init__(self, size: int, seed: int, switches: Switches) -> None:
        super().__init__(size)
        self._seed = seed
        self._switches = switches

    def train(self, training: Training, on_epoch: Callable[[EpochResult], bool]) -> bool:
        if training.seed == self._seed:
            self._switches.wait_for_epochs(self.size - 1)
            raise WorkerError("no worker can be started")
        return super().train(training, on_epoch)


def test_an_error_in_one_thread_ends_the_others_and_is_raised(switches: Switches) -> None:
    switches.add("hang")
    pool = BrokenPool(4, derive_seed(SEED, 1), switches)
    with pytest.raises(WorkerError):
        run_study(20, SMOOTH, pool=pool)
    assert [trial.outcome for trial in stored().trials] == ["waiting"] * 4


# ---- The database ----------------------------------------------------------------------------------------


def test_a_damaged_database_ends_the_search_with_the_reason() -> None:
    def damage() -> None:
        connection = sqlite3.connect("s.db", timeout=30)
        connection.execute("DROP TABLE trial_intermediate_values")
        connection.close()

    diary = Diary(("epoch", 0, 0), damage)
    with pytest.raises(StorageError, match="trial_intermediate_values"):
        run_study(200, SMOOTH, workers=4, observers=(diary,))
    assert diary.lines[-1] == ("study ended", "failures")  # a display ends, whatever happens


@pytest.mark.slow
def test_a_database_that_stays_locked_ends_the_search_and_keeps_what_is_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storage_module, "BUSY_TIMEOUT_SECONDS", 0.2)
    locks: list[sqlite3.Connection] = []

    def lock() -> None:
        locks.append(sqlite3.connect("s.db", timeout=30, isolation_level=None))
        locks[0].execute("BEGIN EXCLUSIVE")

    with pytest.raises(StorageError, match="locked"):
        run_study(200, SMOOTH, workers=2, observers=(Diary(("ended", 1, "complete"), lock),))
    locks[0].close()
    finished = len(counted(stored()))
    assert finished >= 1
    assert len(counted(run_study(finished + 2, SMOOTH).record)) == finished + 2


@pytest.mark.parametrize("state", ["FAIL", "COMPLETE"])
def test_a_trial_that_is_ended_from_outside_is_dropped_and_the_search_goes_on(
    state: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As `optuna tell` does it, or a person in the dashboard."""

    class Outside(CurvePool):
        def train(self, training: Training, on_epoch: Callable[[EpochResult], bool]) -> bool:
            def then(result: EpochResult) -> bool:
                if (training.seed, result.epoch) == (derive_seed(SEED, 0), 2):
                    value = 0.5 if state == "COMPLETE" else None
                    plain_study().tell(0, value, state=TrialState[state])
                return on_epoch(result)

            return super().train(training, then)

    record = run_study(3, SMOOTH, pool=Outside()).record
    assert record.trials[0].state == state
    assert len(counted(record)) >= 3
    assert "trial 0 " in caplog.text


# ---- Stopping --------------------------------------------------------------------------------------------


def test_a_timeout_sets_running_trials_back_to_waiting(
    switches: Switches, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(stop_module, "time", clock)
    for number in (1, 2):
        switches.add("hang", seed=derive_seed(SEED, number), epoch=2, times=1)

    def let_time_pass() -> None:
        wait_until_begun(switches, 1, 2)
        wait_until_begun(switches, 2, 2)
        clock.set_forward(500)

    ended = run_study(6, SMOOTH, workers=2, timeout=500, observers=(Diary(("epoch", 2, 1), let_time_pass),))
    assert ended.reason == "timeout"
    waiting = [trial for trial in ended.record.trials if trial.outcome == "waiting"]
    assert [trial.number for trial in waiting] == [1, 2]
    assert [len(trial.values_by_epoch) for trial in waiting] == [2, 2]
    assert [trial.interrupted for trial in waiting] == [1, 1]
    record = run_study(6, SMOOTH).record
    assert len(counted(record)) == 6
    assert len(record.trials) == 6


def test_a_search_that_is_stopped_before_it_starts_trains_nothing(switches: Switches) -> None:
    ended = run_study(3, SMOOTH, stop=stopped(), confirm=3)
    assert (ended.reason, ended.message) == ("signal", "SIGTERM")
    assert switches.epochs() == []
    assert ended.record.trials == []


# ---- Observers -------------------------------------------------------------------------------------------


def test_observers_are_told_in_order_and_in_one_thread(switches: Switches) -> None:
    fail_some(switches)
    diary = Diary()
    record = run_study(8, workers=4, observers=(diary,)).record
    assert diary.threads == {threading.get_ident()}
    assert diary.lines[0] == ("study started", 0)
    assert diary.lines[-1] == ("study ended", "finished")
    for trial in record.trials:
        trained = trial.outcome not in ("too_large", "duplicate")
        expected = [("started", trial.number)] if trained else []
        expected += [("epoch", trial.number, epoch) for epoch in range(len(trial.values_by_epoch))]
        expected += [("ended", trial.number, trial.outcome)]
        told = [line for line in diary.lines if line[1:2] == (trial.number,) and "study" not in line[0]]
        assert told == expected
