"""What ends a search early, told from how its trials end."""

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from mc1opt.database import records
from mc1opt.search.endings import MAX_UNTRAINED, Endings
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
    endings = Endings([COMPLETE, trial, trial, create_trial(value=0.9)], max_failures=3)
    for _ in range(MAX_UNTRAINED - 3):
        endings.trial_ended(trial)
    assert endings.exhausted == ""
    endings.trial_ended(trial)
    assert endings.exhausted.startswith(f"{MAX_UNTRAINED} trials in a row were duplicates, too large or infe")


def test_a_trial_that_is_trained_begins_the_row_anew() -> None:
    endings = Endings([], max_failures=3)
    for _ in range(2):
        for _ in range(MAX_UNTRAINED - 1):
            endings.trial_ended(UNTRAINED["infeasible"])
        endings.trial_begins()
    assert endings.exhausted == ""


def test_failures_in_a_row_are_too_many_and_successes_begin_anew() -> None:
    endings = Endings([FAILED] * 5, max_failures=3)
    for trial in (FAILED, FAILED, COMPLETE, FAILED, UNTRAINED["infeasible"], FAILED):
        endings.trial_ended(trial)
    assert endings.failed == ""
    endings.trial_ended(FAILED)
    assert endings.failed == "3 trials in a row failed (--max-failures 3): 3x why."
