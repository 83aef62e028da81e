"""Which trials of a study are the best: by their values, and by what they promise with another seed."""

from typing import Any

import pytest

from mc1opt.database.ranking import by_expected_accuracy, confirmed_values, distinguishable, gain
from mc1opt.database.records import Outcome, StudyRecord, TrialRecord, by_value
from tests.support import display
from tests.support.display import again, study


def trial(number: int, value: float | None, values: tuple[float, ...] = (), **fields: Any) -> TrialRecord:
    """A trial that is complete if it has a value, and its accuracies with new seeds."""
    outcome: Outcome = "pruned" if value is None else "complete"
    return display.trial(number, outcome, value or 0.0, **({"confirmations": again(*values)} | fields))


def failed(kind: str, seed: int = 9) -> dict[str, Any]:
    return {"seed": seed, "value": None, "failure": {"kind": kind, "message": ""}}


def promising(record: StudyRecord) -> list[int]:
    return [entry.number for entry in by_expected_accuracy(record.trials)]


def test_by_value_the_highest_comes_first_and_of_equals_the_first_drawn() -> None:
    trials = [trial(0, 0.7), trial(1, None), trial(2, 0.8), trial(3, 0.7)]
    assert [entry.number for entry in by_value(trials)] == [2, 0, 3]


def test_a_confirmed_trial_is_ranked_by_its_new_trainings_alone() -> None:
    record = study(trial(0, 0.90, (0.70, 0.72)), trial(1, 0.80, (0.74, 0.76)))
    assert confirmed_values(record.trials) == {0: [0.70, 0.72], 1: [0.74, 0.76]}
    assert promising(record) == [1, 0]


def test_to_be_confirmed_is_no_handicap() -> None:
    """The values of confirmed ones were too high by 0.03 on the average: so are those of the others."""
    confirmed = [trial(0, 0.80, (0.76, 0.76)), trial(1, 0.79, (0.77, 0.77))]
    assert promising(study(*confirmed, trial(2, 0.795))) == [1, 2, 0]
    assert promising(study(*confirmed, trial(2, 0.81))) == [2, 1, 0]
    assert promising(study(*confirmed, trial(2, 0.78))) == [1, 0, 2]


def test_without_new_trainings_the_values_decide() -> None:
    assert promising(study(trial(0, 0.7), trial(1, 0.8), trial(2, None))) == [1, 0]


def test_a_config_that_failed_in_a_new_training_comes_last() -> None:
    lucky = trial(0, 0.90, confirmations=[{"seed": 1, "value": 0.9}, failed("diverged")])
    unlucky = trial(1, 0.60, confirmations=[{"seed": 1, "value": 0.6}, failed("killed")])
    assert promising(study(lucky, unlucky, trial(2, 0.5))) == [1, 2, 0]


def test_only_one_that_others_are_behind_is_ahead() -> None:
    assert distinguishable(study(trial(0, 0.8))) is None
    assert distinguishable(study(trial(0, 0.8, (0.80,)), trial(1, 0.8, (0.79,)))) is None
    alone = distinguishable(study(trial(0, 0.8, (0.80, 0.79)), trial(1, 0.7)))
    assert alone is not None
    assert (alone.equal, alone.is_ahead) == ([0], False)
    ahead = distinguishable(study(trial(0, 0.8, (0.80, 0.79)), trial(1, 0.7, (0.60, 0.61))))
    assert ahead is not None
    assert (ahead.equal, ahead.others, ahead.is_ahead) == ([0], 1, True)


def test_what_a_search_adds_is_the_difference_of_new_trainings_with_the_noise_of_all() -> None:
    given = trial(0, 0.80, (0.800, 0.804), starting_point="plain")
    sampled = [trial(3, 0.83, (0.806, 0.810)), trial(4, 0.81, (0.818, 0.826)), trial(5, 0.9)]
    found = gain(study(given, *sampled))
    assert found is not None
    assert (found.sampled, found.given) == (4, 0)
    assert found.points == pytest.approx(0.020)
    # Variances 0.8e-5, 0.8e-5 and 3.2e-5 of one degree of freedom each; t of three is 3.182.
    half = 3.182 * (1.6e-5) ** 0.5
    assert found.interval == pytest.approx((0.020 - half, 0.020 + half), abs=1e-5)
    assert gain(study(*sampled)) is None
    assert gain(study(given, sampled[2])) is None
    assert gain(study(trial(0, 0.8, (0.8,), starting_point="plain"), trial(1, 0.8, (0.8,)))) is None
