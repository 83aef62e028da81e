"""What ends a search early, told from how its trials end."""

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from mc1opt.database import records
from mc1opt.search.stop_conditions import MAX_UNTRAINED, StopConditions
from tests.support.studies import own_trial

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
