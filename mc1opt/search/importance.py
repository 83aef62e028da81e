"""Parameter importances of a study, computed by Optuna."""

import logging
import warnings

import optuna
from optuna.trial import TrialState

from mc1opt.database.records import own_trials

LEAST_TRIALS = 8
"""Fewest completed trials; importances of fewer are noise."""


def importances(study: optuna.Study) -> dict[str, float]:
    """Each parameter's share of the variance between completed trials, in 0..1, largest first.

    PED-ANOVA (Watanabe et al., 2023), Optuna's default. Empty for fewer than `LEAST_TRIALS` trials, or for
    equal values.
    """
    complete = own_trials(study, (TrialState.COMPLETE,))
    if len(complete) < LEAST_TRIALS:
        return {}
    own = optuna.create_study(direction=study.direction)
    own.add_trials(complete)
    try:
        with warnings.catch_warnings():
            # Optuna warns of conditional parameters, and all of ours are.
            warnings.simplefilter("ignore")
            return optuna.importance.get_param_importances(own)
    except Exception as error:
        # Importances explain a finished study; they must not make its end fail.
        logging.getLogger(__name__).warning("no importances: %r", error)
        return {}
