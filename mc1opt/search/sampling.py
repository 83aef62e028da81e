"""Samplers and pruners: Optuna's, with seeds that make a study the same however it is interrupted."""

import copy
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from mc1opt.database.records import foreign, is_counted, outcome, own_trials, values_by_epoch
from mc1opt.database.trial import frozen, set_system_attributes
from mc1opt.errors import UsageError
from mc1opt.search.local import LocalSampler
from mc1opt.seeds import derive_seed

STARTUP_TRIALS = 8
"""Trials that TPE leaves to chance. Only trained ones count, starting points among them: Optuna would also
count those that were too large or duplicates, and then model what it has never seen."""

CANDIDATES = 96
"""Draws from TPE's model of the good trials, of which the likeliest to be good is taken."""

KEPT_BY_EPOCH = (0.3, 0.2, 0.3)
"""Share of the trials that reached the end of their first, second, ... epoch, among which a trial must be to
go on; later epochs as the last one. So strict that a hundred trials end within half an hour on 2 cores, and
so mild that the best are kept (`benchmarks/LOG.md`)."""

PRUNER_STARTUP_TRIALS = 4
"""Completed trials before the pruner ends any: a rank among fewer is luck."""

GRID_SAMPLER = "grid"
"""The name of the sampler that tries every point of a grid."""

Grid = Mapping[str, Sequence[str | int | float | bool]]
"""Values by parameter."""


