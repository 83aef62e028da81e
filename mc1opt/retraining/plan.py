"""What a retraining trains, and how long that takes.

Stage 1 trains the candidates over several seeds, on all images but those of validation. Stage 2 trains the
winner on all training images, once a seed; its folds come on top.
"""

import hashlib
import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mc1opt.measurement.plan import Job, MeasureOptions, Plan
from mc1opt.measurement.store import TrainingStore
from mc1opt.retraining.comparison import Candidate, Comparison
from mc1opt.spec import Fidelity
from mc1opt.workers.speed import VALIDATION_SHARE


@dataclass(frozen=True, kw_only=True)
class RetrainOptions(MeasureOptions):
    """The options of `mc1opt retrain`."""

    study: str
    top: int | None = None
    """Candidates at most; None for the default."""
    trial: int | None = None
    """The only candidate, instead of `top`."""
    force: bool = False
    command: str = "mc1opt retrain"
    """As it was given, for the model card."""


@dataclass(frozen=True)
class Progress:
    """How far the trainings of a plan are."""

    stored: int
    """Trainings that have ended."""
    left: int
    """Trainings that are still wanted, if no further candidate stops early."""
    seconds: float | None
    """Expected for those that are left; None if unknown."""


@dataclass(frozen=True, kw_only=True)
class RetrainPlan(Plan):
    """The trainings of a retraining."""

    candidates: tuple[Candidate, ...]
    seeds: tuple[int, ...]
    """The model of the first one is kept, whatever comes of it."""
    epochs: int
    """Of each training."""
    search: Fidelity | None
    """The trials' fidelity; None if unknown."""

    @property
    def trials(self) -> dict[str, int]:
        """The candidates' trials by the names of their jobs."""
        return {candidate.name: candidate.trial for candidate in self.candidates}

    @property
    def trainings(self) -> int:
        """Of both stages, if no candidate stops early."""
        return (len(self.candidates) + 1) * len(self.seeds) + self.folds

    @property
    def request(self) -> str:
        """What is asked for without the epochs, whose default is stored by it: 12 digits of a hash."""
        return _digest(self._request())

    @property
    def identity(self) -> str:
        """What is retrained, without the folds, which add to it: 12 digits of a hash."""
        return _digest({**self._request(), "epochs": self.epochs})

    def candidate_jobs(self) -> list[Job]:
        """Stage 1: seed by seed, so that pairs are complete early."""
        return [
            self.seed_job(candidate.name, candidate.config, self.epochs, index, seed)
            for index, seed in enumerate(self.seeds)
            for candidate in self.candidates
        ]

    def winner_jobs(self, winner: Candidate) -> list[Job]:
        """Stage 2, in the order of the seeds, and the folds, which have the first seed."""
        seeds, weights = dict(enumerate(self.seeds)), self.folder / "weights"
        name = f"{winner.name} on all images,"
        finals = self.final_jobs(name, winner.config, self.epochs, seeds, weights)
        return finals + self.fold_jobs(winner.name, winner.config, self.epochs, self.seeds[0])

    def comparison(self) -> Comparison:
        """Of the candidates, before anything is trained."""
        return Comparison(self.candidates, len(self.seeds), self.data.validation_images)

    def progress(self, store: TrainingStore) -> Progress:
        """What is stored of the trainings, and what early stopping leaves, as far as it is known."""
        comparison, trials = self.comparison(), self.trials
        jobs = self.candidate_jobs()
        missing = []
        for job in jobs:
            found = store.find(job.training)
            if found is None:
                missing.append(job)
            else:
                comparison.add(trials[job.name], job.seed, found.value, found.failure_message)
        wanted = [job for job in missing if comparison.wanted(trials[job.name], job.seed)]
        winner = comparison.winner() if not wanted else None
        later = min(
            (
                [job for job in self.winner_jobs(candidate) if store.find(job.training) is None]
                for candidate in (self.candidates if winner is None else [winner.candidate])
            ),
            key=len,
        )
        return Progress(
            stored=len(jobs) - len(missing) + len(self.seeds) + self.folds - len(later),
            left=len(wanted) + len(later),
            seconds=self.seconds(wanted, later),
        )

    def seconds(self, first: Sequence[Job], later: Sequence[Job]) -> float | None:
        """Seconds that jobs of stage 1, and later those of its winner, are expected to take.

        By the epochs of the search; the slowest candidate may win. None where their seconds are not known.
        """
        known = {each.name: each.epoch_seconds for each in self.candidates if each.epoch_seconds}
        if not known or self.search is None:
            return None
        slowest = max(known.values())
        images = self.search.train_images + VALIDATION_SHARE * self.data.validation_images
        stages = [
            [_images(job) / images * known.get(job.name, slowest) for job in first],
            [_images(job) / images * slowest for job in later],
        ]
        return sum(makespan(seconds, self.workers) for seconds in stages)

    def _request(self) -> dict[str, Any]:
        return {
            "configs": [candidate.config_id for candidate in self.candidates],
            "seeds": list(self.seeds),
            "data": self.data.sha256,
            "device": self.device,
            "precision": self.precision,
        }


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Seconds that trainings take which are begun in this order, each when a worker is free."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def _images(job: Job) -> float:
    """Images of all epochs of a job; one of validation counts by its share of the cost."""
    training = job.training
    validation = VALIDATION_SHARE * training.data.validation_images
    return training.fidelity.epochs * (training.fidelity.train_images + validation)


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
