"""Seed noise, compared with SciPy's t distribution and with a simulation."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from mc1opt.noise import not_told_apart, seed_noise, t_quantile


@pytest.mark.parametrize("degrees", [*range(1, 61), 100, 1000])
def test_the_quantile_is_that_of_students_t_distribution(degrees: int) -> None:
    assert t_quantile(degrees) == pytest.approx(scipy.stats.t.ppf(0.975, degrees), abs=6e-4)


@pytest.mark.parametrize("degrees", [0, -1])
def test_a_t_distribution_without_a_degree_of_freedom_is_refused(degrees: int) -> None:
    with pytest.raises(ValueError, match=f"not {degrees}"):
        t_quantile(degrees)


def test_the_noise_is_fishers_least_significant_difference() -> None:
    values = {4: [0.61, 0.64, 0.60], 7: [0.55, 0.58], 9: [0.50, 0.56, 0.51, 0.52]}
    degrees = 2 + 1 + 3
    squares = sum(np.var(group) * len(group) for group in values.values())
    trainings = 3 / (1 / 3 + 1 / 2 + 1 / 4)  # the harmonic mean
    expected = scipy.stats.t.ppf(0.975, degrees) * math.sqrt(squares / degrees * 2 / trainings)
    assert seed_noise(values) == pytest.approx(expected, rel=1e-3)


def test_for_two_configs_it_decides_as_the_t_test() -> None:
    generator = np.random.default_rng(5)
    decisions = set()
    for shift in np.linspace(0, 0.05, 40):
        first, second = generator.normal(0.6, 0.01, 3), generator.normal(0.6 + shift, 0.01, 3)
        p = scipy.stats.ttest_ind(first, second).pvalue
        if abs(p - 0.05) > 1e-3:  # the table has three decimals
            told_apart = len(not_told_apart({0: list(first), 1: list(second)})) == 1
            assert told_apart == (p < 0.05)
            decisions.add(told_apart)
    assert decisions == {True, False}


@pytest.mark.parametrize("trainings", [2, 3, 5])
def test_equal_configs_are_told_apart_in_one_of_twenty_cases(trainings: int) -> None:
    generator = np.random.default_rng(trainings)
    draws = 4000
    groups = generator.normal(0.7, 0.005, (draws, 2, trainings)).tolist()
    alarms = sum(len(not_told_apart({0: first, 1: second})) == 1 for first, second in groups)
    assert alarms / draws == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / draws))


def test_without_a_second_training_there_is_no_noise_and_nothing_is_told_apart() -> None:
    assert seed_noise({}) is None
    assert seed_noise({1: [0.5], 2: [0.9]}) is None
    assert not_told_apart({1: [0.5], 2: [0.9], 3: []}) == [2, 1]


def test_the_best_comes_first_and_only_configs_within_noise_follow() -> None:
    values = {1: [0.50, 0.52], 2: [0.70, 0.72], 3: [0.71, 0.69]}
    assert not_told_apart(values) == [2, 3]


def test_a_config_with_one_training_is_judged_by_the_noise_of_one() -> None:
    values = {0: [0.700, 0.710], 1: [0.700, 0.710], 2: [0.666], 3: [0.666, 0.666]}
    pooled = scipy.stats.t.ppf(0.975, 3) * math.sqrt(2 * 0.00005 / 3)
    apart = 0.705 - pooled * math.sqrt(1.5)
    assert not_told_apart(values | {2: [apart + 0.001]}) == [0, 1, 2]
    assert not_told_apart(values | {2: [apart - 0.001]}) == [0, 1]


def test_the_order_of_the_configs_does_not_matter() -> None:
    values = {1: [0.50, 0.52, 0.55], 2: [0.70, 0.72], 3: [0.71, 0.69]}
    for order in itertools.permutations(values):
        shuffled = {number: values[number] for number in order}
        assert seed_noise(shuffled) == pytest.approx(seed_noise(values))
        assert not_told_apart(shuffled) == [2, 3]
