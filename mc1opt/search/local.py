"""A sampler that makes few changes at a time to the best configs known.

Near a good config most changes are worth less than a point, and a draw that changes ten parameters at once
loses all of them. So, after some random draws, a draw takes one of the best trials and changes one to four
of its parameters: of many such proposals, the one with the greatest expected improvement under a model of the
trained trials. Local search with few changes is ahead of TPE on spaces like these (White, Nolen and Savani,
2020, "Local Search is State of the Art for Neural Architecture Search Benchmarks"); a model chooses among
neighbours of the best in SMAC (Hutter, Hoos and Leyton-Brown, 2011) and BANANAS (White, Neiswanger and
Savani, 2021), too.

A search space may be conditional: a parameter that only one of two trials has counts as half a change, and a
parameter that a proposal lacks is taken from the best trial that has it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from mc1opt.database.trial import contains
from mc1opt.text import plural

GLOBAL_SHARE = 0.08
"""Share of the draws that cover the whole search space, whatever is known."""
PARENTS = 5
"""Best trials whose neighbours are proposed."""
PROPOSALS = 300
"""Neighbours among which the model chooses."""
MOST_CHANGES = 4
"""Parameters in which a neighbour differs, at most."""
STEP = 0.2
"""Standard deviation of a small change of a number, as a share of its range."""
MOST_KNOWN = 500
"""Complete trials that the model takes, half of them the best, half the latest: its time grows with the cube
of their number."""
SCALES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Distances, in changed parameters, over which values are alike: the likeliest one is taken."""
NOISES = (0.003, 0.03, 0.3)
"""Variances of the noise as a share of that of the values, likewise."""

SLOPE_WEIGHT = 0.2
"""How firmly a slope of 1 is believed in: as if trials of this sum of squares, in logits, had it."""
PRUNED_DOUBT = 4.0
"""How much greater the variance of the noise is where a value is expected from an earlier epoch's."""

NUMBER = "number"
"""Of a finished trial, as a user attribute: its number in the study, of which a sampler sees a part."""
STUDY = "study"
"""Of a trial of another study, likewise: the name of that study."""
PROPOSED = "proposed"
"""Of a trial that is drawn: whether its parameters come from a proposal."""

Values = dict[str, Any]
Array = NDArray[np.float64]


