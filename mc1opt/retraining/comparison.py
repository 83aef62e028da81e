"""Which configs of a study are trained again, and which of them is the best: seed by seed, paired."""

import math
import statistics
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from mc1opt.config import Config, config_from_json
from mc1opt.data.recorded import model_data
from mc1opt.database.ranking import by_expected_accuracy
from mc1opt.database.records import StudyRecord, TrialRecord
from mc1opt.describe import describe_config
from mc1opt.display.progress import ending
from mc1opt.errors import DataError, UsageError
from mc1opt.spec import DataSet
from mc1opt.uncertainty import PairedTest, paired_test

LEVEL = 0.05
"""Of the test by which a candidate is clearly worse: over all pairs of candidates and all looks together."""
LEAST_SEEDS = 3
"""Common seeds from which on the test is made: two show hardly any difference, and each look costs level."""
TEST_NAME = "paired t test over the common seeds, two-sided, level 5 % over all pairs and looks together"


@dataclass(frozen=True)
class Candidate:
    """A finished trial whose config is trained again."""

    trial: int
    config_id: str
    config: Config
    in_search: float
    """The trial's value: the validation accuracy that it was chosen by."""
    epoch_seconds: float | None
    """Of an epoch in the search."""

    @property
    def summary(self) -> str:
        """The config in one line."""
        return describe_config(self.config)


def choose_candidates(record: StudyRecord, *, top: int, trial: int | None = None) -> list[Candidate]:
    """The best distinct configs of a study, the best first; see `by_expected_accuracy`.

    Args:
        record: the study.
        top: how many at most.
        trial: this trial alone, if given.

    Raises:
        UsageError: the study has no finished trial, or `trial` is not one.
    """
    if trial is not None:
        return [_candidate(_finished(record, trial))]
    ranked = by_expected_accuracy(record.trials)
    if not ranked:
        raise UsageError(
            f"study {record.study!r} has no finished trial, so there is nothing to train again. "
            "`mc1opt run` goes on with it."
        )
    distinct: dict[str | None, TrialRecord] = {}
    for entry in ranked:
        distinct.setdefault(entry.config_id, entry)
    return [_candidate(entry) for entry in list(distinct.values())[:top]]


def _finished(record: StudyRecord, number: int) -> TrialRecord:
    found = record.own_trial(number)
    if found.value is None:
        raise UsageError(
            f"trial {number} of study {record.study!r} was not trained to its end ({ending(found)}), so its "
            "config is no candidate. Choose another with --trial, or the best with --top."
        )
    return found


def _candidate(entry: TrialRecord) -> Candidate:
    if entry.config is None or entry.config_id is None:
        raise UsageError(f"trial {entry.number} has no stored config: it is not one of mc1opt's.")
    return Candidate(
        entry.number, entry.config_id, config_from_json(entry.config), entry.value or 0.0, entry.epoch_seconds
    )


def study_data(record: StudyRecord, path: Path | None, output: TextIO | None) -> DataSet:
    """The images that a study was trained on.

    Args:
        record: the study.
        path: `--data`; None is the study's own images in the cache, or CIFAR-10.
        output: where a download is shown.

    Raises:
        DataError: they cannot be had, or the images at `path` are others.
    """
    wanted = record.data
    if wanted is None:
        raise UsageError(f"study {record.study!r} is not one of mc1opt's: it does not name its images.")
    data = model_data(f"study {record.study!r}", wanted, path, output)
    if data.name != wanted["name"]:
        raise DataError(
            f"study {record.study!r} was trained on {wanted['name']}, and these images are {data.name}. Give "
            "the study's with --data."
        )
    return data


# ---- The comparison --------------------------------------------------------------------------------------


@dataclass
class Standing:
    """How a candidate stands."""

    candidate: Candidate
    values: dict[int, float] = field(default_factory=dict)
    """Validation accuracy by the seed's index."""
    failures: dict[int, str] = field(default_factory=dict)
    """Why its training with a seed failed, by the seed's index; that puts it out of the comparison."""
    failed: bool = False
    """Whether it is out for that."""
    stopped_after: int | None = None
    """After how many seeds it was clearly worse."""
    stopped_by: tuple[int, PairedTest] | None = None
    """The leader's trial, and the test."""

    @property
    def is_active(self) -> bool:
        """Whether it may still win."""
        return not self.failed and self.stopped_after is None

    def first(self, seeds: int) -> list[float]:
        """The values of the first so many seeds."""
        return [self.values[index] for index in range(seeds)]

    def mean(self, seeds: int) -> float:
        """Their mean, rounded so that means are equal whatever the order of the values."""
        return round(statistics.fmean(self.first(seeds)), 12)

    def counted(self) -> dict[int, float]:
        """The values that the comparison uses, in the order of the seeds.

        What a candidate trained beyond its end, while others were busy, is left out: with more workers there
        would be more of it.
        """
        return {
            index: value
            for index, value in sorted(self.values.items())
            if self.stopped_after is None or index < self.stopped_after
        }


