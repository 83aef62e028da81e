"""Early ends of a search: good enough, nothing new is left, or too many trials in a row failed."""

import math
import re
from collections import Counter
from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial

from mc1opt.database import records
from mc1opt.search.incumbents import incumbents, repeats
from mc1opt.search.settings import SearchSettings
from mc1opt.text import first_line, plural

MAX_UNTRAINED = 50
"""Untrained trials in a row (`records.UNTRAINED`) after which the search space counts as exhausted."""


def enough(study: optuna.Study, settings: SearchSettings) -> str:
    """Why `--patience` or `--until` ends a search, by what is stored alone; empty while they do not.

    A trial is worth what it is to the sampler: where new incumbents are trained again, the mean of both
    trainings. Until its second training a new incumbent is no end of the search, but begins the row of
    `--patience` anew.
    """
    if settings.patience is None and settings.until is None:
        return ""
    metric = settings.aim.metric
    trials = [trial for trial in study.get_trials(deepcopy=False) if records.is_counted(trial)]
    if repeats(study):
        found = incumbents(study, settings.seed, metric, settings.target)
        scores, unsure = found.scores, set(found.unrepeated)
    else:
        scores, unsure = {t.number: metric.score(t.value) for t in trials if t.value is not None}, set()
    sure = {number: score for number, score in scores.items() if number not in unsure}
    best = max(sure, key=sure.__getitem__, default=None)
    if best is not None and sure[best] >= settings.target:
        return f"#{best} has reached {metric.score(sure[best]):.4f} (--until {settings.until:g})"
    row = without_improvement([scores.get(trial.number, -math.inf) for trial in trials])
    if settings.patience is not None and row >= settings.patience:
        return f"{plural(row, 'trial')} in a row have not improved the best (--patience {settings.patience})"
    return ""


def without_improvement(scores: Sequence[float]) -> int:
    """Number of scores after the first of the greatest ones."""
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


class StopConditions:
    """Counts untrained and failed trials in a row. Not thread-safe.

    Args:
        trials: the study's trials so far; untrained ones of an interrupted search count as well.
        max_failures: failed trials in a row, in this search, that end it.
    """

    def __init__(self, trials: Sequence[FrozenTrial], max_failures: int) -> None:
        self._max_failures = max_failures
        self._untrained = untrained_in_a_row(trials)
        self._failures: list[str] = []  # in a row
        self.exhausted = ""
        """Why nothing new is left to try, or empty. Running trials are still finished."""
        self.failed = ""
        """Which failures end the search, or empty."""

    def trial_begins(self) -> None:
        """A drawn trial is about to be trained."""
        self._untrained = 0

    def trial_ended(self, trial: FrozenTrial) -> None:
        """A trial has ended."""
        outcome = records.outcome(trial)
        if outcome in records.UNTRAINED:
            self._untrained += 1
        if outcome in ("complete", "pruned"):
            self._failures = []
        if outcome == "failed":
            told = trial.user_attrs.get(records.FAILURE, {"message": "ended from outside"})
            self._failures.append(told["message"])
        if self._untrained >= MAX_UNTRAINED:
            self.exhausted = (
                f"{self._untrained} trials in a row were duplicates, too large or infeasible: the search "
                "space has nothing new left. Widen it, raise --max-macs, or be content."
            )
        if len(self._failures) >= self._max_failures:
            commonest = Counter(_reason(message) for message in self._failures).most_common(3)
            reasons = "; ".join(f"{count}x {message}" for message, count in commonest)
            self.failed = (
                f"{len(self._failures)} trials in a row failed (--max-failures {self._max_failures}): "
                f"{reasons}."
            )


def _reason(message: str) -> str:
    """A failure's first line without the process id, so that equal failures have equal reasons."""
    first = first_line(message).removesuffix("; its last output:")
    return re.sub(r" \(process \d+\)", "", first)


def untrained_in_a_row(trials: Sequence[FrozenTrial]) -> int:
    """Number of untrained trials at the end of the ended trials; foreign ones are ignored."""
    outcomes = [records.outcome(trial) for trial in trials]
    ended = [what for what in reversed(outcomes) if what not in ("running", "waiting", "foreign")]
    return next((i for i, what in enumerate(ended) if what not in records.UNTRAINED), len(ended))
