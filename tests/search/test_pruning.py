"""Which trials a pruner ends."""

import math
from collections.abc import Sequence

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from mc1opt.metric import known_metric
from mc1opt.search.pruning import (
    KEPT_AFTER_SHORT,
    KEPT_BY_EPOCH,
    LATEST,
    PRUNER_STARTUP_TRIALS,
    make_pruner,
)
from tests.support.studies import new_storage, own_trial


def complete(curves: Sequence[Sequence[float]], pruner: str = "narrowing") -> optuna.Study:
    """A study with complete trials of these curves."""
    study = optuna.create_study(direction="maximize", pruner=make_pruner(pruner))
    add_curves(study, curves, TrialState.COMPLETE)
    return study


def add_curves(study: optuna.Study, curves: Sequence[Sequence[float]], state: TrialState) -> None:
    for curve in curves:
        value = curve[-1] if state == TrialState.COMPLETE else None
        study.add_trial(own_trial(state, value, intermediate_values=dict(enumerate(curve))))


def should_prune(study: optuna.Study, curve: Sequence[float]) -> bool:
    """Whether a trial ends after its last report of `curve`."""
    trial = study.ask()
    for epoch, value in enumerate(curve):
        trial.report(value, epoch)
    return trial.should_prune()


@pytest.mark.parametrize("epoch", range(6))
def test_a_trial_goes_on_if_it_is_in_the_kept_share_of_those_that_came_as_far(epoch: int) -> None:
    kept = KEPT_BY_EPOCH[min(epoch, len(KEPT_BY_EPOCH) - 1)]
    generator = np.random.default_rng(epoch)
    curves = np.sort(generator.random((19, 6)), axis=1)  # with the new one they are 20
    ranked = np.sort(curves[:, epoch])[::-1]
    go_on = round(kept * 20)
    rising = [ranked[go_on - 1] * (step + 1) / (epoch + 2) for step in range(epoch)]
    assert should_prune(complete(curves.tolist()), [*rising, ranked[go_on - 1] - 1e-6])
    assert not should_prune(complete(curves.tolist()), [*rising, ranked[go_on - 1] + 1e-6])


def test_pruned_and_running_trials_that_came_as_far_are_compared_with() -> None:
    for state in (TrialState.PRUNED, TrialState.RUNNING):
        study = complete([[0.1, 0.2]] * PRUNER_STARTUP_TRIALS)
        assert not should_prune(study, [0.11, 0.21])
        add_curves(study, [[0.9, 0.95]] * 50, state)
        assert should_prune(study, [0.11])


def test_trials_that_ended_before_are_not_compared_with() -> None:
    study = complete([[0.1, 0.2]] * PRUNER_STARTUP_TRIALS)
    add_curves(study, [[0.9]] * 50, TrialState.PRUNED)
    assert not should_prune(study, [0.91, 0.21])


@pytest.mark.parametrize("name", ["narrowing", "median"])
def test_nothing_is_pruned_before_some_trials_are_complete(name: str) -> None:
    study = optuna.create_study(direction="maximize", pruner=make_pruner(name))
    add_curves(study, [[0.9, 0.9, 0.9]] * 20, TrialState.PRUNED)
    for _ in range(PRUNER_STARTUP_TRIALS):
        assert not should_prune(study, [0.1, 0.1])
        add_curves(study, [[0.9, 0.9, 0.9]], TrialState.COMPLETE)
    assert should_prune(study, [0.1, 0.1])


def after_short(values: Sequence[float], short_epochs: int = 1) -> optuna.Study:
    """A study whose trials had these values at the end of their short schedule."""
    study = optuna.create_study(direction="maximize", pruner=make_pruner("narrowing", short_epochs))
    add_curves(study, [[0.1] * (short_epochs - 1) + [value] for value in values], TrialState.PRUNED)
    return study


def test_the_end_of_the_short_schedule_decides_and_nothing_else() -> None:
    values = np.linspace(0.5, 0.6, LATEST).tolist()
    go_on = math.ceil(KEPT_AFTER_SHORT * (LATEST + 1))  # the new one included
    least = sorted(values, reverse=True)[go_on - 1]
    for short_epochs in (1, 2):
        before = [0.0] * (short_epochs - 1)
        study = after_short(values, short_epochs)
        assert should_prune(study, [*before, least - 1e-6])
        assert not should_prune(after_short(values, short_epochs), [*before, least + 1e-6])
        assert not should_prune(after_short(values, short_epochs), [*before, least + 1e-6, 0.0])
        assert not short_epochs > 1 or not should_prune(study, before)


def test_the_latest_trials_are_compared_with_as_a_sampler_learns() -> None:
    assert not should_prune(after_short([0.9] * 30 + [0.5] * LATEST), [0.6])
    assert should_prune(after_short([0.5] * 30 + [0.9] * LATEST), [0.6])


def test_of_the_first_trials_those_go_on_that_are_ahead_of_all() -> None:
    assert not should_prune(after_short([]), [0.1])
    assert should_prune(after_short([0.3]), [0.2])
    assert not should_prune(after_short([0.3]), [0.4])


@pytest.mark.parametrize(
    ("pruner", "curve", "pruned"),
    [
        ("narrowing", [], False),  # without a report
        ("narrowing", [0.9], True),  # of equal trials the later one
        ("median", [0.1], False),  # it ignores the first epoch
        ("none", [0.0] * 4, False),
    ],
)
def test_each_pruner_has_its_rule(pruner: str, curve: list[float], pruned: bool) -> None:
    assert should_prune(complete([[0.9] * 4] * 10, pruner), curve) == pruned


def test_halving_ends_the_worse_of_many_trials() -> None:
    pruner = make_pruner("halving")
    study = optuna.create_study(storage=new_storage(), direction="maximize", pruner=pruner)
    verdicts = [should_prune(study, [value] * 4) for value in (0.9, 0.8, 0.7, 0.1)]
    assert not verdicts[0]
    assert verdicts[-1]


@pytest.mark.parametrize(("name", "short_epochs"), [("narrowing", 0), ("narrowing", 1), ("median", 0)])
def test_of_a_metric_that_is_minimized_the_greater_values_are_pruned(name: str, short_epochs: int) -> None:
    verdicts = {}
    for metric, sign in ((known_metric("macro_f1"), 1.0), (known_metric("log_loss"), -1.0)):
        pruner = make_pruner(name, short_epochs, metric)
        study = optuna.create_study(storage=new_storage(), direction=metric.direction, pruner=pruner)
        add_curves(study, [[sign * value] * 4 for value in np.linspace(0.1, 0.9, 9)], TrialState.COMPLETE)
        trials = ([sign * value] * (1 if short_epochs else 3) for value in (0.05, 0.5, 0.95))
        verdicts[metric.name] = [should_prune(study, curve) for curve in trials]
    assert verdicts["macro_f1"] == verdicts["log_loss"]
    assert verdicts["macro_f1"][0] != verdicts["macro_f1"][-1]
