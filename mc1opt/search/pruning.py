"""Pruners: Optuna's, and one of our own that is strict early."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState

from mc1opt.database.records import foreign
from mc1opt.errors import UsageError
from mc1opt.metric import ACCURACY, Metric

KEPT_BY_EPOCH = (0.3, 0.2, 0.3)
"""Top share, among all trials that reached an epoch, that continues after the first, second, ... epoch; the
last value holds for all later ones. Strict enough for a hundred trials in half an hour on 2 cores, and mild
enough to keep the best (`benchmarks/LOG.md`)."""

KEPT_AFTER_SHORT = 0.25
"""Top share that continues after a short schedule. Only there it is fair to compare: beginnings of schedules
of different shapes rank configs near a good one by chance."""
LATEST = 16
"""Trials that have reached the end of the short schedule last, and are compared with."""

PRUNER_STARTUP_TRIALS = 4
"""Completed trials before the pruner ends any: a rank among fewer is luck."""


class NarrowingPruner(BasePruner):
    """Asynchronous successive halving with a rung at each epoch (Li et al., "A System for Massively Parallel
    Hyperparameter Tuning", 2020): a trial continues while it ranks high among all that reached its epoch.

    Optuna's percentile pruners compare with completed trials only. At first these are the starting points,
    and the poor ones among them would let almost everything pass.

    Args:
        kept: the top share that continues, by epoch.
        short_epochs: of the short schedule, if there is one.
        metric: what the reports are.
    """

    def __init__(
        self,
        kept: tuple[float, ...] = KEPT_BY_EPOCH,
        short_epochs: int = 0,
        metric: Metric = ACCURACY,
    ) -> None:
        self._kept = kept
        self._score = metric.score
        self._short_epochs = short_epochs

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to end a trial after its last reported epoch; of equal trials the earlier is kept."""
        epoch = trial.last_step
        trials = study.get_trials(deepcopy=False)
        if self._short_epochs:
            return epoch == self._short_epochs - 1 and self._falls_behind(trial, epoch, trials)
        complete = sum(other.state == TrialState.COMPLETE for other in trials)
        if epoch is None or complete < PRUNER_STARTUP_TRIALS:
            return False
        others = [
            other.intermediate_values[epoch]
            for other in trials
            if other.number != trial.number and epoch in other.intermediate_values
        ]
        ahead = self._ahead(trial, epoch, others)
        return ahead >= self._kept[min(epoch, len(self._kept) - 1)] * (len(others) + 1)

    def _falls_behind(self, trial: FrozenTrial, epoch: int, trials: Sequence[FrozenTrial]) -> bool:
        """Whether a trial ranks low at the end of the short schedule, among the latest that have reached it.

        Not among all: a sampler learns, and would soon have all of its draws go on.
        """
        others = [
            other.intermediate_values[epoch]
            for other in trials
            if other.number != trial.number and epoch in other.intermediate_values
        ][-LATEST:]
        return self._ahead(trial, epoch, others) >= KEPT_AFTER_SHORT * (len(others) + 1)

    def _ahead(self, trial: FrozenTrial, epoch: int, others: Sequence[float]) -> int:
        """How many of the others' reports are as good as the trial's, or better."""
        own = self._score(trial.intermediate_values[epoch])
        return sum(self._score(value) >= own for value in others)


class OwnPruner(BasePruner):
    """A pruner that does not see foreign trials.

    Args:
        pruner: decides.
    """

    def __init__(self, pruner: BasePruner) -> None:
        self.pruner = pruner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to end the trial after its last reported epoch."""
        return self.pruner.prune(cast(optuna.Study, _OwnTrials(study)), trial)


class _OwnTrials:
    """A study without foreign trials."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    def get_trials(self, **which: Any) -> list[FrozenTrial]:
        return [trial for trial in self._study.get_trials(**which) if not foreign(trial)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)


def make_pruner(name: str, short_epochs: int = 0, metric: Metric = ACCURACY) -> BasePruner:
    """The pruner of `--pruner`: narrowing, median, halving or none.

    Raises:
        UsageError: there is no such pruner.
    """
    makers: dict[str, Callable[[], BasePruner]] = {
        "narrowing": lambda: NarrowingPruner(short_epochs=short_epochs, metric=metric),
        # One epoch of warm-up: no trial ends after its first epoch.
        "median": lambda: MedianPruner(
            n_startup_trials=PRUNER_STARTUP_TRIALS, n_warmup_steps=1, n_min_trials=4
        ),
        "halving": lambda: SuccessiveHalvingPruner(min_resource=2, reduction_factor=2),
        "none": NopPruner,
    }
    if name not in makers:
        raise UsageError(f"unknown pruner {name!r}. Allowed: {', '.join(makers)}.")
    return OwnPruner(makers[name]())
