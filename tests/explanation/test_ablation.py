"""The path from one config to another: what is taken, what stops early, and how much is trained."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mc1opt.config import MLP, Config, LinearLayer, config_id
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.explanation.ablation import LEVEL, Ablation, Wanted
from mc1opt.explanation.groups import Differences
from mc1opt.metric import ACCURACY, Metric, known_metric
from mc1opt.presets import PRESETS

LAYER = {"norm": "batch", "dropout": 0.1}
BETWEEN = Differences(
    PRESETS["mlp-128-64"].config,
    PRESETS["mlp-128-64"]
    .with_recipe("mc1opt")
    .model_copy(update={"architecture": MLP(layers=(LinearLayer(width=256, **LAYER),) * 3)}),
    CIFAR10_SHAPE,
)
GROUPS = BETWEEN.groups
SUBSETS = {
    config_id(config): groups
    for size in range(len(GROUPS) + 1)
    for groups in itertools.combinations(GROUPS, size)
    if (config := BETWEEN.config(set(groups))) is not None
}
"""Which groups are applied, by config id."""
GAINS = {group: 0.02 * (index + 1) for index, group in enumerate(GROUPS)}
NOISE = 0.001


class Trainings:
    """Values that are a sum over groups with noise, and how often each was asked for."""

    def __init__(
        self,
        gains: dict[str, float] = GAINS,
        noise: float = NOISE,
        fails: Callable[[Wanted], bool] | None = None,
    ) -> None:
        self.gains, self.noise, self.fails = gains, noise, fails or (lambda _wanted: False)
        self.asked: Counter[tuple[str, int]] = Counter()
        self.most: list[int] = []

    def __call__(self, wanted: Sequence[Wanted], later: int) -> list[float | None]:
        self.most.append(self.asked.total() + len(wanted) + later)
        self.asked.update((config_id(config), seed) for _, config, seed in wanted)
        return [None if self.fails(each) else self.value(each[1], each[2]) for each in wanted]

    def value(self, config: Config, seed: int) -> float:
        """Of a training."""
        key = config_id(config)
        draw = np.random.default_rng([int(key, 16), seed]).normal(0.0, self.noise)
        return 0.2 + sum(self.gains[group] for group in SUBSETS[key]) + float(draw)


def ablation(measure: Trainings, seeds: int = 3, metric: Metric = ACCURACY) -> Ablation:
    """After its run."""
    found = Ablation(BETWEEN, seeds, metric, 0.0, measure)
    found.run()
    return found


def path_of(found: Ablation) -> list[str]:
    return [taken.name for taken in found.path[1:]]


# ---- The path --------------------------------------------------------------------------------------------


def test_the_group_that_gains_most_is_taken_first() -> None:
    found = ablation(Trainings())
    assert found.path[0].config == BETWEEN.source
    assert found.path[-1].config == BETWEEN.target
    assert path_of(found) == list(reversed(GROUPS))
    assert GROUPS == ("depth", "widths", "dropout", "norm and activation", "optimizer", "recipe")


def test_of_a_metric_to_minimise_the_lowest_is_taken() -> None:
    down = ablation(
        Trainings({group: -gain for group, gain in GAINS.items()}), metric=known_metric("log_loss")
    )
    assert path_of(down) == path_of(ablation(Trainings()))


def test_means_differences_and_intervals_are_those_of_the_values() -> None:
    measure = Trainings()
    found = ablation(measure)
    source, target = BETWEEN.source, BETWEEN.target
    means = [np.mean([measure.value(config, seed) for seed in range(3)]) for config in (source, target)]
    assert found.mean(source) == pytest.approx(means[0])
    assert found.difference(target, source) == pytest.approx(means[1] - means[0])
    groups = [list(values.values()) for values in found.values.values() if len(values) > 1]
    degrees = sum(len(group) - 1 for group in groups)
    variance = sum(np.var(group) * len(group) for group in groups) / degrees
    half = stats.t.ppf(0.975, degrees) * math.sqrt(variance * 2 / 3)
    low, high = found.interval(found.difference(target, source), target, source) or (0.0, 0.0)
    assert (high - low) / 2 == pytest.approx(half, rel=1e-3)


def test_a_config_that_collapses_has_no_interval_and_leaves_the_others_theirs() -> None:
    found = ablation(Trainings())
    found.run()
    source, target = BETWEEN.source, BETWEEN.target
    before = found.interval(0.5, target)
    found.values[config_id(source)][0] = 0.1
    assert found.is_unstable(source)
    assert not found.is_unstable(target)
    assert found.interval(0.5, source) is None
    assert found.interval(0.5, target, source) is None
    assert before is not None
    assert found.interval(0.5, target) == pytest.approx(before, abs=NOISE)


def test_with_one_seed_there_are_values_without_intervals() -> None:
    measure = Trainings()
    found = ablation(measure, seeds=1)
    assert found.path[-1].config == BETWEEN.target
    assert found.interval(0.5, BETWEEN.target) is None
    assert set(measure.asked.values()) == {1}


# ---- What can be left out --------------------------------------------------------------------------------


def test_the_target_without_each_group_is_trained_over_all_seeds() -> None:
    found = ablation(Trainings())
    assert BETWEEN.without.keys() == set(GROUPS)
    for group, config in BETWEEN.without.items():
        assert len(found.known(config)) == 3
        assert found.difference(config, BETWEEN.target) == pytest.approx(-GAINS[group], abs=0.01)


# ---- The race --------------------------------------------------------------------------------------------


def test_clearly_worse_groups_train_fewer_seeds_and_the_best_all_of_them() -> None:
    measure = Trainings()
    found = ablation(measure, seeds=5)
    for taken in found.path:
        assert len(found.known(taken.config)) == 5
    dropped = [config for taken in found.path for config in taken.others.values()]
    assert min(len(found.known(config)) for config in dropped) == 1
    assert measure.asked.total() < 0.6 * measure.most[0]


@pytest.mark.parametrize("noise", [0.0, 0.001, 0.01, 0.1])
def test_the_best_of_those_that_are_left_at_the_end_is_taken(noise: float) -> None:
    found = ablation(Trainings(noise=noise), seeds=4)
    for taken in found.path[1:]:
        rivals = [config for config in taken.others.values() if len(found.known(config)) == 4]
        assert all(found.known(taken.config)[3:]), taken.name
        assert all((found.difference(config, taken.config) or 0.0) <= 1e-12 for config in rivals)


def test_equal_groups_stop_early_no_more_often_than_the_level_says() -> None:
    """In the first step, the noise being that of the step alone."""
    configs = {group: config for group in GROUPS if (config := BETWEEN.config({group})) is not None}
    steps, alarms = 150, 0
    generator = np.random.default_rng(1)
    for _ in range(steps):
        values = generator.normal(0.5, 0.01, (len(configs), 4))
        rows = {config_id(config): row for config, row in zip(configs.values(), values, strict=True)}

        def measure(wanted: Sequence[Wanted], _later: int, rows: Any = rows) -> list[float | None]:
            return [rows[config_id(config)][seed] for _, config, seed in wanted]

        race = Ablation(BETWEEN, 4, ACCURACY, 0.0, measure)
        race._race(dict(configs), len(GROUPS))
        alarms += any(len(race.known(config)) < 4 for config in configs.values())
    assert alarms / steps <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / steps)


# ---- Failures --------------------------------------------------------------------------------------------


def test_a_group_whose_training_fails_is_out_while_another_one_does_not() -> None:
    first = BETWEEN.config({"recipe"})
    measure = Trainings(fails=lambda wanted: wanted[1] == first and wanted[2] == 1)
    found = ablation(measure)
    assert path_of(found)[0] == "optimizer"
    assert path_of(found)[1] == "recipe"
    assert found.failures(first) == 1


def test_a_group_that_has_failed_trains_no_further_seeds_while_others_race() -> None:
    first = BETWEEN.config({"recipe"})
    assert first is not None
    measure = Trainings(noise=0.01, fails=lambda wanted: wanted[1] == first and wanted[2] == 1)
    ablation(measure, seeds=4)
    asked = [seed for key, seed in measure.asked if key == config_id(first)]
    assert asked == [0, 1]


def test_where_all_fail_the_path_goes_on_to_the_target() -> None:
    found = ablation(Trainings(fails=lambda _wanted: True))
    assert found.path[-1].config == BETWEEN.target
    assert found.mean(BETWEEN.target) is None
    assert found.difference(BETWEEN.target, BETWEEN.source) is None
    assert found.interval(None, BETWEEN.target) is None


# ---- How much is trained ---------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.001, 0.3])
def test_no_training_is_asked_for_twice_and_not_more_than_was_said(noise: float) -> None:
    measure = Trainings(noise=noise)
    ablation(measure)
    assert set(measure.asked.values()) == {1}
    assert measure.asked.total() <= measure.most[-1]
    assert measure.most == sorted(measure.most, reverse=True)


def test_what_is_said_first_is_what_an_ablation_without_a_race_trains() -> None:
    """Both ends, k + ... + 3 on the path, and k without a group: the last two steps have no others."""
    measure = Trainings()
    ablation(measure)
    assert measure.most[0] == 3 * (2 + (6 + 5 + 4 + 3) + 6)


def test_with_one_difference_both_ends_are_all() -> None:
    source = PRESETS["mlp-128-64"].config
    between = Differences(source, source.model_copy(update={"batch_size": 10}), CIFAR10_SHAPE)
    asked: list[list[Wanted]] = []

    def measure(wanted: Sequence[Wanted], later: int) -> list[float | None]:
        asked.append([*wanted, *[("later", source, 0)] * later])
        return [0.5] * len(wanted)

    found = Ablation(between, 2, ACCURACY, 0.0, measure)
    found.run()
    assert [(name, seed) for name, _, seed in asked[0]] == [
        ("source", 0),
        ("target", 0),
        ("source", 1),
        ("target", 1),
    ]
    assert len(asked) == 1
    assert path_of(found) == ["optimizer"]
