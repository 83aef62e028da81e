"""Which trials of a study are the best, and which of those that were trained again are not told apart."""

import statistics
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from mc1opt.database.records import StudyRecord, TrialRecord, by_value
from mc1opt.spec import CAUSED_BY_CONFIG
from mc1opt.uncertainty import indistinguishable, seed_noise


def confirmed_values(trials: Iterable[TrialRecord]) -> dict[int, list[float]]:
    """The accuracies of new trainings of confirmed trials, by number.

    The search's own value is left out: it was chosen because it was high.
    """
    values = {trial.number: _again(trial) for trial in trials}
    return {number: group for number, group in values.items() if group}


def by_expected_accuracy(trials: Collection[TrialRecord]) -> list[TrialRecord]:
    """The complete trials, the one that promises the highest accuracy with another seed first.

    Of a confirmed trial that is the mean of its new trainings. Of another it is its value, less what the
    values of the confirmed ones were too high on the average: without that, having been trained again would
    be a handicap. A trial whose config failed in a new training comes last.
    """
    again = confirmed_values(trials)
    complete = by_value(trials)
    excesses = [
        (trial.value or 0.0) - statistics.fmean(again[trial.number])
        for trial in complete
        if trial.number in again
    ]
    excess = statistics.fmean(excesses) if excesses else 0.0

    def promise(trial: TrialRecord) -> float:
        values = again.get(trial.number)
        return statistics.fmean(values) if values else (trial.value or 0.0) - excess

    return sorted(complete, key=lambda trial: (_fails_again(trial), -promise(trial), trial.number))


@dataclass(frozen=True)
class Distinguishable:
    """What seed noise leaves of the ranking of the trials that were trained again."""

    noise: float
    """See `seed_noise`."""
    equal: list[int]
    """The best trial and those that are not told apart from it, the best first."""
    others: int
    """How many are told apart from it."""

    @property
    def is_ahead(self) -> bool:
        """Whether the best is ahead of at least one other, and none is within seed noise of it."""
        return len(self.equal) == 1 and self.others > 0


def distinguishable(record: StudyRecord) -> Distinguishable | None:
    """What seed noise leaves of the ranking; None where no trial was trained again twice."""
    values = confirmed_values(record.trials)
    noise = seed_noise(values)
    if noise is None:
        return None
    equal = indistinguishable(values)
    return Distinguishable(noise, equal, len(values) - len(equal))


def _again(trial: TrialRecord) -> list[float]:
    return [entry["value"] for entry in trial.confirmations if entry["value"] is not None]


def _fails_again(trial: TrialRecord) -> bool:
    return any(
        entry["value"] is None and entry.get("failure", {}).get("kind") in CAUSED_BY_CONFIG
        for entry in trial.confirmations
    )
