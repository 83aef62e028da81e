"""Which configs of a study are trained again, and which of them is the best: seed by seed, paired."""

import math
import statistics
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from mc1opt.config import Config, config_from_json
from mc1opt.database.ranking import by_expected_accuracy
from mc1opt.database.records import StudyRecord, TrialRecord
from mc1opt.display.progress import ending
from mc1opt.errors import UsageError
from mc1opt.metric import ACCURACY, Metric
from mc1opt.uncertainty import PairedTest, paired_test

LEVEL = 0.05
"""Level of the test by which a candidate is clearly worse: over all pairs of candidates and all looks."""
LEAST_SEEDS = 3
"""Common seeds that the test needs: two show hardly any difference, and each look costs level."""
TEST_NAME = "paired t test over the common seeds, two-sided, level 5 % over all pairs and looks together"


@dataclass(frozen=True)
class Form:
    """What a candidate trains in one stage."""

    growth: float
    """Multiply-accumulates of its network at most, relative to the one that was found."""
    config: Config
    epochs: int
    epoch_seconds: float | None
    """Seconds of an epoch at the search's fidelity; None if unknown."""


@dataclass(frozen=True)
class Candidate:
    """A finished trial whose config is trained again."""

    trial: int
    config_id: str
    config: Config
    """As it was found."""
    in_search: float
    """Value of the trial."""
    epoch_seconds: float | None
    """Seconds of an epoch in the search; None if unknown."""
    forms: tuple[Form, Form] | None = None
    """In the comparison and in the final trainings; None as it was found in both, with the plan's epochs."""

    @property
    def name(self) -> str:
        """For people, such as "#7", or "#7 wider" where a form is wider than the config that was found."""
        wider = any(form.config != self.config for form in self.forms or ())
        return f"#{self.trial}{' wider' if wider else ''}"


def choose_candidates(record: StudyRecord, *, top: int, trial: int | None = None) -> list[Candidate]:
    """The best distinct configs of a study, the best first; see `by_expected_accuracy`.

    Args:
        record: the study.
        top: candidates at most.
        trial: the only candidate; None for the best.

    Raises:
        UsageError: the study has no finished trial, or `trial` is not one.
    """
    if trial is not None:
        named = record.own_trial(trial)
        if named.value is None:
            raise UsageError(
                f"trial {trial} of study {record.study!r} was not trained to its end ({ending(named)}). "
                "Choose another with --trial, or the best with --top."
            )
        return [_candidate(named)]
    ranked = by_expected_accuracy(record.trials)
    if not ranked:
        raise UsageError(
            f"study {record.study!r} has no finished trial to train again. `mc1opt run` goes on with it."
        )
    distinct: dict[str | None, TrialRecord] = {}
    for entry in ranked:
        distinct.setdefault(entry.config_id, entry)
    return [_candidate(entry) for entry in list(distinct.values())[:top]]


def _candidate(entry: TrialRecord) -> Candidate:
    if entry.config is None or entry.config_id is None:
        raise UsageError(f"trial {entry.number} has no stored config: it is not one of mc1opt's.")
    return Candidate(
        entry.number, entry.config_id, config_from_json(entry.config), entry.value or 0.0, entry.epoch_seconds
    )


# ---- The comparison --------------------------------------------------------------------------------------


@dataclass
class Standing:
    """How a candidate stands."""

    candidate: Candidate
    values: dict[int, float] = field(default_factory=dict)
    """Value by index of the seed."""
    failures: dict[int, str] = field(default_factory=dict)
    """Why a training failed, by index of the seed."""
    failed: bool = False
    """Whether it is out because a training failed."""
    stopped_after: int | None = None
    """Seeds after which it was clearly worse; None if it was not."""
    stopped_by: tuple[str, PairedTest] | None = None
    """The leader's name and the test; None if it was not stopped."""

    @property
    def is_active(self) -> bool:
        """Whether it may still win."""
        return not self.failed and self.stopped_after is None

    def first(self, seeds: int) -> list[float]:
        """The values of the first seeds."""
        return [self.values[index] for index in range(seeds)]

    def mean(self, seeds: int) -> float:
        """Their mean, rounded so that means are equal whatever the order of the values."""
        return round(statistics.fmean(self.first(seeds)), 12)

    def counted(self) -> dict[int, float]:
        """The values that the comparison uses, by seed.

        Left out are those beyond a candidate's end: with more workers there would be more of them.
        """
        return {
            index: value
            for index, value in sorted(self.values.items())
            if self.stopped_after is None or index < self.stopped_after
        }


