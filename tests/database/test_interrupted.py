"""Trials whose process has died: who takes them up, and how often."""

import threading
import time
from typing import Any

import pytest
from optuna.trial import TrialState

from mc1opt.database import records
from mc1opt.database.interrupted import MAX_STALLED, take_up_interrupted
from mc1opt.database.opening import load_study
from mc1opt.database.ownership import this_owner
from mc1opt.database.records import TrialRecord
from mc1opt.search.observers import Observer
from mc1opt.workers.stop import StopFlag
from tests.search.test_study import SETTINGS, opened
from tests.support.studies import (
    ELSEWHERE,
    counted,
    dead_owner,
    definition_of,
    living_owner,
    new_storage,
    run_study,
    small_definition,
    stored,
    tiny_space,
)


def leave_running(owner: dict[str, Any], epochs: int = 0) -> int:
    """A process with this owner asks for a trial, draws, reports up to so many epochs and is gone."""
    definition = small_definition(starting_points={})
    study = opened(definition, new_storage(owner=owner))
    trial = study.ask()
    definition.config(trial)
    for epoch in range(len(study.trials[trial.number].intermediate_values), epochs):
        trial.report(0.1 * epoch, epoch)
    return trial.number


def take_up() -> int:
    storage = new_storage()
    return take_up_interrupted(load_study(storage, "s"), storage)


def test_a_trial_that_a_dead_process_left_is_trained_with_its_number_and_parameters() -> None:
    leave_running(dead_owner(), epochs=2)
    before = stored().trials[0]
    record = run_study(2, small_definition(starting_points={}), seed=0, max_macs=SETTINGS.max_macs).record
    after = record.trials[0]
    assert after.outcome == "complete"
    assert (after.number, after.params) == (0, before.params)
    assert after.value == after.values_by_epoch[-1]
    assert after.interrupted == 1
    owner = load_study(new_storage(), "s").trials[0].user_attrs[records.OWNER]
    assert owner == this_owner() | {"attempt": owner["attempt"]}
    assert len(record.trials) == 2


def test_a_taken_up_trial_waits_without_an_owner_and_says_how_often_it_was_interrupted() -> None:
    for times in (1, 2):
        assert leave_running(dead_owner(), epochs=times) == 0
        assert take_up() == 1
        assert take_up() == 0
        trial = load_study(new_storage(), "s").trials[0]
        assert trial.state == TrialState.WAITING
        assert trial.user_attrs[records.OWNER] is None
        assert trial.user_attrs[records.INTERRUPTED] == times


@pytest.mark.parametrize("owner", [living_owner(), ELSEWHERE], ids=["a living process", "another host"])
def test_a_trial_whose_owner_may_live_is_let_alone_and_waited_for(owner: dict[str, Any]) -> None:
    leave_running(owner)
    assert take_up() == 0
    stop = StopFlag()

    class StopsLater(Observer):
        """When it has waited for longer than it had something to do."""

        def trial_ended(self, trial: TrialRecord) -> None:
            threading.Timer(0.5, stop.set, ("signal", "SIGINT")).start()

    options = {"seed": 0, "max_macs": SETTINGS.max_macs, "observers": (StopsLater(),), "stop": stop}
    ended = run_study(2, small_definition(starting_points={}), **options)
    assert ended.reason == "signal"
    assert ended.record.trials[0].outcome == "running"
    assert len(counted(ended.record)) == 1
    assert load_study(new_storage(), "s").trials[0].user_attrs[records.OWNER] == owner


def test_a_trial_of_this_process_that_no_thread_of_it_trains_is_trained() -> None:
    """As where the answer of a database server was lost: the trial was made twice."""
    owner = this_owner()
    leave_running(owner)
    assert take_up() == 0
    options = {"seed": 0, "max_macs": SETTINGS.max_macs, "storage": new_storage(owner=owner)}
    record = run_study(2, small_definition(starting_points={}), **options).record
    assert [trial.outcome for trial in record.trials[:1]] == ["complete"]
    assert len(counted(record)) == 2


def test_a_silent_owner_on_another_host_is_dead_and_a_living_process_of_this_one_is_not() -> None:
    numbers = [leave_running(owner) for owner in (ELSEWHERE, this_owner())]
    storage = new_storage()
    assert take_up_interrupted(load_study(storage, "s"), storage, lambda trial: True) == 1
    states = [stored().trials[number].outcome for number in numbers]
    assert states == ["waiting", "running"]


def test_five_deaths_without_a_new_epoch_fail_the_trial() -> None:
    for death in range(1, MAX_STALLED + 1):
        leave_running(dead_owner(), epochs=1)
        assert take_up() == (1 if death < MAX_STALLED else 0)
    trial = stored().trials[0]
    assert (trial.state, trial.outcome) == ("FAIL", "failed")
    assert trial.failure is not None
    assert (trial.failure["kind"], "5 times" in trial.failure["message"]) == ("killed", True)
    assert trial.interrupted == MAX_STALLED
    assert take_up() == 0


def test_a_new_epoch_begins_the_count_of_deaths_anew() -> None:
    for epochs in (0, 0, 0, 0, 1):
        leave_running(dead_owner(), epochs=epochs)
        assert take_up() == 1
    assert stored().trials[0].interrupted == 5


def test_a_trial_that_an_interrupted_search_left_waiting_comes_before_new_ones() -> None:
    leave_running(dead_owner())
    take_up()
    study = opened(small_definition(starting_points={}))
    assert [study.ask().number for _ in range(2)] == [0, 1]


def test_the_seconds_of_an_enqueued_trial_are_those_that_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna stores UTC and gives local time; a mixture is hours off, but not where local time is UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        definition = definition_of(tiny_space, starting_points={"a": {"width": 16}})
        trials = run_study(2, definition).record.trials
    finally:
        monkeypatch.undo()
        time.tzset()
    assert [trial.starting_point for trial in trials[:2]] == ["a", None]
    for trial in trials:
        assert trial.seconds is not None
        assert 0 <= trial.seconds < 600
