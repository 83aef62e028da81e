"""Samplers: Optuna's and our own, seeded so that interruptions do not change a study."""

import itertools
import math
import warnings
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from mc1opt.database.records import STARTING_POINT, is_counted, outcome, own_trials, values_by_epoch
from mc1opt.database.trial import frozen, set_system_attributes
from mc1opt.errors import UsageError
from mc1opt.metric import ACCURACY, Metric
from mc1opt.search.incumbents import incumbents
from mc1opt.search.local import NUMBER, LocalSampler
from mc1opt.seeds import derive_seed

STARTING_POINT_WORTH = 4
"""Random draws that a starting point stands for, where neighbours of the best are drawn."""

STARTUP = {"tpe": 8, "local": 16, "random": 0}
"""Trained trials, starting points among them, before a sampler models anything; until then draws are random.
Optuna would also count untrained trials, and then model what it has never seen."""

CANDIDATES = 96
"""Candidates that TPE draws from its model of the good trials; it takes the best of them."""

GRID_SAMPLER = "grid"
"""Name of the sampler that tries every point of a grid."""

Grid = Mapping[str, Sequence[str | int | float | bool]]
"""Parameter -> values."""


class SeededSampler(BaseSampler):
    """Makes a new sampler for every draw, seeded by study, trial and parameter.

    The generator of a sampler that is seeded once starts over after an interruption. Here a draw depends
    only on the study's seed, the trial's number, the parameter's name and the finished trials.

    The sampler sees the trials as `_for_sampler` converts them, without foreign ones: with scores for values,
    so that larger is better whatever the metric.

    Args:
        make: makes the sampler for a seed.
        study_seed: the study's seed.
        startup_trials: trained trials before `make`'s sampler is used; until then draws are random.
        repeats: whether new incumbents are trained again, see `mc1opt.search.incumbents`.
        metric: what the study's values are.
        known: trials of another study that the sampler sees before the study's own, as `seen_trial` makes
            them.
    """

    def __init__(
        self,
        make: Callable[[int], BaseSampler],
        study_seed: int,
        startup_trials: int,
        repeats: bool = False,
        metric: Metric = ACCURACY,
        known: Sequence[FrozenTrial] = (),
    ) -> None:
        self.repeats = repeats
        self._known = known
        self._metric = metric
        self._make = make
        self._study_seed = study_seed
        self._startup_trials = startup_trials
        self._view: _View | None = None
        self._seen: dict[int, tuple[float | None, FrozenTrial]] = {}
        """Finished trials as the sampler sees them, by number, with their scores."""
        self._relative: BaseSampler = RandomSampler()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that are drawn together."""
        # One view for all draws of a trial: other workers' trials may end between two of them.
        self._view = self._new_view(study, trial)
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

    def _worth(self, trial: FrozenTrial) -> int:
        """How many random draws a trial stands for at the start."""
        return STARTING_POINT_WORTH if self.repeats and STARTING_POINT in trial.user_attrs else 1

    @property
    def parent(self) -> FrozenTrial | None:
        """The trial whose neighbour was drawn last, as the sampler sees it, if it draws such."""
        return getattr(self._relative, "parent", None)

    def _view_of(self, study: optuna.Study, trial: FrozenTrial) -> "_View":
        if self._view is None or self._view.number != trial.number:
            self._view = self._new_view(study, trial)
        return self._view

    def _new_view(self, study: optuna.Study, trial: FrozenTrial) -> "_View":
        trials = own_trials(study, (TrialState.COMPLETE, TrialState.PRUNED))
        means = incumbents(study, self._study_seed, self._metric).scores if self.repeats else {}
        for other in trials:
            score = None if other.value is None else self._metric.score(other.value)
            score = means.get(other.number, score)
            if other.number not in self._seen or self._seen[other.number][0] != score:
                self._seen[other.number] = score, _for_sampler(other, score, self._metric)
        given = [*self._known, *(self._seen[other.number][1] for other in trials)]
        seen = optuna.create_study(direction="maximize", storage=_GivenTrials(given))
        return _View(
            number=trial.number,
            trained=len(self._known) + sum(is_counted(other) * self._worth(other) for other in trials),
            study=seen,
            trial=frozen(seen.ask()),
        )

    def _sampler(self, view: "_View", what: str) -> BaseSampler:
        # NumPy's legacy generators, which Optuna uses, take seeds of 32 bits.
        seed = derive_seed(self._study_seed, view.number, what) % 2**32
        return RandomSampler(seed) if view.trained < self._startup_trials else self._make(seed)


@dataclass(frozen=True)
class _View:
    """The study in memory that the sampler sees while it draws one trial."""

    number: int
    """Number of the drawn trial."""
    trained: int
    """Trained trials so far, of another study too."""
    study: optuna.Study
    trial: FrozenTrial
    """The drawn trial's substitute in that study."""


