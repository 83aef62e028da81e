"""What `--patience` saves and loses, and what becomes of forecasts, told from a search that is known."""

import math
from dataclasses import dataclass
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from benchmarks import stopping
from benchmarks.replay import Searched
from benchmarks.stopping import Stopped, after, compared, forecast_table, patience_table, stopped
from mc1opt.database import records
from tests.support.studies import own_trial

VALUES = [0.5, 0.6, 0.5, 0.5, 0.5, 0.9, 0.5]


@dataclass
class Noise:
    """What `winner` needs of a surrogate."""

    seed_noise: float = 0.0


NONE: Any = Noise()


def found(values: list[float], seconds: float = 60.0) -> Searched:
    """A search whose trials end one after the other, and are a tenth worse without noise."""
    study = optuna.create_study(direction="maximize")
    attributes = {records.EPOCH_SECONDS: 2 * seconds}  # two workers
    study.add_trials([own_trial(TrialState.COMPLETE, value, user_attrs=attributes) for value in values])
    numbers = range(len(values))
    truths = {number: values[number] - 0.1 for number in numbers}
    return Searched(study, truths, {number: seconds * (number + 1) for number in numbers})


def test_a_study_as_it_was_has_the_trials_that_had_ended() -> None:
    assert [trial.number for trial in after(found(VALUES), 180.0).trials] == [0, 1, 2]


def test_patience_ends_a_search_at_its_first_row_of_trials_that_do_not_improve_it() -> None:
    assert stopped(found(VALUES), NONE, 0, 3) == Stopped(5, 300.0, pytest.approx(0.5))
    assert stopped(found(VALUES), NONE, 0, 4) == Stopped(7, 420.0, pytest.approx(0.8))
    assert stopped(found(VALUES), NONE, 0, math.inf) == Stopped(7, 420.0, pytest.approx(0.8))


def test_a_forecast_is_compared_with_the_half_hour_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [0.5 + 0.01 * (i % 10) for i in range(120)]
    one = compared(found([*values, 0.7], 30.0), 3600.0)
    assert one is not None
    assert (one.gain, one.truth) == (pytest.approx(0.11), pytest.approx(0.11))
    assert one.interval[0] <= one.median <= one.interval[1]
    assert compared(found(values), 600.0) is None


def test_tables_have_the_losses_in_points_and_the_share_within_the_intervals() -> None:
    table = patience_table({3: [Stopped(5, 300.0, 0.5), Stopped(5, 300.0, 0.8)], math.inf: [
        Stopped(7, 420.0, 0.8), Stopped(7, 420.0, 0.8)
    ]})  # fmt: skip
    assert "| 3 | 5 | 5 | 0.6500 | 15.0 ± 15.0 | 30.0 |" in table
    kept = stopping.Compared((0.0, 0.1), 0.05, 0.1, 0.2)
    missed = stopping.Compared((0.0, 0.1), 0.05, 0.2, 0.0)
    assert "| 30 | 2 | 50% | 50% | 5.0 | 0.0 to 10.0 | 15.0 | 10.0 |" in forecast_table(
        {1800.0: [kept, missed]}
    )
