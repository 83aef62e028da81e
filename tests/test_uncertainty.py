"""Intervals and paired tests against scipy's."""

import math

import numpy as np
import pytest
from scipy import stats

from mc1opt.uncertainty import paired_test, spread, t_above

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
@pytest.mark.parametrize("t", [-12.0, -1.0, 0.0, 0.5, 2.92, 6.31, 60.0])
def test_the_tail_of_students_t_distribution(degrees: int, t: float) -> None:
    assert t_above(t, degrees) == pytest.approx(stats.t.sf(t, degrees), abs=1e-12)


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
    with pytest.raises(ValueError, match="needs 2 pairs, not 1"):
        paired_test([0.5], [0.4])
