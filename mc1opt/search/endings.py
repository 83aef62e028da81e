"""What ends a search before it has its total: nothing new is left, or too many trials in a row failed."""

import re
from collections import Counter
from collections.abc import Sequence

from optuna.trial import FrozenTrial

from mc1opt.database import records
from mc1opt.text import first_line

MAX_UNTRAINED = 50
"""Trials in a row that needed no training (`records.UNTRAINED`), after which nothing new is left to try."""


class Endings:
    """Watches how trials end. Not safe for several threads at once.

    Args:
        trials: of the study so far: untrained ones in a row of an interrupted search count, too.
        max_failures: failed trials in a row, of this search, that end it.
    """

    def __init__(self, trials: Sequence[FrozenTrial], max_failures: int) -> None:
        self._max_failures = max_failures
        self._untrained = records.untrained_in_a_row(trials)
        self._failures: list[str] = []  # in a row
        self.exhausted = ""
        """Why nothing new is left to try; empty while that is not so. Trials in training still end well."""
        self.failed = ""
        """Why too many trials failed; empty while they have not."""

    def trial_begins(self) -> None:
        """A trial was drawn that is to be trained."""
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
    """A failure's first line, without what tells two of the same kind apart: the number of the process."""
    first = first_line(message).removesuffix("; its last output:")
    return re.sub(r" \(process \d+\)", "", first)
