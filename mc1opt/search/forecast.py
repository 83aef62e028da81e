"""What another half hour of a search would probably bring, told from its own record.

The later half of the drawn trials stands for the next ones. Their best values lie as the largest of a sample
from an exponential tail do (Weissman, 1978, "Estimation of Parameters and Large Quantiles Based on the k
Largest Observations"): of m trials the k best lie above the next one, u, by a mean excess e, and a further
trial is above u + x with the probability k/m (1 + x / (k e))^-k, which is the exponential distribution with
what k values leave open of its mean. So the best of n further trials is below u + x with the probability
exp(-n k/m (1 + x / (k e))^-k). `benchmarks/stopping.py` compares this with what further half hours brought.

Too little is said of a search that is still improving its draws, as all do at first, and too much where
the noise of seeds is most of the spread.
"""

import math
import statistics
from dataclasses import dataclass

from mc1opt.database.records import StudyRecord, by_value

HALF_HOUR = 1800.0
"""Seconds."""
LARGEST = 8
"""Best values that tell the tail: k."""
LEAST_TRIALS = 45
"""Fewest trials that stand for the next ones. With fewer, too few intervals hold (`benchmarks/LOG.md`)."""
INTERVAL = (0.05, 0.95)
"""Quantiles: of 90 % of such forecasts, the gain is to lie between."""


@dataclass(frozen=True)
class Forecast:
    """What further trials would add to the best value, in the metric's unit; never below 0."""

    trials: int
    """How many there would be."""
    gain: float
    """The median."""
    interval: tuple[float, float]
    """Of 90 %."""


def forecast(record: StudyRecord, workers: int, seconds: float = HALF_HOUR) -> Forecast | None:
    """What a search would gain; None if its record does not tell: too few trials, no times, all values equal.

    Args:
        record: the study.
        workers: trainings at once.
        seconds: how much longer it would search.
    """
    drawn = [t for t in record.trials if t.outcome in ("complete", "pruned") and not t.starting_point]
    late = drawn[len(drawn) // 2 :]
    times = [trial.seconds for trial in late if trial.seconds]
    scores = [trial.score for trial in by_value(late)][: LARGEST + 1]
    if len(late) < LEAST_TRIALS or len(times) < len(late) or len(scores) <= LARGEST:
        return None
    threshold = scores.pop()
    excess = statistics.fmean(scores) - threshold
    further = seconds * workers / statistics.fmean(times)
    best = record.best
    if excess <= 0.0 or best is None:
        return None
    most = 1.0 - best.score if record.metric.is_share else math.inf

    def gain(probability: float) -> float:
        above = further * LARGEST / len(late) / -math.log(probability)
        highest = threshold + LARGEST * excess * (math.pow(above, 1.0 / LARGEST) - 1.0)
        return min(max(0.0, highest - best.score), most)

    low, high = map(gain, INTERVAL)
    return Forecast(round(further), gain(0.5), (low, high))
