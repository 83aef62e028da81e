"""Importances, on a study whose best learning rate matters and whose batch size does not."""

import math

import optuna
import pytest
from optuna.trial import TrialState

from mc1opt.search.importance import LEAST_TRIALS, importances
from tests.support.studies import definition_of, own_attributes, own_trial, run_study, smooth_space

ONE: dict[str, optuna.distributions.BaseDistribution] = {"x": optuna.distributions.FloatDistribution(0, 1)}


def test_what_matters_most_comes_first_in_shares_of_one() -> None:
    shares = run_study(8, definition_of(smooth_space), sampler="random", pruner="none").importances
    assert set(shares) == {"learning_rate", "width", "batch_size"}
    assert next(iter(shares)) == "learning_rate"
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert all(share >= 0 for share in shares.values())
    assert sum(shares.values()) == pytest.approx(1)


def test_they_are_empty_below_the_least_number_of_complete_trials() -> None:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))

    def tell(state: TrialState) -> None:
        trial = study.ask()
        value = trial.suggest_float("x", 0, 1)
        trial.report(value, 0)
        for key, attribute in own_attributes().items():
            trial.set_user_attr(key, attribute)
        study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)

    for _ in range(LEAST_TRIALS):
        tell(TrialState.PRUNED)
    for _ in range(LEAST_TRIALS - 1):
        tell(TrialState.COMPLETE)
        assert importances(study) == {}
    tell(TrialState.COMPLETE)
    assert importances(study) == {"x": 1.0}


def test_where_nothing_differs_they_are_no_error() -> None:
    study = optuna.create_study(direction="maximize")
    for i in range(LEAST_TRIALS):
        study.add_trial(own_trial(TrialState.COMPLETE, 0.0, params={"x": i / 10}, distributions=ONE))
    assert not any(math.isnan(share) for share in importances(study).values())