class Comparison:
    """Candidates trained over the same seeds; those that are clearly worse stop early.

    A verdict rests on the first seeds, and is given when all active candidates have a value for each of them.
    So it depends neither on the number of workers nor on interruptions.

    Args:
        candidates: by rank, which decides between equal means.
        seeds: in all.
        validation_images: how many there are: shares come in steps of one of them.
        metric: what the values are.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        seeds: int,
        validation_images: int,
        metric: Metric = ACCURACY,
    ) -> None:
        self.standings = {candidate.name: Standing(candidate) for candidate in candidates}
        self.seeds = seeds
        looks = max(1, seeds - LEAST_SEEDS + 1)
        self._comparisons = max(1, math.comb(len(candidates), 2)) * looks
        self.metric = metric
        self._step = 1.0 / validation_images if metric.is_share else 0.0
        self._judged = 0

    def add(self, name: str, seed: int, value: float | None, failure: str | None = None) -> list[Standing]:
        """Takes a training's result, and returns the candidates that it puts out, or in again.

        Where a leader fails, candidates that were stopped for being worse than it compete again.

        Args:
            name: of the candidate.
            seed: index of the seed.
            value: of the metric; None where the training failed.
            failure: why it failed.
        """
        standing = self.standings[name]
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
            back = self._take_back({other.candidate.name for other in failed})
            changed += failed + back
            if not back:
                self._judged += 1
                changed += self._judge()
        return changed

    def _take_back(self, failed: Set[str]) -> list[Standing]:
        """Takes back the verdicts that rest on candidates that failed; judging resumes at the first one."""
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

    def wanted(self, name: str, seed: int) -> bool:
        """Whether a training is still of use."""
        standing = self.standings[name]
        if standing.failures and seed > min(standing.failures):
            return False
        return standing.stopped_after is None or seed < standing.stopped_after

    def has(self, name: str, seed: int) -> bool:
        """Whether a training has ended."""
        standing = self.standings[name]
        return seed in standing.values or seed in standing.failures

    def winner(self) -> Standing | None:
        """The candidate with the best mean over all seeds; None while none has all of them."""
        whole = [standing for standing in self.active() if len(standing.values) == self.seeds]
        return max(whole, key=lambda standing: self._score(standing, self.seeds), default=None)

    def against(self, leader: Standing, other: Standing) -> PairedTest | None:
        """The test of `other` against `leader` over their common seeds; None for too few of them."""
        common = sorted(leader.counted().keys() & other.counted().keys())
        if leader is other or len(common) < LEAST_SEEDS:
            return None
        return self._test(*([standing.values[index] for index in common] for standing in (leader, other)))

    def _score(self, standing: Standing, seeds: int) -> float:
        return self.metric.score(standing.mean(seeds))

    def _test(self, first: Sequence[float], second: Sequence[float]) -> PairedTest:
        return paired_test(first, second, least_std=self._step, comparisons=self._comparisons)

    def _judge(self) -> list[Standing]:
        """Stops the candidates that the first seeds show to be clearly worse than the leader."""
        seeds, active = self._judged, self.active()
        if seeds < LEAST_SEEDS or seeds == self.seeds or not active:
            return []
        leader = max(active, key=lambda standing: self._score(standing, seeds))
        out = []
        for other in (standing for standing in active if standing is not leader):
            test = self._test(leader.first(seeds), other.first(seeds))
            if test.p < LEVEL:
                other.stopped_after, other.stopped_by = seeds, (leader.candidate.name, test)
                out.append(other)
        return out
