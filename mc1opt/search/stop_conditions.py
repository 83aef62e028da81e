"""Early ends of a search: nothing new is left, or too many trials in a row failed."""

import re
from collections import Counter
from collections.abc import Sequence

from optuna.trial import FrozenTrial

from mc1opt.database import records
from mc1opt.text import first_line

MAX_UNTRAINED = 50
"""Untrained trials in a row (`records.UNTRAINED`) after which the search space counts as exhausted."""


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
