"""What a few trainings say: a mean with its interval, and whether one config is clearly worse."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mc1opt.noise import t_quantile


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
