"""The model of recorded learning curves on which `benchmarks/replay.py` replays searches."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import GroupKFold

from benchmarks.curves import BEST_START, DEFINITION, EPOCHS
from mc1opt.config import Config
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.models.cost import cost
from mc1opt.search.local import Encoding, logit

TREES = 100
SCHEDULES = LONG, SHORT = EPOCHS[0], EPOCHS[-1]
"""Epochs of both."""


def share_of(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """What `logit` is the logit of."""
    share: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-value))
    return share


class Surrogate:
    """Accuracies after each epoch of the long and of the short schedule, by parameters.

    Args:
        lines: of the file of results. Of a config that was pruned after its short schedule, those of the long
            one are what lines through the others give; one without the short schedule is left out.
    """

    COLUMNS = tuple((epochs, epoch) for epochs in SCHEDULES for epoch in range(epochs))

    def __init__(self, lines: Sequence[dict[str, Any]]) -> None:
        groups: dict[tuple[str, int], dict[int, dict[str, Any]]] = {}
        for line in lines:
            groups.setdefault((line["config_id"], line["seed"]), {})[line["epochs"]] = line
        found = {key: group for key, group in groups.items() if SHORT in group}
        self.names = [name for name, _ in found]
        self.whole = np.array([LONG in group for group in found.values()])
        # Most lines are from before the search space had these.
        base = DEFINITION.starting_points[BEST_START]
        before = {name: base[name] for name in ("logit_scale", "identity_initialisation", "weight_averaging")}
        self.params = [before | group[SHORT]["params"] for group in found.values()]
        self.macs = np.array([group[SHORT]["macs"] for group in found.values()], dtype=float)
        self.values = np.array(
            [[_value(group.get(e), i) for e, i in self.COLUMNS] for group in found.values()]
        )
        short = logit(self.values[:, self.COLUMNS.index((SHORT, SHORT - 1))])
        for column in range(LONG):
            line = np.polyfit(short[self.whole], logit(self.values[self.whole, column]), 1)
            self.values[~self.whole, column] = share_of(np.polyval(line, short[~self.whole]))
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(200):
            DEFINITION.search_space(study.ask(), DEFINITION.data)
        self._encoding = Encoding(study.get_trials(deepcopy=False))
        self.features = self._features(self.params, self.macs)
        self._trees = self._fit(np.arange(len(self.params)))
        self.seed_noise = self._seed_noise()
        self.epoch_seconds = self._epoch_seconds(
            [line for group in found.values() for line in group.values()]
        )

    def curve(self, params: dict[str, Any], config: Config, epochs: int) -> NDArray[np.float64]:
        """The expected accuracy after each epoch of a schedule of so many epochs, without noise."""
        features = self._features(
            [params], np.array([cost(config.architecture, CIFAR10_SHAPE).macs], dtype=float)
        )
        predicted = share_of(self._trees.predict(features)[0])
        return np.array([predicted[i] for i, (whole, _) in enumerate(self.COLUMNS) if whole == epochs])

    def errors(self, folds: int = 10) -> list[tuple[float, float]]:
        """True and predicted accuracy at the end of the longest schedule, of configs that are left out."""
        last = self.COLUMNS.index((LONG, LONG - 1))
        pairs = []
        splits = GroupKFold(min(folds, len(set(self.names)))).split(self.features, groups=self.names)
        for train, test in splits:
            measured = test[self.whole[test]]
            if len(measured):
                predicted = share_of(self._fit(train).predict(self.features[measured])[:, last])
                pairs += list(zip(self.values[measured, last], predicted, strict=True))
        return [(float(a), float(b)) for a, b in pairs]

    def _features(self, params: Sequence[dict[str, Any]], macs: NDArray[np.float64]) -> NDArray[np.float64]:
        encoded = np.nan_to_num(self._encoding.of(params), nan=-1.0)
        derived = [
            [
                math.log10(each.get("sgd_learning_rate") or each.get("adam_learning_rate") or 1.0)
                - math.log10(1.0 - each.get("sgd_momentum", 0.0)),
                math.log10(each["batch_size"]),
            ]
            for each in params
        ]
        return np.column_stack([encoded, np.array(derived), np.log10(macs)])

    def _fit(self, chosen: NDArray[np.int64]) -> ExtraTreesRegressor:
        trees = ExtraTreesRegressor(TREES, min_samples_leaf=1, max_features=0.5, random_state=0, n_jobs=1)
        return trees.fit(self.features[chosen], logit(self.values[chosen]))

    def _seed_noise(self) -> float:
        """The standard deviation of the final accuracy over seeds, without that of 5,000 images."""
        last = self.COLUMNS.index((LONG, LONG - 1))
        groups: dict[str, list[float]] = {}
        for name, value, whole in zip(self.names, self.values[:, last], self.whole, strict=True):
            if whole:
                groups.setdefault(name, []).append(value)
        variances = [statistics.variance(group) for group in groups.values() if len(group) > 1]
        if not variances:
            return 0.003
        return math.sqrt(max(statistics.median(variances) - 0.2 * 0.8 / 5_000, 0.001**2))

    def _epoch_seconds(self, lines: Sequence[dict[str, Any]]) -> Callable[[float], float]:
        """By multiply-accumulates: a constant and a share, from the least disturbed half of the lines."""
        macs = np.array([line["macs"] for line in lines], dtype=float)
        seconds = np.array([min(line["epoch_seconds"]) for line in lines])
        slope = float(np.median(seconds / (macs + 2e6)))
        calm = seconds <= slope * (macs + 2e6)
        slope = float(np.median(seconds[calm] / (macs[calm] + 2e6)))
        return lambda each: slope * (each + 2e6)


def _value(line: dict[str, Any] | None, epoch: int) -> float:
    values = [] if line is None else line["values_by_epoch"]
    return float(values[epoch]) if epoch < len(values) else 0.1  # diverged: as good as chance
