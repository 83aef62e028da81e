"""Intervals and paired tests against scipy's."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from scipy import stats

from mc1opt.uncertainty import (
    binomial_difference,
    indistinguishable,
    paired_test,
    pooled_noise,
    rank_correlation,
    seed_noise,
    spread,
    stable,
    t_above,
    t_quantile,
)

GENERATOR = np.random.default_rng(1)
SAMPLES = [list(0.8 + 0.01 * GENERATOR.standard_normal(n)) for n in (2, 3, 5, 10, 40)]


@pytest.mark.parametrize("values", SAMPLES, ids=len)
def test_the_interval_is_that_of_students_t_distribution(values: list[float]) -> None:
    result = spread(values)
    assert (result.n, result.mean) == (len(values), pytest.approx(np.mean(values)))
    assert result.std == pytest.approx(np.std(values, ddof=1))
    expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    # The quantile is from a table of four digits.
    width = expected[1] - expected[0]
    assert result.interval == pytest.approx(expected, abs=width * 1e-3)


def test_one_value_has_no_spread_and_says_so() -> None:
    result = spread([0.5])
    assert result.to_json() == {"n": 1, "mean": 0.5, "std": None, "interval": None}
    assert "one training" in result.line()


def test_the_line_says_the_interval_and_how_many_values_it_rests_on() -> None:
    assert spread([0.5, 0.6]).line() == (
        "0.5500, standard deviation 0.0707, 95 % interval -0.0853 to 1.1853 (n = 2)"
    )


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 30])
def test_the_tail_of_students_t_distribution(degrees: int) -> None:
    values = [-12.0, -1.0, 0.0, 0.5, 2.92, 6.31, 60.0]
    assert [t_above(t, degrees) for t in values] == pytest.approx(stats.t.sf(values, degrees), abs=1e-12)


@pytest.mark.parametrize("first", SAMPLES, ids=len)
def test_the_paired_test_is_scipys(first: list[float]) -> None:
    noise = GENERATOR.normal(size=len(first))
    second = list(np.array(first) - 0.004 + 0.005 * noise)
    result = paired_test(first, second)
    expected = stats.ttest_rel(first, second)
    assert result.n == len(first)
    assert result.t == pytest.approx(expected.statistic)
    assert result.p == pytest.approx(expected.pvalue)
    assert result.difference == pytest.approx(np.mean(first) - np.mean(second))
    corrected = paired_test(first, second, comparisons=3)
    assert corrected.p == pytest.approx(min(1.0, 3 * expected.pvalue))
    assert paired_test(second, first).p == pytest.approx(result.p)


def test_differences_that_are_equal_by_chance_prove_nothing() -> None:
    first, second = [0.52, 0.53], [0.50, 0.51]
    assert paired_test(first, second).p < 1e-9
    cautious = paired_test(first, second, least_std=0.01)
    assert cautious.t == pytest.approx(0.02 * math.sqrt(2) / 0.01)
    assert cautious.p == pytest.approx(2 * stats.t.sf(2 * math.sqrt(2), 1))


def test_differences_without_any_spread_have_an_answer() -> None:
    assert paired_test([0.5, 0.5], [0.25, 0.25]).p == 0.0
    assert paired_test([0.25, 0.25], [0.5, 0.5]).p == 0.0
    assert paired_test([0.5, 0.5], [0.5, 0.5]).p == 1.0


def test_a_pair_alone_is_no_test() -> None:
    with pytest.raises(ValueError, match=r"2 .* 1"):
        paired_test([0.5], [0.4])


def test_the_quantile_is_that_of_students_t_distribution() -> None:
    degrees = [*range(1, 61), 100, 1000]
    assert [t_quantile(n) for n in degrees] == pytest.approx(stats.t.ppf(0.975, degrees), abs=6e-4)


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
            distinguishable = len(indistinguishable({0: list(first), 1: list(second)})) == 1
            assert distinguishable == (p < 0.05)
            decisions.add(distinguishable)
    assert decisions == {True, False}


@pytest.mark.parametrize("trainings", [2, 3, 5])
def test_equal_configs_are_told_apart_in_one_of_twenty_cases(trainings: int) -> None:
    generator = np.random.default_rng(trainings)
    draws = 1500
    groups = generator.normal(0.7, 0.005, (draws, 2, trainings)).tolist()
    alarms = sum(len(indistinguishable({0: first, 1: second})) == 1 for first, second in groups)
    assert alarms / draws == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / draws))


def test_without_a_second_training_there_is_no_noise_and_nothing_is_told_apart() -> None:
    assert seed_noise({}) is None
    assert seed_noise({1: [0.5], 2: [0.9]}) is None
    assert indistinguishable({1: [0.5], 2: [0.9], 3: []}) == [2, 1]


def test_the_best_comes_first_and_only_configs_within_noise_follow() -> None:
    values = {1: [0.50, 0.52], 2: [0.70, 0.72], 3: [0.71, 0.69]}
    assert indistinguishable(values) == [2, 3]


def test_a_config_with_one_training_is_judged_by_the_noise_of_one() -> None:
    values = {0: [0.700, 0.710], 1: [0.700, 0.710], 2: [0.666], 3: [0.666, 0.666]}
    pooled = scipy.stats.t.ppf(0.975, 3) * math.sqrt(2 * 0.00005 / 3)
    apart = 0.705 - pooled * math.sqrt(1.5)
    assert indistinguishable(values | {2: [apart + 0.001]}) == [0, 1, 2]
    assert indistinguishable(values | {2: [apart - 0.001]}) == [0, 1]


def test_the_order_of_the_configs_does_not_matter() -> None:
    values = {1: [0.50, 0.52, 0.55], 2: [0.70, 0.72], 3: [0.71, 0.69]}
    for order in itertools.permutations(values):
        shuffled = {number: values[number] for number in order}
        assert seed_noise(shuffled) == pytest.approx(seed_noise(values))
        assert indistinguishable(shuffled) == [2, 3]


def test_the_least_difference_of_two_accuracies_is_that_of_two_binomial_ones():
    generator = np.random.default_rng(0)
    differences = np.abs(np.diff(generator.binomial(500, 0.9, (20_000, 2)) / 500, axis=1))
    assert np.mean(differences > binomial_difference(0.9, 500)) == pytest.approx(0.05, abs=0.01)


# ---- The pooled noise of trainings -----------------------------------------------------------------------


def test_pooled_noise_of_two_configs_tests_as_the_t_test() -> None:
    first, second = [0.61, 0.64, 0.60], [0.55, 0.58, 0.57, 0.59]
    noise = pooled_noise([first, second, [0.9]])
    assert noise is not None
    assert noise.degrees_of_freedom == 5
    difference = np.mean(first) - np.mean(second)
    assert noise.p(difference, 3, 4) == pytest.approx(scipy.stats.ttest_ind(first, second).pvalue)
    interval = scipy.stats.ttest_ind(first, second).confidence_interval()
    assert noise.half_width(3, 4) == pytest.approx((interval.high - interval.low) / 2, rel=1e-3)


def test_pooled_noise_needs_two_trainings_of_a_config_and_has_a_least_deviation() -> None:
    assert pooled_noise([]) is None
    assert pooled_noise([[0.5], [0.6]]) is None
    equal = pooled_noise([[0.5, 0.5]])
    assert equal is not None
    assert (equal.std, equal.p(0.0, 1), equal.p(0.1, 1)) == (0.0, 1.0, 0.0)
    least = pooled_noise([[0.5, 0.5]], 0.01)
    assert least is not None
    assert least.std == 0.01


def test_a_config_whose_trainings_collapse_is_not_stable_and_the_others_are() -> None:
    usual = [[0.5, 0.51], [0.6, 0.62], [0.7, 0.705]]
    assert stable([*usual, [0.4]]) == usual
    assert stable([[0.5, 0.1], *usual, [0.4, 0.1]]) == usual
    assert stable([[0.5, 0.1], [0.6, 0.6]]) == [[0.5, 0.1], [0.6, 0.6]]  # who knows which is usual
    assert stable([[0.6, 0.6], [0.6, 0.6], [0.6, 0.61]]) == [[0.6, 0.6], [0.6, 0.6], [0.6, 0.61]]
    assert stable([]) == []


def test_ranks_correlate_whatever_the_distances() -> None:
    assert rank_correlation([1, 2, 3, 4], [0.1, 0.2, 0.9, 7.0]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert rank_correlation([1, 1, 2], [5, 6, 7]) == pytest.approx(math.sqrt(3) / 2)
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
