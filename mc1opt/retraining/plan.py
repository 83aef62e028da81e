"""What a retraining will train, and how long that takes: said before it starts.

Stage 1 trains the candidates over several seeds, on all images but those of validation; stage 2 trains the
winner on all training images, once a seed. Folds come on top.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mc1opt.errors import UsageError
from mc1opt.measurement.folds import fold_images
from mc1opt.measurement.store import TrainingStore
from mc1opt.measurement.trainings import Job
from mc1opt.retraining.comparison import Candidate, Comparison
from mc1opt.retraining.epochs import default_epochs, epoch_costs, makespan, remembered_epochs
from mc1opt.seeds import retrain_seed
from mc1opt.spec import DataSet, Device, Fidelity, Fold, Precision, Training


@dataclass(frozen=True)
class CandidateJob(Job):
    """A training of stage 1."""

    trial: int
    seed_index: int


@dataclass(frozen=True)
class Progress:
    """How far the trainings of a plan are."""

    stored: int
    """Trainings that have ended."""
    left: int
    """Trainings that are still wanted, if no further candidate stops early."""
    seconds: float | None
    """Expected for those that are left; None if unknown."""


@dataclass(frozen=True)
class RetrainPlan:
    """The trainings of a retraining."""

    candidates: tuple[Candidate, ...]
    seeds: tuple[int, ...]
    """The first one's model is kept, whatever comes of it."""
    request: str
    """What was asked for, by which its default epochs are remembered."""
    folds: int
    """0 for none."""
    epochs: int
    search: Fidelity | None
    """The trials' fidelity; None if unknown."""
    data: DataSet
    device: Device
    precision: Precision
    workers: int
    weights: Path
    """The folder of the final weights."""
    stage_seconds: tuple[tuple[float, ...], float] | None
    """Expected seconds of a training in stage 1, by candidate, and of one in stage 2; None if unknown."""

    @property
    def train_images(self) -> int:
        """Of a training in stage 1."""
        return self.data.train_images - self.data.validation_images

    @property
    def trainings(self) -> int:
        """Of all stages, if no candidate stops early."""
        return (len(self.candidates) + 1) * len(self.seeds) + self.folds

    @property
    def identity(self) -> str:
        """What is retrained, without the folds, which add to it: the first 12 digits of a hash."""
        return _digest({**_request(self.candidates, self.seeds, self.data), **self._how()})

    def candidate_jobs(self) -> list[CandidateJob]:
        """Stage 1: seed by seed, so that pairs are there early."""
        return [
            CandidateJob(
                f"#{candidate.trial} seed {index + 1}",
                self._training(candidate, seed, self.data, self.train_images),
                candidate.trial,
                index,
            )
            for index, seed in enumerate(self.seeds)
            for candidate in self.candidates
        ]

    def final_jobs(self, winner: Candidate) -> list[Job]:
        """Stage 2: the winner on all training images, with its weights kept."""
        everything = self.data.model_copy(update={"validation_images": 0})
        jobs = []
        for index, seed in enumerate(self.seeds):
            training = self._training(winner, seed, everything, self.data.train_images)
            name = (
                f"{winner.config_id}-{self.epochs}-epochs-{self.device}-{self.precision}-{seed}.safetensors"
            )
            training = training.model_copy(update={"weights": str((self.weights / name).absolute())})
            jobs.append(Job(f"#{winner.trial} on all images, seed {index + 1}", training))
        return jobs

    def fold_jobs(self, winner: Candidate) -> list[Job]:
        """The winner in each fold, all with the first seed: other images, and another order of them, each."""
        jobs = []
        for index in range(self.folds):
            images = fold_images(self.folds, self.data)
            training = self._training(winner, self.seeds[0], self.data, images)
            training = training.model_copy(update={"fold": Fold(index=index, count=self.folds)})
            jobs.append(Job(f"#{winner.trial} fold {index + 1}", training))
        return jobs

    def comparison(self) -> Comparison:
        """Of the candidates, before anything is trained."""
        return Comparison(self.candidates, len(self.seeds), self.data.validation_images)

    def progress(self, store: TrainingStore) -> Progress:
        """What is stored of the trainings, and what early stopping, followed as far as that, has left."""
        comparison = self.comparison()
        jobs = self.candidate_jobs()
        missing = []
        for job in jobs:
            found = store.find(job.training)
            if found is None:
                missing.append(job)
            else:
                comparison.add(job.trial, job.seed_index, found.value, found.failure_message)
        wanted = [job.trial for job in missing if comparison.wanted(job.trial, job.seed_index)]
        winner = comparison.winner() if not wanted else None
        finals = folds = 0
        for candidate in self.candidates if winner is None else [winner.candidate]:
            finals = max(finals, _count(store, self.final_jobs(candidate)))
            folds = max(folds, _count(store, self.fold_jobs(candidate)))
        finals_left, folds_left = len(self.seeds) - finals, self.folds - folds
        seconds = None
        if self.stage_seconds is not None:
            by_trial = dict(zip((c.trial for c in self.candidates), self.stage_seconds[0], strict=True))
            share = fold_images(self.folds, self.data) / self.data.train_images
            of_winner = [self.stage_seconds[1]] * finals_left + [share * self.stage_seconds[1]] * folds_left
            seconds = makespan([by_trial[trial] for trial in wanted], self.workers)
            seconds += makespan(of_winner, self.workers)
        return Progress(
            stored=len(jobs) - len(missing) + finals + folds,
            left=len(wanted) + finals_left + folds_left,
            seconds=seconds,
        )

    def _training(self, candidate: Candidate, seed: int, data: DataSet, images: int) -> Training:
        return Training(
            config=candidate.config,
            fidelity=Fidelity(train_images=images, epochs=self.epochs),
            seed=seed,
            data=data,
            device=self.device,
            precision=self.precision,
        )

    def _how(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "device": self.device, "precision": self.precision}


