"""What ends a search early, told from how its trials end."""

from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from mc1opt.database import records
from mc1opt.metric import Aim, known_metric
from mc1opt.search.incumbents import confirmation_seed
from mc1opt.search.sampling import make_sampler
from mc1opt.search.stop_conditions import MAX_UNTRAINED, StopConditions, enough, without_improvement
from tests.support.studies import SEED, own_trial, settings

COMPLETE = own_trial(TrialState.COMPLETE, 0.5)
FAILED = own_trial(
    TrialState.FAIL, user_attrs={records.FAILURE: {"kind": "crashed", "message": "why (process 7)"}}
)
UNTRAINED = {
    "duplicate": own_trial(TrialState.PRUNED, user_attrs={records.DUPLICATE_OF: 0}),
    "infeasible": own_trial(TrialState.PRUNED, user_attrs={records.INFEASIBLE: ""}),
    "too_large": own_trial(TrialState.PRUNED, constraints={records.TOO_LARGE: 1.0}),
}


@pytest.mark.parametrize("trial", UNTRAINED.values(), ids=UNTRAINED.keys())
def test_untrained_trials_in_a_row_leave_nothing_new(trial: FrozenTrial) -> None:
    conditions = StopConditions([COMPLETE, trial, trial, create_trial(value=0.9)], max_failures=3)
    for _ in range(MAX_UNTRAINED - 3):
        conditions.trial_ended(trial)
    assert conditions.exhausted == ""
    conditions.trial_ended(trial)
    assert conditions.exhausted.startswith(
        f"{MAX_UNTRAINED} trials in a row were duplicates, too large or infe"
    )


def test_a_trial_that_is_trained_begins_the_row_anew() -> None:
    conditions = StopConditions([], max_failures=3)
    for _ in range(2):
        for _ in range(MAX_UNTRAINED - 1):
            conditions.trial_ended(UNTRAINED["infeasible"])
        conditions.trial_begins()
    assert conditions.exhausted == ""


def test_failures_in_a_row_are_too_many_and_successes_begin_anew() -> None:
    conditions = StopConditions([FAILED] * 5, max_failures=3)
    for trial in (FAILED, FAILED, COMPLETE, FAILED, UNTRAINED["infeasible"], FAILED):
        conditions.trial_ended(trial)
    assert conditions.failed == ""
    conditions.trial_ended(FAILED)
    assert conditions.failed == "3 trials in a row failed (--max-failures 3): 3x why."


# ---- Enough ----------------------------------------------------------------------------------------------


def study_of(*trials: FrozenTrial, sampler: str = "tpe", direction: str = "maximize") -> optuna.Study:
    study = optuna.create_study(direction=direction, sampler=make_sampler(sampler, SEED))
    study.add_trials(trials)
    return study


def values(*values: float) -> list[FrozenTrial]:
    return [own_trial(TrialState.COMPLETE, value) for value in values]


def again(number: int, value: float, second: float) -> FrozenTrial:
    """A trial that was trained again."""
    entry = {"seed": confirmation_seed(SEED, number, 0), "value": second}
    return own_trial(TrialState.COMPLETE, value, user_attrs={records.CONFIRMATIONS: [entry]})


PRUNED = own_trial(TrialState.PRUNED, intermediate_values={0: 0.9})


@pytest.mark.parametrize(
    ("scores", "row"), [([], 0), ([0.5], 0), ([0.5, 0.4, 0.5], 2), ([0.5, 0.6, 0.1], 1), ([0.1, 0.2], 0)]
)
def test_the_row_begins_after_the_first_of_the_best(scores: list[float], row: int) -> None:
    assert without_improvement(scores) == row


def test_without_a_wish_nothing_is_enough() -> None:
    assert enough(study_of(*values(0.9, 0.1, 0.1)), settings(9)) == ""


def test_patience_counts_what_counts_since_the_best() -> None:
    trials = [*values(0.5, 0.6), FAILED, PRUNED, UNTRAINED["duplicate"], create_trial(value=0.1), COMPLETE]
    assert enough(study_of(*trials), settings(9, patience=3)) == ""
    assert enough(study_of(*trials), settings(9, patience=2)).startswith("2 trials in a row")
    assert enough(study_of(*trials, *values(0.7)), settings(9, patience=2)) == ""


def test_the_value_to_reach_is_in_the_direction_of_the_metric() -> None:
    log_loss: dict[str, Any] = {"aim": Aim(metric=known_metric("log_loss"))}
    study = study_of(*values(0.9, 0.5), direction="minimize")
    assert enough(study, settings(9, until=0.4, **log_loss)) == ""
    assert enough(study, settings(9, until=0.5, **log_loss)).startswith("#1 has reached 0.5000")
    assert enough(study, settings(9, patience=1, **log_loss)) == ""
    study.add_trial(COMPLETE)
    assert enough(study, settings(9, patience=1, **log_loss))
    assert enough(study_of(*values(0.9, 0.5)), settings(9, until=0.9)).startswith("#0 has reached 0.9000")
    assert enough(study_of(*values(0.9, 0.5)), settings(9, until=0.91)) == ""


def test_where_incumbents_are_trained_again_both_trainings_must_reach_it() -> None:
    until = settings(9, until=0.9)
    assert enough(study_of(*values(0.5, 0.95), sampler="local"), until) == ""
    assert enough(study_of(*values(0.5), again(1, 0.95, 0.84), sampler="local"), until) == ""
    assert enough(study_of(*values(0.5), again(1, 0.95, 0.86), sampler="local"), until)
    assert enough(study_of(*values(0.5), again(1, 0.95, 0.2), sampler="tpe"), until)


def test_an_incumbent_that_its_second_training_refutes_does_not_begin_the_row_anew() -> None:
    patience = settings(9, patience=2)
    trials = values(0.5, 0.4)
    assert enough(study_of(*trials, *values(0.51), sampler="local"), patience) == ""
    assert enough(study_of(*trials, again(2, 0.51, 0.48), sampler="local"), patience)