class Comparison:
    """Candidates trained over the same seeds; those that are clearly worse stop early.

    Verdicts are given when all active candidates have a seed's value, and rest on the first seeds alone. So
    they depend neither on the number of workers nor on interruptions.

    Args:
        candidates: in the order of their rank, which decides between equal means.
        seeds: how many there will be.
        validation_images: accuracies come in steps of one of them.
    """

    def __init__(self, candidates: Sequence[Candidate], seeds: int, validation_images: int) -> None:
        self.standings = {candidate.trial: Standing(candidate) for candidate in candidates}
        self.seeds = seeds
        looks = max(1, seeds - LEAST_SEEDS + 1)
        self._comparisons = max(1, math.comb(len(candidates), 2)) * looks
        self._step = 1.0 / validation_images
        self._judged = 0

    def add(self, trial: int, seed: int, value: float | None, failure: str | None = None) -> list[Standing]:
        """Takes a training's result; gives the candidates that this puts out, or in again.

        Where a leader fails later, what was stopped for being worse than it competes again.

        Args:
            trial: the candidate's.
            seed: its index.
            value: the validation accuracy; None where the training failed.
            failure: why.
        """
        standing = self.standings[trial]
        if value is None:
            standing.failures[seed] = failure or "failed"
        else:
            standing.values[seed] = value
        changed = []
        while self._judged < self.seeds and all(
            self._judged in other.values or self._judged in other.failures for other in self.active()
        ):
            failed = [other for other in self.active() if self._judged in other.failures]
            for other in failed:
                other.failed = True
            back = self._take_back({other.candidate.trial for other in failed})
            changed += failed + back
            if not back:
                self._judged += 1
                changed += self._judge()
        return changed

    def _take_back(self, failed: Set[int]) -> list[Standing]:
        """Takes the verdicts back that rest on candidates that failed; judging goes on from the first one."""
        back = []
        for other in self.standings.values():
            if other.stopped_by is not None and other.stopped_by[0] in failed:
                assert other.stopped_after is not None
                self._judged = min(self._judged, other.stopped_after - 1)
                other.stopped_after = other.stopped_by = None
                back.append(other)
        return back

    def active(self) -> list[Standing]:
        """The candidates that may still win."""
        return [standing for standing in self.standings.values() if standing.is_active]

    def wanted(self, trial: int, seed: int) -> bool:
        """Whether a training is still of use."""
        standing = self.standings[trial]
        if standing.failures and seed > min(standing.failures):
            return False
        return standing.stopped_after is None or seed < standing.stopped_after

    def has(self, trial: int, seed: int) -> bool:
        """Whether a training has ended."""
        standing = self.standings[trial]
        return seed in standing.values or seed in standing.failures

    def winner(self) -> Standing | None:
        """The best mean over all seeds; None while there is none."""
        whole = [standing for standing in self.active() if len(standing.values) == self.seeds]
        return max(whole, key=lambda standing: standing.mean(self.seeds), default=None)

    def against(self, leader: Standing, other: Standing) -> PairedTest | None:
        """The test of `other` against `leader` over their common seeds; None where these are too few."""
        common = sorted(leader.counted().keys() & other.counted().keys())
        if leader is other or len(common) < LEAST_SEEDS:
            return None
        pairs = [[standing.values[index] for index in common] for standing in (leader, other)]
        return self._test(pairs[0], pairs[1])

    def _test(self, first: Sequence[float], second: Sequence[float]) -> PairedTest:
        return paired_test(first, second, least_std=self._step, comparisons=self._comparisons)

    def _judge(self) -> list[Standing]:
        """Stops the candidates that the first seeds show to be clearly worse than the leader."""
        seeds, active = self._judged, self.active()
        if seeds < LEAST_SEEDS or seeds == self.seeds or not active:
            return []
        leader = max(active, key=lambda standing: standing.mean(seeds))
        out = []
        for other in active:
            if other is leader:
                continue
            test = self._test(leader.first(seeds), other.first(seeds))
            if test.p < LEVEL:
                other.stopped_after, other.stopped_by = seeds, (leader.candidate.trial, test)
                out.append(other)
        return out