def make_plan(
    candidates: Sequence[Candidate],
    *,
    study_seed: int,
    seeds: int,
    folds: int,
    epochs: int | None,
    search: Fidelity | None,
    data: DataSet,
    device: Device,
    precision: Precision,
    workers: int,
    folder: Path,
) -> RetrainPlan:
    """Plans a retraining; the default epochs that an earlier start of the same one chose are kept.

    Args:
        candidates: what is trained.
        study_seed: the seeds are derived from it.
        seeds: how many.
        folds: 0 for none, else as many as `check_folds` allows.
        epochs: of each training; None for as many as fit into `AIM_SECONDS`.
        search: the trials' fidelity, which their seconds belong to; None if unknown.
        data: the images.
        device: where.
        precision: what is computed in.
        workers: trainings at once.
        folder: the study's models.

    Raises:
        UsageError: the images allow no validation.
    """
    if data.validation_images < 1:
        raise UsageError(f"{data.name} has no validation images: {data.train_images} are too few to retrain.")
    values = tuple(retrain_seed(study_seed, index) for index in range(seeds))
    costs = epoch_costs(candidates, search, data)
    request = _digest({**_request(candidates, values, data), "device": device, "precision": precision})
    if epochs is None:
        epochs = remembered_epochs(folder, request) or default_epochs(
            costs, seeds=seeds, folds=[fold_images(folds, data) / data.train_images] * folds, workers=workers
        )
    stage_seconds = None
    if costs is not None:
        stage_seconds = tuple(epochs * cost for cost in costs[0]), epochs * costs[1]
    return RetrainPlan(
        candidates=tuple(candidates),
        seeds=values,
        request=request,
        folds=folds,
        epochs=epochs,
        search=search,
        data=data,
        device=device,
        precision=precision,
        workers=workers,
        weights=folder / "weights",
        stage_seconds=stage_seconds,
    )


def _request(candidates: Sequence[Candidate], seeds: Sequence[int], data: DataSet) -> dict[str, Any]:
    return {
        "configs": [candidate.config_id for candidate in candidates],
        "seeds": list(seeds),
        "data": data.sha256,
    }


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _count(store: TrainingStore, jobs: Sequence[Job]) -> int:
    return sum(store.find(job.training) is not None for job in jobs)
