"""Which parameters matter: Optuna's importances of a study."""

import logging
import warnings

import optuna
from optuna.trial import TrialState

from mc1opt.database.records import own_trials

LEAST_TRIALS = 8
"""Completed trials below which importances are noise."""


def importances(study: optuna.Study) -> dict[str, float]:
    """Each parameter's share in what makes completed trials differ, the greatest first.

    PED-ANOVA (Watanabe et al., 2023), Optuna's default. Empty where there are too few trials, or where their
    values don't differ.
    """
    complete = own_trials(study, (TrialState.COMPLETE,))
    if len(complete) < LEAST_TRIALS:
        return {}
    own = optuna.create_study(direction="maximize")
    own.add_trials(complete)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of parameters that only some trials have: ours all are conditional
            return optuna.importance.get_param_importances(own)
    except Exception as error:
        # They explain a finished study; they must not be what makes its end fail.
        logging.getLogger(__name__).warning("no importances: %r", error)
        return {}
