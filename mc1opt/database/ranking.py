"""The ranking of a study's trials, and what seed noise leaves of it."""

import statistics
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from mc1opt.database.records import StudyRecord, TrialRecord, by_value
from mc1opt.spec import CAUSED_BY_CONFIG
from mc1opt.uncertainty import indistinguishable, least_difference, seed_noise


def confirmed_values(trials: Iterable[TrialRecord]) -> dict[int, list[float]]:
    """The values of confirmed trials with new seeds, by trial number.

    The value from the search is left out: it was selected for being high.
    """
    values = {trial.number: _again(trial) for trial in trials}
    return {number: group for number, group in values.items() if group}


def by_expected_accuracy(trials: Collection[TrialRecord]) -> list[TrialRecord]:
    """The complete trials, the one that is expected to be the best with another seed first.

    For a confirmed trial that is the mean of its new trainings. For another it is its value minus the mean
    excess of the confirmed trials' values; otherwise being confirmed would be a handicap. A trial whose
    config failed in a new training comes last.
    """
    again = _confirmed_scores(trials)
    complete = by_value(trials)
    excesses = [
        trial.score - statistics.fmean(again[trial.number]) for trial in complete if trial.number in again
    ]
    excess = statistics.fmean(excesses) if excesses else 0.0

    def expected(trial: TrialRecord) -> float:
        values = again.get(trial.number)
        return statistics.fmean(values) if values else trial.score - excess

    return sorted(complete, key=lambda trial: (_fails_again(trial), -expected(trial), trial.number))


@dataclass(frozen=True)
class Distinguishable:
    """What seed noise leaves of the ranking of the confirmed trials."""

    noise: float
    """See `seed_noise`."""
    equal: list[int]
    """The best trial and those indistinguishable from it, the best first."""
    others: int
    """Number of distinguishable trials."""

    @property
    def is_ahead(self) -> bool:
        """Whether there are others, and none is within seed noise of the best."""
        return len(self.equal) == 1 and self.others > 0


def distinguishable(record: StudyRecord) -> Distinguishable | None:
    """What seed noise leaves of the ranking; None if no trial was trained again twice."""
    values = _confirmed_scores(record.trials)
    noise = seed_noise(values)
    if noise is None:
        return None
    equal = indistinguishable(values)
    return Distinguishable(noise, equal, len(values) - len(equal))


@dataclass(frozen=True)
class Gain:
    """What a search has added to its best starting point, by trainings with new seeds.

    A little too much of it: the best of the confirmed trials is taken, and the first new training of an
    incumbent has led the search.
    """

    sampled: int
    """The best sampled trial."""
    given: int
    """The best starting point."""
    points: float
    """By how much the mean of the first is better than that of the second, in the metric's unit (a share of 1
    where it is one)."""
    interval: tuple[float, float]
    """Its 95 % interval, with the noise of all confirmed trials."""


def gain(record: StudyRecord) -> Gain | None:
    """What a search has added; None if not both kinds of trials are confirmed, or nothing tells the noise."""
    again = _confirmed_scores(record.trials)
    ranked = [trial for trial in by_expected_accuracy(record.trials) if trial.number in again]
    given = next((trial.number for trial in ranked if trial.starting_point), None)
    sampled = next((trial.number for trial in ranked if not trial.starting_point), None)
    if given is None or sampled is None:
        return None
    half = least_difference(again, sampled, given)
    if half is None:
        return None
    points = statistics.fmean(again[sampled]) - statistics.fmean(again[given])
    return Gain(sampled, given, points, (points - half, points + half))


def _confirmed_scores(trials: Iterable[TrialRecord]) -> dict[int, list[float]]:
    """As `confirmed_values`, but numbers of which larger is better."""
    scores = {trial.number: [trial.scored(value) for value in _again(trial)] for trial in trials}
    return {number: group for number, group in scores.items() if group}


def _again(trial: TrialRecord) -> list[float]:
    return [entry["value"] for entry in trial.confirmations if entry["value"] is not None]


def _fails_again(trial: TrialRecord) -> bool:
    return any(
        entry["value"] is None and entry.get("failure", {}).get("kind") in CAUSED_BY_CONFIG
        for entry in trial.confirmations
    )