class LocalSampler(BaseSampler):
    """See the module.

    Args:
        seed: of all draws for one trial.
        shares: whether values lie between 0 and 1, 1 being the best.
    """

    def __init__(self, seed: int, shares: bool = True) -> None:
        self._shares = shares
        self._generator = np.random.default_rng(seed)
        self._proposal: Values = {}
        self._distributions: dict[str, BaseDistribution] = {}
        self.parent: FrozenTrial | None = None
        """The trial whose neighbour was drawn last; None for a draw from the whole space."""

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The distributions of the proposal; none for a draw that covers the whole space."""
        self.parent = parent = self._propose(_complete(study))
        trial.system_attrs[PROPOSED] = parent is not None
        return {} if parent is None else {name: self._distributions[name] for name in self._proposal}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The proposal."""
        del study, trial, search_space
        return self._proposal

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A parameter that the proposal lacks: as the best trial has it, else at random."""
        if trial.system_attrs.get(PROPOSED):
            known = [each for each in _complete(study) if param_name in each.params]
            for each in sorted(known, key=lambda each: -(each.value or 0.0)):
                if contains(param_distribution, each.params[param_name]):
                    return each.params[param_name]
        return value_at(param_distribution, float(self._generator.random()))

    def _propose(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """Chooses a proposal; returns the trial whose neighbour it is."""
        if len(trials) < 2 or self._generator.random() < GLOBAL_SHARE:
            return None
        model = self._model(trials)
        ranked = [trials[i] for i in np.argsort(-model.means([trial.params for trial in trials]))]
        self._distributions = {
            name: each for trial in reversed(ranked) for name, each in trial.distributions.items()
        }
        proposals = [self._neighbour(ranked) for _ in range(PROPOSALS)]
        new = [
            one
            for one, known in zip(proposals, model.knows([v for v, _ in proposals]), strict=True)
            if not known
        ]
        if not new:  # all around the best ones is trained
            return None
        self._proposal, parent = new[model.most_promising([values for values, _ in new])]
        return parent

    def _model(self, trials: Sequence[FrozenTrial]) -> "Model":
        return Model(trials, self._shares)

    def _neighbour(self, ranked: Sequence[FrozenTrial]) -> tuple[Values, FrozenTrial]:
        parent = ranked[min(int(self._generator.exponential(1.5)), PARENTS - 1, len(ranked) - 1)]
        values = dict(parent.params)
        count = min(self._changes(len(values)), len(values))
        names = [str(name) for name in self._generator.choice(sorted(values), count, replace=False)]
        for name in names:
            values[name] = self._changed(parent.distributions[name], values[name])
        for name in names:
            if name in values and not isinstance(parent.distributions[name], FloatDistribution):
                _follow(values, name, ranked)
        return values, parent

    def _changes(self, _parameters: int) -> int:
        """How many of so many parameters are changed."""
        return int(self._generator.integers(1, MOST_CHANGES + 1))

    def _changed(self, distribution: BaseDistribution, value: Any) -> Any:
        if isinstance(distribution, CategoricalDistribution):
            others = [choice for choice in distribution.choices if choice != value]
            return others[int(self._generator.integers(len(others)))] if others else value
        place = float(self._generator.random())
        if self._generator.random() < 0.5:  # what lies beyond a bound is the bound: the best may lie there
            place = place_of(distribution, value) + float(self._generator.normal(0.0, STEP))
        return value_at(distribution, min(max(place, 0.0), 1.0))


def _follow(values: Values, name: str, ranked: Sequence[FrozenTrial]) -> None:
    """Drops the parameters that no trial with this choice has, and takes those that all have, of the best.

    For the model, what the search space will not ask for is no difference.
    """
    alike = [trial for trial in ranked if name in trial.params and trial.params[name] == values[name]]
    if not alike:
        return
    for other in values.keys() - set().union(*(trial.params for trial in alike)):
        del values[other]
    for other in set(alike[0].params).intersection(*(trial.params for trial in alike)) - values.keys():
        values[other] = alike[0].params[other]


def describe_changes(params: Mapping[str, Any], parent: FrozenTrial) -> str:
    """Where a trial's parameters differ from those of the trial whose neighbour it is."""
    before, both = parent.params, parent.params.keys() & params.keys()
    names = sorted(name for name in both if before[name] != params[name])
    changes = ", ".join(f"{name} {_shown(before[name])} -> {_shown(params[name])}" for name in names)
    only_one = len(before.keys() ^ params.keys())
    others = f"; {plural(only_one, 'parameter')} that only one of them has" if only_one else ""
    study = parent.user_attrs.get(STUDY)
    number = f"#{parent.user_attrs.get(NUMBER, parent.number)}" + (f" of {study}" if study else "")
    return f"{plural(len(names), 'change')} from {number}: {changes}{others}"


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _complete(study: optuna.Study) -> list[FrozenTrial]:
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(trials) <= MOST_KNOWN:
        return trials
    order = sorted(range(len(trials)), key=lambda i: (-(trials[i].value or 0.0), i))
    kept = sorted({*order[: MOST_KNOWN // 2], *range(len(trials) - MOST_KNOWN // 2, len(trials))})
    return [trials[i] for i in kept]


class Model:
    """A Gaussian process of values by parameters, with the kernel exp(-distance / scale).

    Args:
        trials: complete ones, at least 2. The larger a value, the better.
        shares: whether values lie between 0 and 1; then they are taken as logits, else see `evenly`.
    """

    def __init__(self, trials: Sequence[FrozenTrial], shares: bool = True) -> None:
        self._encoding = Encoding(trials)
        self._known = self._encoding.of([trial.params for trial in trials])
        logits, doubt = expected_logits(trials, shares)
        targets = (logits - logits.mean()) / (logits.std() or 1.0)
        distances = self._encoding.distances(self._known, self._known)
        likeliest = -math.inf
        for scale in SCALES:
            kernel = np.exp(-distances / scale)
            for noise in NOISES:
                factor = np.linalg.cholesky(kernel + noise * np.diag(doubt))
                weights = np.linalg.solve(factor.T, np.linalg.solve(factor, targets))
                likelihood = float(-0.5 * targets @ weights - np.log(np.diag(factor)).sum())
                if likelihood > likeliest:
                    likeliest = likelihood
                    self._scale, self._factor, self._weights = scale, factor, weights
        self._best = float(np.max(np.exp(-distances / self._scale) @ self._weights))

    def means(self, parameters: Sequence[Values]) -> Array:
        """What is expected, with the noise of single trainings smoothed out, in units of no meaning."""
        mean: Array = self._kernel(parameters) @ self._weights
        return mean

    def knows(self, parameters: Sequence[Values]) -> NDArray[np.bool_]:
        """Which of these are those of a known trial."""
        found: NDArray[np.bool_] = self._distances(parameters).min(1) == 0.0
        return found

    def most_promising(self, parameters: Sequence[Values]) -> int:
        """The index of those with the greatest expected improvement on the best (Jones et al., 1998)."""
        kernel = self._kernel(parameters)
        explained = (np.linalg.solve(self._factor, kernel.T) ** 2).sum(0)
        deviations = np.sqrt(np.clip(1.0 - explained, 1e-9, None))
        z = (kernel @ self._weights - self._best) / deviations
        below = 0.5 * (1.0 + np.array([math.erf(each / math.sqrt(2.0)) for each in z]))
        density = np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
        return int(np.argmax(deviations * (z * below + density)))

    def _kernel(self, parameters: Sequence[Values]) -> Array:
        kernel: Array = np.exp(-self._distances(parameters) / self._scale)
        return kernel

    def _distances(self, parameters: Sequence[Values]) -> Array:
        return self._encoding.distances(self._encoding.of(parameters), self._known)


def expected_logits(trials: Sequence[FrozenTrial], shares: bool = True) -> tuple[Array, Array]:
    """What the values of trials are, as logits or as `evenly` has them; of pruned ones, what they would have
    become.

    Of each pruned trial the last report is known, and of all whole ones the reports of the same epoch: a line
    through these, with a slope near 1 where they are few.

    Returns:
        The logits, and how much greater than that of whole trials the variance of each one's noise is.
    """
    told = np.array([trial.value for trial in trials], dtype=float)
    doubt = np.ones(len(trials))
    last = max(trial.last_step or 0 for trial in trials)
    whole = told[[(trial.last_step or 0) == last for trial in trials]]
    values = logit(told) if shares else evenly(told, whole)
    for step in sorted({trial.last_step or 0 for trial in trials} - {last}):
        pairs = [
            (trial.intermediate_values[step], trial.value)
            for trial in trials
            if trial.last_step == last and step in trial.intermediate_values
        ]
        both = np.array(pairs, dtype=float).reshape(-1, 2)
        if not len(both):
            continue
        early, late = logit(both).T if shares else (evenly(both[:, 0]), evenly(both[:, 1], whole))
        apart = early - early.mean()
        slope = (SLOPE_WEIGHT + apart @ (late - late.mean())) / (SLOPE_WEIGHT + apart @ apart)
        here = np.array([trial.last_step == step for trial in trials])
        reached = values[here] if shares else evenly(told[here], both[:, 0])
        values[here] = late.mean() + slope * (reached - early.mean())
        doubt[here] = PRUNED_DOUBT
    return values, doubt


def logit(share: Array) -> Array:
    """On this scale accuracies spread evenly."""
    share = np.clip(share, 1e-3, 1.0 - 1e-3)
    return np.log(share / (1.0 - share))


def evenly(values: Array, among: Array | None = None) -> Array:
    """Values of any scale as distances from the median of `among` (of themselves), in its usual deviations.

    Far from it only their logarithm counts: one config with a loss of 50 must not make all others alike.
    """
    among = values if among is None else among
    median = np.median(among)
    deviation = np.median(np.abs(among - median)) or among.std() or 1.0
    spread: Array = np.arcsinh((values - median) / deviation)
    return spread


class Encoding:
    """Parameters as rows of numbers: a place from 0 to 1, the index of a choice, NaN where there is none."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        found = {name: each for trial in trials for name, each in trial.distributions.items()}
        # A sum depends on its order in the last bit, and a database gives parameters in any order.
        self._distributions: dict[str, BaseDistribution] = dict(sorted(found.items()))
        self._is_choice = np.array(
            [isinstance(each, CategoricalDistribution) for each in self._distributions.values()]
        )

    def of(self, parameters: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """One row for each set of parameters, one column for each name."""
        rows = np.full((len(parameters), len(self._distributions)), np.nan)
        for row, values in zip(rows, parameters, strict=True):
            for column, (name, distribution) in enumerate(self._distributions.items()):
                if name in values:
                    row[column] = (
                        distribution.to_internal_repr(values[name])
                        if isinstance(distribution, CategoricalDistribution)
                        else place_of(distribution, values[name])
                    )
        return rows

    def distances(self, ones: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over all names of how far two values are apart, from 0 to 1."""
        apart = np.abs(ones[:, None] - others[None])
        apart[..., self._is_choice] = apart[..., self._is_choice] > 0.5
        only_one = np.isnan(ones)[:, None] != np.isnan(others)[None]
        neither = np.isnan(ones)[:, None] & np.isnan(others)[None]
        apart[only_one] = 0.5  # less than another choice: the condition itself counts already
        apart[neither] = 0.0
        total: Array = apart.sum(-1)
        return total


def place_of(distribution: Any, value: float) -> float:
    """Where a number lies in its range, from 0 to 1, on the scale on which it is drawn."""
    low, high = distribution.low, distribution.high
    if high == low:
        return 0.0
    share = math.log(value / low) / math.log(high / low) if distribution.log else (value - low) / (high - low)
    return float(share)


def value_at(distribution: Any, place: float) -> Any:
    """The value at a place from 0 to 1; `place_of` gives it back, but for steps."""
    if isinstance(distribution, CategoricalDistribution):
        choices = distribution.choices
        return choices[min(int(place * len(choices)), len(choices) - 1)]
    low, high, step = distribution.low, distribution.high, distribution.step
    value = low * (high / low) ** place if distribution.log else low + (high - low) * place
    if step is not None:
        value = low + round((value - low) / step) * step
    value = min(max(value, low), high)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)