def _for_sampler(trial: FrozenTrial, score: float | None, metric: Metric) -> FrozenTrial:
    """A finished trial with scores for the sampler: a pruned one is complete, with its last report as value.

    Optuna's TPE ranks every completed trial above every pruned one. Starting points complete, because nothing
    is pruned before them, so TPE would take the poor ones for the study's best and draw similar ones
    (`benchmarks/LOG.md`). The last report of a pruned trial is a lower bound of its value.
    """
    reached = values_by_epoch(trial) if outcome(trial) == "pruned" else []
    value = score if trial.state == TrialState.COMPLETE else None
    if reached:
        value = metric.score(reached[-1])
    return seen_trial(
        trial.number,
        state=TrialState.PRUNED if value is None else TrialState.COMPLETE,
        value=value,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values={step: metric.score(each) for step, each in trial.intermediate_values.items()},
        user_attrs={NUMBER: trial.number},
        constraints=trial.constraints or None,
    )


def seen_trial(number: int, **fields: Any) -> FrozenTrial:
    """A finished trial as samplers see it, by its number and the arguments of Optuna's `create_trial`."""
    seen = create_trial(**fields)
    seen.number = number
    return seen


class _GivenTrials(InMemoryStorage):
    """A storage with these trials, which nothing changes: to add them would copy and check each."""

    def __init__(self, trials: list[FrozenTrial]) -> None:
        super().__init__()
        self._given = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        del study_id, deepcopy
        return [trial for trial in self._given if states is None or trial.state in states]


def _tpe(seed: int) -> BaseSampler:
    """Optuna's TPE (Bergstra et al., 2011), multivariate within the groups of a conditional search space.

    With Optuna's 24 candidates a draw changes several of the twenty choices that the best trials share. In
    studies of about a hundred trials, draws should stay closer to the best.
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
    """Optuna's grid sampler, for ask-and-tell and for studies that are interrupted.

    Optuna's calls `study.stop` after the last point, which is an error in ask-and-tell, and loses the point
    of a trial whose process crashed. Here a trial takes the first point, in an order shuffled by the seed,
    that no other trial has taken; the point of a trial that ended as FAIL is free again.

    Args:
        grid: parameter -> values.
        study_seed: the study's seed.
    """

    def __init__(self, grid: Grid, study_seed: int) -> None:
        super().__init__(grid, seed=derive_seed(study_seed, GRID_SAMPLER) % 2**32)
        self._grid = {name: list(values) for name, values in sorted(grid.items())}
        self._points = grid_size(grid)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Gives a trial its point, once: an interrupted trial keeps it."""
        if "grid_id" in trial.system_attrs or "fixed_params" in trial.system_attrs:
            return
        # If none is free, the last point again: the trial becomes a duplicate.
        point = min(self._free_points(study), default=self._points - 1)
        set_system_attributes(study, trial, {"search_space": self._grid, "grid_id": point})

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Does nothing: the search asks `is_exhausted`."""

    def is_exhausted(self, study: optuna.Study) -> bool:
        """Whether every point is trained or in training, and no trial is waiting."""
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return not waiting and not self._free_points(study)

    def _free_points(self, study: optuna.Study) -> set[int]:
        trials = own_trials(study)
        taken = {trial.system_attrs.get("grid_id") for trial in trials if trial.state != TrialState.FAIL}
        return set(range(self._points)) - taken


def grid_size(grid: Grid) -> int:
    """Number of points of a grid."""
    return math.prod(len(values) for values in grid.values())


def grid_trials(grid: Grid, starting_points: Iterable[Mapping[str, Any]]) -> int:
    """Number of trials of a whole grid search: its points, and the starting points outside of the grid."""
    points = set(itertools.product(*grid.values()))
    others = [
        point
        for point in starting_points
        if point.keys() != grid.keys() or tuple(point[name] for name in grid) not in points
    ]
    return len(points) + len(others)


def make_sampler(
    name: str,
    study_seed: int,
    grid: Grid | None = None,
    metric: Metric = ACCURACY,
    known: Sequence[FrozenTrial] = (),
) -> BaseSampler:
    """The sampler of `--sampler`: local, tpe, random or grid.

    Args:
        name: the sampler's name.
        study_seed: the study's seed.
        grid: the study definition's grid, if it has one.
        metric: what the study's values are.
        known: see `SeededSampler`.

    Raises:
        UsageError: there is no such sampler, or no grid for it.
    """
    makers: dict[str, Callable[[int], BaseSampler]] = {
        "local": LocalSampler if metric.is_share else partial(LocalSampler, shares=False),
        "tpe": _tpe,
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
    return SeededSampler(makers[name], study_seed, STARTUP[name], name == "local", metric, known)
