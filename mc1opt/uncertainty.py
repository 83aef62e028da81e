"""What a few trainings say: a mean with its interval, and which configs they can distinguish.

Of several configs by seed noise (Fisher's least significant difference), of two by a paired t test.
"""

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation and 95 % interval of some values."""

    n: int
    mean: float
    std: float | None
    """Of the sample (n - 1); None for one value."""
    interval: tuple[float, float] | None
    """For the mean, by Student's t distribution; None for one value."""

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        interval = None if self.interval is None else list(self.interval)
        return {"n": self.n, "mean": self.mean, "std": self.std, "interval": interval}

    def cells(self) -> tuple[str, str, str]:
        """Mean, standard deviation and interval for a table; "-" for what one value does not have."""
        if self.std is None or self.interval is None:
            return f"{self.mean:.4f}", "-", "-"
        return f"{self.mean:.4f}", f"{self.std:.4f}", "{:.4f} to {:.4f}".format(*self.interval)

    def line(self) -> str:
        """In words: "0.9012, standard deviation 0.0011, 95 % interval 0.8985 to 0.9039 (n = 3)"."""
        if self.std is None or self.interval is None:
            return f"{self.mean:.4f} (one training: nothing is known of its spread)"
        low, high = self.interval
        return (
            f"{self.mean:.4f}, standard deviation {self.std:.4f}, 95 % interval {low:.4f} to {high:.4f} "
            f"(n = {self.n})"
        )


def spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation and interval of at least one value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Spread(len(values), mean, None, None)
    std = statistics.stdev(values)
    half = t_quantile(len(values) - 1) * std / math.sqrt(len(values))
    return Spread(len(values), mean, std, (mean - half, mean + half))


@dataclass(frozen=True)
class PairedTest:
    """A paired t test of whether two configs differ."""

    n: int
    difference: float
    """Mean of the first's values minus the second's."""
    t: float
    p: float
    """Two-sided, times the number of comparisons, at most 1: how probable it is, at most, that one of them
    shows such a difference or a greater one, if all configs are equally good."""


def paired_test(
    first: Sequence[float], second: Sequence[float], *, least_std: float = 0.0, comparisons: int = 1
) -> PairedTest:
    """Student's paired t test, two-sided, of values that belong together (the same seeds).

    Two-sided, because which of two is to be better is seen from the same values.

    Args:
        first: of one config.
        second: of the other one, as many.
        least_std: the standard deviation of the differences is taken to be at least this. Accuracies come in
            steps of one image, so that a few differences may be equal by chance, which proves nothing.
        comparisons: how many such tests there are, over configs and repeated looks; p is multiplied by it
            (Bonferroni), so that any of them is wrong no more often than its level says.

    Raises:
        ValueError: there are fewer than 2 pairs.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    if len(differences) < 2:
        raise ValueError(f"a paired test needs 2 pairs, not {len(differences)}")
    mean = statistics.fmean(differences)
    std = max(statistics.stdev(differences), least_std)
    if std == 0.0:
        t = math.copysign(math.inf, mean) if mean else 0.0
    else:
        t = mean * math.sqrt(len(differences)) / std
    p = 2.0 * t_above(abs(t), len(differences) - 1)
    return PairedTest(len(differences), mean, t, min(1.0, p * comparisons))


def t_above(t: float, degrees_of_freedom: int) -> float:
    """The probability that Student's t is above `t`, in closed form.

    Abramowitz and Stegun, 1964, 26.7.3 and 26.7.4.
    """
    theta = math.atan2(t, math.sqrt(degrees_of_freedom))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = degrees_of_freedom % 2 == 1
    term = cosine if odd else 1.0
    terms = []
    for k in range(2 if odd else 1, degrees_of_freedom, 2):
        terms.append(term)
        term *= cosine * cosine * k / (k + 1)
    total = sine * math.fsum(terms)
    within = 2.0 / math.pi * (theta + total) if odd else total  # between -t and t, with the sign of t
    return min(1.0, max(0.0, 0.5 * (1.0 - within)))


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
    for each; `indistinguishable` goes by those of the two.

    Args:
        values: accuracies of a config's trainings, by the number of its trial.

    Returns:
        A share of 1; None where no config has two trainings.
    """
    counts = [len(group) for group in values.values() if group]
    pooled = _pooled(values)
    return None if pooled is None else pooled * math.sqrt(2.0 / statistics.harmonic_mean(counts))