class SeededSampler(BaseSampler):
    """A sampler that is made anew for every draw, seeded by study, trial and parameter.

    A sampler seeded once gives other draws after an interruption than without it: its generator starts over.
    Here a draw depends on the study's seed, the trial's number, the parameter's name and the finished trials
    alone.

    The sampler sees the trials as `_for_sampler` puts them, and none of other programs.

    Args:
        make: makes the sampler for a seed.
        study_seed: the study's seed.
        startup_trials: trained trials before `make`'s sampler is asked; until then draws are random.
    """

    def __init__(self, make: Callable[[int], BaseSampler], study_seed: int, startup_trials: int) -> None:
        self._make = make
        self._study_seed = study_seed
        self._startup_trials = startup_trials
        self._view: _View | None = None
        self._seen: dict[int, FrozenTrial] = {}
        """Finished trials as the sampler sees them, by number: they change no more."""
        self._relative: BaseSampler = RandomSampler()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that are drawn together."""
        # One view for all draws of a trial: with several workers, trials end between two of them.
        self._view = _view(study, trial, self._seen)
        self._relative = self._sampler(self._view, "relative")
        return self._relative.infer_relative_search_space(self._view.study, self._view.trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draws the parameters that are drawn together."""
        view = self._view_of(study, trial)
        return self._relative.sample_relative(view.study, view.trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draws one parameter."""
        view = self._view_of(study, trial)
        sampler = self._sampler(view, param_name)
        return sampler.sample_independent(view.study, view.trial, param_name, param_distribution)

    def _view_of(self, study: optuna.Study, trial: FrozenTrial) -> "_View":
        if self._view is None or self._view.number != trial.number:
            self._view = _view(study, trial, self._seen)
        return self._view

    def _sampler(self, view: "_View", what: str) -> BaseSampler:
        # NumPy's legacy generators, which Optuna uses, take seeds of 32 bits.
        seed = derive_seed(self._study_seed, view.number, what) % 2**32
        return RandomSampler(seed) if view.trained < self._startup_trials else self._make(seed)


@dataclass(frozen=True)
class _View:
    """What the sampler sees while it draws one trial: a study in memory."""

    number: int
    """Of the trial that is drawn."""
    trained: int
    study: optuna.Study
    trial: FrozenTrial
    """Stands in that study for the trial that is drawn."""


def _view(study: optuna.Study, trial: FrozenTrial, known: dict[int, FrozenTrial]) -> _View:
    seen = optuna.create_study(direction="maximize")
    trials = own_trials(study, (TrialState.COMPLETE, TrialState.PRUNED))
    for other in trials:
        if other.number not in known:
            known[other.number] = _for_sampler(other)
        seen.add_trial(known[other.number])
    drawn = seen.ask()
    return _View(
        number=trial.number,
        trained=sum(is_counted(other) for other in trials),
        study=seen,
        trial=frozen(drawn),
    )


def _for_sampler(trial: FrozenTrial) -> FrozenTrial:
    """A finished trial as the sampler shall see it: a pruned one counts with what it had reached.

    Optuna's TPE ranks each completed trial above each pruned one. Starting points are completed, because
    nothing is pruned before them; the poor ones among them then pass for the best of the study, and TPE draws
    their likes (`benchmarks/LOG.md`). What a pruned trial had reached is a lower bound of its value.
    """
    reached = values_by_epoch(trial) if outcome(trial) == "pruned" else []
    value = reached[-1] if reached else trial.value if trial.state == TrialState.COMPLETE else None
    seen = create_trial(
        state=TrialState.PRUNED if value is None else TrialState.COMPLETE,
        value=value,
        params=trial.params,
        distributions=trial.distributions,
        constraints=trial.constraints or None,
    )
    seen.__class__ = _SeenTrial
    return seen


class _SeenTrial(FrozenTrial):
    """A trial that a study in memory copies without its parameters, which nobody changes.

    Optuna copies each trial that is added, in depth: with a thousand of them a second for each draw.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> "_SeenTrial":
        return copy.copy(self)


def _tpe(seed: int) -> BaseSampler:
    """Optuna's TPE (Bergstra et al., 2011), multivariate within the groups of a conditional search space.

    With Optuna's 24 candidates a draw changes several of the twenty choices that the best trials share at
    once; with a hundred trials in all, draws shall stay nearer to the best.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            seed=seed,
            group=True,
            n_startup_trials=1,
            n_ei_candidates=CANDIDATES,
            constant_liar=False,  # it sees finished trials only
        )


class WholeGridSampler(GridSampler):
    """Optuna's grid sampler, for a study that is asked and told, and that may be interrupted.

    Optuna's stops the study after the last point, which a study that is told answers with an error; and a
    point stays untrained if the process of its trial crashed. Here a trial takes the first point, in an order
    that the seed shuffles, that no other trial has or had; one whose trial ended as FAIL is free again.

    Args:
        grid: values by parameter.
        study_seed: the study's seed.
    """

    def __init__(self, grid: Grid, study_seed: int) -> None:
        super().__init__(grid, seed=derive_seed(study_seed, GRID_SAMPLER) % 2**32)
        self._grid = {name: list(values) for name, values in sorted(grid.items())}
        self._points = grid_size(grid)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Gives a trial its point, once: one that was interrupted keeps it."""
        if "grid_id" in trial.system_attrs or "fixed_params" in trial.system_attrs:
            return
        # The last point again if none is free; the search then tells the trial as a duplicate.
        point = min(self._free_points(study), default=self._points - 1)
        set_system_attributes(study, trial, {"search_space": self._grid, "grid_id": point})

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Nothing: the search asks `is_exhausted`."""

    def is_exhausted(self, study: optuna.Study) -> bool:
        """Whether every point is trained or in training, and no trial waits."""
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return not waiting and not self._free_points(study)

    def _free_points(self, study: optuna.Study) -> set[int]:
        trials = own_trials(study)
        taken = {trial.system_attrs.get("grid_id") for trial in trials if trial.state != TrialState.FAIL}
        return set(range(self._points)) - taken


def grid_size(grid: Grid) -> int:
    """How many points a grid has."""
    return math.prod(len(values) for values in grid.values())


def grid_trials(grid: Grid, starting_points: Iterable[Mapping[str, Any]]) -> int:
    """How many trials a search of a whole grid has: its points, and starting points that are none of them."""
    points = set(itertools.product(*grid.values()))
    others = [
        point
        for point in starting_points
        if point.keys() != grid.keys() or tuple(point[name] for name in grid) not in points
    ]
    return len(points) + len(others)


def make_sampler(name: str, study_seed: int, grid: Grid | None = None) -> BaseSampler:
    """The sampler of `--sampler`: tpe, local, random or grid.

    Args:
        name: which one.
        study_seed: the study's seed.
        grid: that of the study definition, if it has one.

    Raises:
        UsageError: there is no such sampler, or no grid for it.
    """
    makers: dict[str, Callable[[int], BaseSampler]] = {
        "tpe": _tpe,
        "local": LocalSampler,
        "random": RandomSampler,
    }
    if name == GRID_SAMPLER:
        if not grid:
            raise UsageError(
                "--sampler grid needs a study definition with a grid: GRID, the values by parameter; "
                "studies/published_grid.py is an example."
            )
        return WholeGridSampler(grid, study_seed)
    if name not in makers:
        raise UsageError(f"unknown sampler {name!r}. Allowed: {', '.join([*makers, GRID_SAMPLER])}.")
    return SeededSampler(makers[name], study_seed, STARTUP_TRIALS)


class NarrowingPruner(BasePruner):
    """Asynchronous successive halving with a rung at each epoch (Li et al., "A System for Massively Parallel
    Hyperparameter Tuning", 2020): a trial goes on while it ranks high among all that came as far.

    Optuna's percentile pruners compare with completed trials alone. At first these are the starting points,
    of which the poor ones let everything pass that the good ones don't end.

    Args:
        kept: the share that goes on, by epoch.
    """

    def __init__(self, kept: tuple[float, ...] = KEPT_BY_EPOCH) -> None:
        self._kept = kept

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether a trial shall end after its last reported epoch; of equal ones the earlier is kept."""
        epoch = trial.last_step
        trials = study.get_trials(deepcopy=False)
        complete = sum(other.state == TrialState.COMPLETE for other in trials)
        if epoch is None or complete < PRUNER_STARTUP_TRIALS:
            return False
        others = [
            other.intermediate_values[epoch]
            for other in trials
            if other.number != trial.number and epoch in other.intermediate_values
        ]
        ahead = sum(value >= trial.intermediate_values[epoch] for value in others)
        return ahead >= self._kept[min(epoch, len(self._kept) - 1)] * (len(others) + 1)


class OwnPruner(BasePruner):
    """A pruner that compares trials with mc1opt's own alone.

    Args:
        pruner: what compares them.
    """

    def __init__(self, pruner: BasePruner) -> None:
        self.pruner = pruner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial shall end after its last reported epoch."""
        return self.pruner.prune(cast(optuna.Study, _OwnTrials(study)), trial)


class _OwnTrials:
    """A study without the trials of other programs."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    def get_trials(self, **which: Any) -> list[FrozenTrial]:
        return [trial for trial in self._study.get_trials(**which) if not foreign(trial)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)


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
    return OwnPruner(makers[name]())
