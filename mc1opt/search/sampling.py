"""Samplers and pruners: Optuna's, with seeds that make a study the same however it is interrupted."""

import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner, PercentilePruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from mc1opt.errors import UsageError
from mc1opt.search.records import is_counted
from mc1opt.seeds import derive_seed

STARTUP_TRIALS = 10
"""Trials that TPE leaves to chance. Only trained ones count, starting points among them: Optuna would also
count those that were too large or duplicates, and then model what it has never seen."""

KEPT_BY_EPOCH = (75.0, 50.0, 35.0, 25.0)
"""Percent of the completed trials among which a trial must be at the end of its first, second, ... epoch to
go on; later epochs as the last one. The first epoch tells little of the last: it only ends the hopeless."""

PRUNER_STARTUP_TRIALS = 4
"""Completed trials before the pruner ends any: percentiles of fewer are luck."""


class SeededSampler(BaseSampler):
    """A sampler that is made anew for every draw, seeded by study, trial and parameter.

    A sampler seeded once gives other draws after an interruption than without it: its generator starts over.
    Here a draw depends on the study's seed, the trial's number, the parameter's name and the finished trials
    alone.

    Args:
        make: makes the sampler for a seed.
        study_seed: the study's seed.
        startup_trials: trained trials before `make`'s sampler is asked; until then draws are random.
    """

    def __init__(self, make: Callable[[int], BaseSampler], study_seed: int, startup_trials: int) -> None:
        self._make = make
        self._study_seed = study_seed
        self._startup_trials = startup_trials
        self._relative: BaseSampler = RandomSampler()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that are drawn together."""
        self._relative = self._sampler(study, trial, "relative")
        return self._relative.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draws the parameters that are drawn together."""
        return self._relative.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draws one parameter."""
        sampler = self._sampler(study, trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _sampler(self, study: optuna.Study, trial: FrozenTrial, what: str) -> BaseSampler:
        # NumPy's legacy generators, which Optuna uses, take seeds of 32 bits.
        seed = derive_seed(self._study_seed, trial.number, what) % 2**32
        trained = sum(is_counted(other) for other in study.get_trials(deepcopy=False))
        return RandomSampler(seed) if trained < self._startup_trials else self._make(seed)


def _tpe(seed: int) -> BaseSampler:
    """Optuna's TPE (Bergstra et al., 2011), multivariate within the groups of a conditional search space."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(seed=seed, group=True, n_startup_trials=1)


def make_sampler(name: str, study_seed: int) -> SeededSampler:
    """The sampler of `--sampler`: tpe or random.

    Raises:
        UsageError: there is no such sampler.
    """
    makers: dict[str, Callable[[int], BaseSampler]] = {"tpe": _tpe, "random": RandomSampler}
    if name not in makers:
        raise UsageError(f"unknown sampler {name!r}. Allowed: {', '.join(makers)}.")
    return SeededSampler(makers[name], study_seed, STARTUP_TRIALS)


class NarrowingPruner(BasePruner):
    """Optuna's percentile pruner with a percentile for each epoch.

    A trial is compared with the completed trials at the same epoch, which suits a constant budget of epochs.
    What is kept narrows: a single percentile is either too strict for the first epoch or too lax later.

    Args:
        kept: percent of the completed trials to be as good as, by epoch.
    """

    def __init__(self, kept: tuple[float, ...] = KEPT_BY_EPOCH) -> None:
        self._pruners = [
            PercentilePruner(
                percent, n_startup_trials=PRUNER_STARTUP_TRIALS, n_min_trials=PRUNER_STARTUP_TRIALS
            )
            for percent in kept
        ]

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether a trial shall end after its last reported epoch."""
        epoch = trial.last_step
        if epoch is None:
            return False
        return self._pruners[min(epoch, len(self._pruners) - 1)].prune(study, trial)


def make_pruner(name: str) -> BasePruner:
    """The pruner of `--pruner`: narrowing, median, halving or none.

    Raises:
        UsageError: there is no such pruner.
    """
    makers: dict[str, Callable[[], BasePruner]] = {
        "narrowing": NarrowingPruner,
        # One epoch of warm-up: after its first epoch a trial is not compared.
        "median": lambda: MedianPruner(
            n_startup_trials=PRUNER_STARTUP_TRIALS, n_warmup_steps=1, n_min_trials=4
        ),
        "halving": lambda: SuccessiveHalvingPruner(min_resource=2, reduction_factor=2),
        "none": NopPruner,
    }
    if name not in makers:
        raise UsageError(f"unknown pruner {name!r}. Allowed: {', '.join(makers)}.")
    return makers[name]()
