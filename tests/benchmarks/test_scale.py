"""What a study database takes in a second, told from the times of its trials."""

import queue
from datetime import datetime, timedelta
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from benchmarks import scale
from benchmarks.scale import copy_trials, measure_saturation, rates, saturation_table
from mc1opt.database import records
from tests.support.studies import (
    DATA,
    counted,
    definition_of,
    facts,
    own_trial,
    run_study,
    smooth_space,
    stored,
)

START = datetime(2026, 1, 1)


def trial(pid: int, begin: float, end: float | None, epochs: int = 4, **attributes: Any) -> FrozenTrial:
    """A trial of a process, by seconds from the start; one without an end is in training."""
    state = TrialState.RUNNING if end is None else TrialState.PRUNED
    one = own_trial(
        state,
        intermediate_values=dict.fromkeys(range(epochs), 0.5),
        user_attrs={records.OWNER: {"pid": pid}, **attributes},
    )
    one.datetime_start = START + timedelta(seconds=begin)
    one.datetime_complete = None if end is None else START + timedelta(seconds=end)
    return one


def test_rates_are_those_of_the_time_in_which_all_processes_search() -> None:
    found = rates(
        [
            trial(1, 0.0, 1.0),  # before the second process has begun
            trial(1, 1.0, 3.0),
            trial(2, 2.0, 6.0, epochs=2),
            trial(1, 3.0, 6.0, epochs=0, **{records.DUPLICATE_OF: 0}),
            trial(2, 6.0, 9.0),  # after the first has told its last
            trial(1, 6.0, None),
        ]
    )
    assert found == {
        "seconds": 4.0,
        "asked": 3 / 4,
        "trials": 2 / 4,
        "epochs": 6 / 4,
        "epochs_a_trial": 3.0,
    }


def test_a_search_is_measured_to_its_last_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "LEAST_TRIALS", 6)
    monkeypatch.setattr(scale, "find_data", lambda: DATA)
    monkeypatch.setattr(scale.multiprocessing, "get_context", lambda _: Threads)
    figures = measure_saturation("sqlite", 1, 3)
    assert (figures["engine"], figures["processes"], figures["workers"]) == ("sqlite", 1, 3)
    assert figures["asked"] >= figures["trials"] > 0.0
    assert 0.0 < figures["cpu_a_trial"] < 5.0
    assert 1.0 <= figures["epochs_a_trial"] <= 4.0
    assert figures["trials"] * figures["seconds"] == pytest.approx(6)


def test_a_database_is_filled_with_copies_of_its_trials() -> None:
    run_study(5, definition_of(smooth_space), sampler="random")
    there = [{**each, "number": 0} for each in facts(stored())]
    copy_trials("s.db", 13)
    copied = stored()
    assert [trial.number for trial in copied.trials] == list(range(13))
    assert [{**each, "number": 0} for each in facts(copied)] == [*there, *there, *there[:3]]
    run_study(15, definition_of(smooth_space), sampler="random")
    assert len(counted(stored())) == 15


class Threads:
    """Stands in for processes: runs what they would, here and at once."""

    exitcode = 0

    def __init__(self, target: Any, args: tuple[Any, ...]) -> None:
        self.start = lambda: target(*args)

    def join(self) -> None:
        """It has ended."""

    Process: Any = None
    SimpleQueue = queue.SimpleQueue


Threads.Process = Threads


def test_the_table_says_how_many_slow_workers_would_do_as_much() -> None:
    line = {"engine": "sqlite", "processes": 1, "workers": 1_000, "asked": 4.0, "trials": 3.0, "epochs": 2.5}
    line["cpu_a_trial"] = 0.04
    table = saturation_table([line, {**line, "epochs": 3.5}, {**line, "engine": "other"}])
    assert "| sqlite | 1 | 1,000 | 4.0 | 3.0 | 3.0 | 180 | 40 | 2 |" in table
