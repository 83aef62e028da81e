"""Seed noise: which of several configs cannot be told apart by their few trainings."""

import math
import statistics
from collections.abc import Mapping, Sequence

# The 97.5 % quantile of Student's t distribution by degrees of freedom, 1 to 30.
_T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def t_quantile(degrees_of_freedom: int) -> float:
    """The 97.5 % quantile of Student's t distribution.

    Raises:
        ValueError: there is no degree of freedom.
    """
    if degrees_of_freedom < 1:
        raise ValueError(f"a t distribution needs a degree of freedom, not {degrees_of_freedom}")
    if degrees_of_freedom <= len(_T_975):
        return _T_975[degrees_of_freedom - 1]
    # Expansion about the normal distribution (Abramowitz and Stegun, 1964, 26.7.5), exact to 0.0001 here.
    z, n = 1.959964, degrees_of_freedom
    return z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)


def seed_noise(values: Mapping[int, Sequence[float]]) -> float | None:
    """The least difference of two means that seeds alone don't explain, at the 5 % level.

    Fisher's least significant difference: one standard deviation is pooled over all configs, because two
    trainings each say little. Where configs have different numbers of trainings, their harmonic mean stands
    for each; `not_told_apart` goes by those of the two.

    Args:
        values: accuracies of a config's trainings, by the number of its trial.

    Returns:
        A share of 1; None where no config has two trainings.
    """
    counts = [len(group) for group in values.values() if group]
    pooled = _pooled(values)
    return None if pooled is None else pooled * math.sqrt(2.0 / statistics.harmonic_mean(counts))


def not_told_apart(values: Mapping[int, Sequence[float]]) -> list[int]:
    """The numbers of the best config and of those within seed noise of it, the best first."""
    pooled = _pooled(values)
    means = {number: statistics.mean(group) for number, group in values.items() if group}
    ranked = sorted(means, key=lambda number: -means[number])
    if pooled is None:
        return ranked
    best = ranked[0]
    return [
        number
        for number in ranked
        if means[best] - means[number]
        <= pooled * math.sqrt(1.0 / len(values[best]) + 1.0 / len(values[number]))
    ]


def _pooled(values: Mapping[int, Sequence[float]]) -> float | None:
    """The pooled standard deviation of a training times the quantile of its degrees of freedom."""
    several = [list(group) for group in values.values() if len(group) >= 2]
    if not several:
        return None
    degrees = sum(len(group) - 1 for group in several)
    variance = sum(statistics.variance(group) * (len(group) - 1) for group in several) / degrees
    return t_quantile(degrees) * math.sqrt(variance)