def indistinguishable(values: Mapping[int, Sequence[float]]) -> list[int]:
    """The numbers of the best config and of those within seed noise of it, the best first."""
    means = {number: statistics.mean(group) for number, group in values.items() if group}
    ranked = sorted(means, key=lambda number: -means[number])
    if _pooled(values) is None:
        return ranked
    best = ranked[0]
    return [
        number
        for number in ranked
        if means[best] - means[number] <= (least_difference(values, best, number) or 0.0)
    ]


def least_difference(values: Mapping[int, Sequence[float]], one: int, other: int) -> float | None:
    """The least difference of two configs' means that seeds alone don't explain; see `seed_noise`."""
    pooled = _pooled(values)
    return None if pooled is None else pooled * math.sqrt(1 / len(values[one]) + 1 / len(values[other]))


def _pooled(values: Mapping[int, Sequence[float]]) -> float | None:
    """The pooled standard deviation of a training times the quantile of its degrees of freedom."""
    noise = pooled_noise(values.values())
    return None if noise is None else noise.half_width(1)


UNSTABLE = 8.0
"""Times the median of all configs' standard deviations, above which a config is called unstable: seeds alone
give that to one of ten million pairs."""


@dataclass(frozen=True)
class Noise:
    """The standard deviation of a training of a config, pooled over configs."""

    std: float
    degrees_of_freedom: int
    """At least 1."""

    def half_width(self, *counts: int) -> float:
        """Half of the 95 % interval of a mean, or of a difference of two.

        Args:
            counts: trainings behind each mean.
        """
        return t_quantile(self.degrees_of_freedom) * self.error(*counts)

    def p(self, difference: float, *counts: int) -> float:
        """The two-sided p of a difference of means, by Student's t test; `counts` as in `half_width`."""
        error = self.error(*counts)
        if error == 0.0:
            return 0.0 if difference else 1.0
        return 2.0 * t_above(abs(difference) / error, self.degrees_of_freedom)

    def error(self, *counts: int) -> float:
        """The standard error; `counts` as in `half_width`."""
        return self.std * math.sqrt(sum(1 / count for count in counts))


def pooled_noise(groups: Iterable[Sequence[float]], least_std: float = 0.0) -> Noise | None:
    """The noise of trainings, from the values of each config; None where no config has two trainings.

    Args:
        groups: the values of each config.
        least_std: the standard deviation is taken to be at least this: equal values may be so by chance.
    """
    several = [list(group) for group in groups if len(group) >= 2]
    if not several:
        return None
    degrees = sum(len(group) - 1 for group in several)
    variance = sum(statistics.variance(group) * (len(group) - 1) for group in several) / degrees
    return Noise(max(math.sqrt(variance), least_std), degrees)


def stable(groups: Iterable[Sequence[float]]) -> list[Sequence[float]]:
    """The values of configs with several trainings, without those of configs that are unstable.

    A config some of whose trainings collapse says nothing of the noise of the others.
    """
    several = [group for group in groups if len(group) >= 2]
    if not several:
        return []
    most = UNSTABLE * statistics.median(map(statistics.stdev, several))
    return [group for group in several if most == 0.0 or statistics.stdev(group) <= most]


def rank_correlation(ones: Sequence[float], others: Sequence[float]) -> float | None:
    """Spearman's correlation of pairs, from -1 to 1; None for fewer than 3, or where all of one are equal."""
    ranks = [_ranks(values) for values in (ones, others)]
    if len(ones) < 3 or any(len(set(each)) < 2 for each in ranks):
        return None
    return statistics.correlation(*ranks)


def _ranks(values: Sequence[float]) -> list[float]:
    """Of equal values, the mean of their ranks."""
    ordered = sorted(values)
    return [(bisect_left(ordered, value) + bisect_right(ordered, value)) / 2 for value in values]


def binomial_difference(accuracy: float, images: int) -> float:
    """The least difference of two accuracies that chance in which images validate doesn't explain, at 5 %.

    As if each of two models of this accuracy met images of its own. Where both meet the same ones, and agree
    on most, somewhat smaller differences count; the seeds of their trainings add to it.

    Args:
        accuracy: of both, from 0 to 1.
        images: that each is measured on, at least 1.

    Returns:
        A share of 1.
    """
    return 1.959964 * math.sqrt(2.0 * accuracy * (1.0 - accuracy) / images)
