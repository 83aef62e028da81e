"""Ways to search that mc1opt does not have, as samplers, to be replayed beside its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial
from sklearn.ensemble import RandomForestRegressor

from mc1opt.search.local import NUMBER, LocalSampler, Model, expected_logits


class Forest(Model):
    """SMAC's model (Hutter, Hoos and Leyton-Brown, 2011): a forest, and how far its trees are apart."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__(trials)
        logits, _ = expected_logits(trials)
        self._trees = RandomForestRegressor(50, max_features=0.8, min_samples_leaf=2, random_state=0)
        self._trees.fit(np.nan_to_num(self._known, nan=-1.0), logits)

    def _each(self, parameters: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
        rows = np.nan_to_num(self._encoding.of(parameters), nan=-1.0)
        return np.array([tree.predict(rows) for tree in self._trees.estimators_])

    def means(self, parameters: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
        """See `Model`."""
        means: NDArray[np.float64] = self._each(parameters).mean(0)
        return means

    def most_promising(self, parameters: Sequence[dict[str, Any]]) -> int:
        """By upper confidence bound."""
        each = self._each(parameters)
        return int(np.argmax(each.mean(0) + each.std(0)))


class _First(Model):
    """Takes the first proposal: no model."""

    def most_promising(self, parameters: Sequence[dict[str, Any]]) -> int:
        """See `Model`."""
        del parameters
        return 0


class LocalSearch(LocalSampler):
    """One change to one of the best, at random (White, Nolen and Savani, 2020)."""

    def _model(self, trials: Sequence[FrozenTrial]) -> Model:
        return _First(trials)

    def _changes(self, _parameters: int) -> int:
        return 1


class Smac(LocalSearch):
    """The one-exchange neighbourhood of the best, by a forest."""

    def _model(self, trials: Sequence[FrozenTrial]) -> Model:
        return Forest(trials)


class Incumbent(LocalSearch):
    """PriorBand's rule (Mallik et al., 2023): a draw around the best changes half of all parameters."""

    def _changes(self, parameters: int) -> int:
        return parameters // 2


class Evolution(LocalSearch):
    """Regularised evolution (Real et al., 2019): one change to the best of ten of the latest trials."""

    def _neighbour(self, ranked: Sequence[FrozenTrial]) -> tuple[dict[str, Any], FrozenTrial]:
        latest = sorted(ranked, key=lambda trial: trial.user_attrs[NUMBER])[-30:]
        chosen = self._generator.choice(len(latest), min(10, len(latest)), replace=False)
        return super()._neighbour([max((latest[i] for i in chosen), key=lambda trial: trial.value or 0.0)])
