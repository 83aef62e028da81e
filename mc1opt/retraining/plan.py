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

from mc1opt.config import config_id
from mc1opt.measurement.plan import Job, MeasureOptions, Plan
from mc1opt.measurement.store import TrainingStore
from mc1opt.retraining.comparison import Candidate, Comparison, Form
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
    keep_size: bool = False
    """Whether candidates stay as wide as they were found."""
    budget: float | None = None
    """Seconds that all trainings shall take together where `epochs` is None; None for the default."""
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
    epochs: int = 0
    """Of each training; 0 where each candidate has its own."""
    keep_size: bool = False
    budget: float | None = None
    search: Fidelity | None
    """The trials' fidelity; None if unknown."""

    def form(self, candidate: Candidate, *, final: bool) -> Form:
        """What a candidate trains in the comparison, or in the final trainings."""
        if candidate.forms is None:
            return Form(1.0, candidate.config, self.epochs, candidate.epoch_seconds)
        return candidate.forms[final]

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
        if self.epochs:
            return _digest({**self._request(), "epochs": self.epochs})
        forms = [
            [[config_id(form.config), form.epochs] for form in each.forms or ()] for each in self.candidates
        ]
        return _digest({**self._request(), "forms": forms})

    def candidate_jobs(self) -> list[Job]:
        """Stage 1: seed by seed, so that pairs are complete early."""
        forms = [(each.name, self.form(each, final=False)) for each in self.candidates]
        return [
            self.seed_job(name, form.config, form.epochs, index, seed)
            for index, seed in enumerate(self.seeds)
            for name, form in forms
        ]

    def winner_jobs(self, winner: Candidate) -> list[Job]:
        """Stage 2, in the order of the seeds, and the folds, which have the first seed."""
        seeds, weights = dict(enumerate(self.seeds)), self.folder / "weights"
        name = f"{winner.name} on all images,"
        form = self.form(winner, final=True)
        finals = self.final_jobs(name, form.config, form.epochs, seeds, weights)
        return finals + self.fold_jobs(winner.name, form.config, form.epochs, self.seeds[0])

    def comparison(self) -> Comparison:
        """Of the candidates, before anything is trained."""
        return Comparison(self.candidates, len(self.seeds), self.data.validation_images, self.aim.metric)

    def progress(self, store: TrainingStore) -> Progress:
        """What is stored of the trainings, and what early stopping leaves, as far as it is known."""
        comparison = self.comparison()
        jobs = self.candidate_jobs()
        missing = []
        for job in jobs:
            found = store.find(job.training)
            if found is None:
                missing.append(job)
            else:
                comparison.add(job.name, job.seed, found.value, found.failure_message)
        wanted = [job for job in missing if comparison.wanted(job.name, job.seed)]
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
        forms = {each.name: self.form(each, final=False) for each in self.candidates}
        known = {name: form.epochs * form.epoch_seconds for name, form in forms.items() if form.epoch_seconds}
        finals = [self.form(each, final=True) for each in self.candidates]
        if not known or self.search is None:
            return None
        slowest = max(form.epochs * form.epoch_seconds for form in finals if form.epoch_seconds)
        images = self.search.train_images + VALIDATION_SHARE * self.data.validation_images
        stages = [
            [_images(job) / images * known.get(job.name, max(known.values())) for job in first],
            [_images(job) / images * slowest for job in later],
        ]
        return sum(makespan(seconds, self.workers) for seconds in stages)

    def _request(self) -> dict[str, Any]:
        return {
            "configs": list(dict.fromkeys(candidate.config_id for candidate in self.candidates)),
            "seeds": list(self.seeds),
            "data": self.data.sha256,
            "device": self.device,
            "precision": self.precision,
            **({"threads": self.threads} if self.threads > 1 else {}),
            **({"keep_size": True} if self.keep_size else {}),
            **({} if self.aim.metric.is_accuracy else {"metric": self.aim.metric.identity}),
            **({"class_weights": self.aim.class_weights} if self.aim.class_weights else {}),
            **({} if self.budget is None else {"budget": self.budget}),
        }


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Seconds that trainings take which are begun in this order, each when a worker is free."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def _images(job: Job) -> float:
    """Images of an epoch of a job; one of validation counts by its share of the cost."""
    training = job.training
    return training.fidelity.train_images + VALIDATION_SHARE * training.data.validation_images


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
