"""What a retraining will train, and how long that takes: said before it starts.

Stage 1 trains the candidates over several seeds, on all images but those of validation; stage 2 trains the
winner on all training images, once a seed. Folds come on top.
"""

import hashlib
import heapq
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mc1opt.config import CLASSES
from mc1opt.errors import StorageError, UsageError
from mc1opt.results.candidates import Candidate
from mc1opt.results.training_store import TrainingStore
from mc1opt.results.trainings import Job
from mc1opt.seeds import derive_seed
from mc1opt.spec import DataSet, Device, Fidelity, Fold, Precision, Training

AIM_SECONDS = 3600.0
"""What both stages shall take together where nobody says how many epochs."""
LEAST_EPOCHS = 5
MOST_EPOCHS = 200
UNKNOWN_EPOCHS = 20
"""Where the study does not know how long an epoch takes."""
FORWARD_SHARE = 1 / 3
"""An image's forward pass alone, as a share of forward and backward pass together."""


@dataclass(frozen=True)
class CandidateJob(Job):
    """A training of stage 1."""

    trial: int
    seed_index: int


@dataclass(frozen=True)
class RetrainPlan:
    """The trainings of a retraining."""

    candidates: tuple[Candidate, ...]
    seeds: tuple[int, ...]
    """The first one's model is kept, whatever comes of it."""
    folds: int
    """0 for none."""
    epochs: int
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
    def fold_images(self) -> int:
        """Training images of a fold: as many as the largest fold leaves, in all of them."""
        return self.data.train_images - math.ceil(self.data.train_images / max(self.folds, 1))

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
        """The winner in each fold, with the first seed: so their spread is that of the images alone."""
        return [
            Job(
                f"#{winner.trial} fold {index + 1}",
                self._training(winner, self.seeds[0], self.data, self.fold_images).model_copy(
                    update={"fold": Fold(index=index, count=self.folds)}
                ),
            )
            for index in range(self.folds)
        ]

    def stored(self, store: TrainingStore) -> tuple[int, float | None]:
        """How many of the trainings are stored, and the expected seconds of the others."""
        jobs = self.candidate_jobs()
        missing = [job.trial for job in jobs if store.find(job.training) is None]
        finals = folds = 0
        for candidate in self.candidates:
            finals = max(finals, _count(store, self.final_jobs(candidate)))
            folds = max(folds, _count(store, self.fold_jobs(candidate)))
        done = len(jobs) - len(missing) + finals + folds
        if self.stage_seconds is None:
            return done, None
        by_trial = dict(zip((c.trial for c in self.candidates), self.stage_seconds[0], strict=True))
        share = self.fold_images / self.data.train_images if self.folds else 0.0
        return done, (
            makespan([by_trial[trial] for trial in missing], self.workers)
            + makespan([self.stage_seconds[1]] * (len(self.seeds) - finals), self.workers)
            + makespan([share * self.stage_seconds[1]] * (self.folds - folds), self.workers)
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
    """Plans a retraining; the epochs that an earlier start of the same one chose are kept.

    Args:
        candidates: what is trained.
        study_seed: the seeds are derived from it.
        seeds: how many.
        folds: 0 for none.
        epochs: of each training; None for as many as fit into `AIM_SECONDS`.
        search: the trials' fidelity, which their seconds belong to; None if unknown.
        data: the images.
        device: where.
        precision: what is computed in.
        workers: trainings at once.
        folder: the study's models.

    Raises:
        UsageError: the images allow no validation, or not so many folds.
    """
    if data.validation_images < 1:
        raise UsageError(f"{data.name} has no validation images: {data.train_images} are too few to retrain.")
    if folds > data.train_images // CLASSES:
        raise UsageError(
            f"--folds {folds} is too many for {data.train_images} training images; at most "
            f"{data.train_images // CLASSES}."
        )
    values = tuple(derive_seed(study_seed, "retrain", index) for index in range(seeds))
    costs = _epoch_costs(candidates, search, data)
    if epochs is None:
        request = {**_request(candidates, values, data), "device": device, "precision": precision}
        epochs = _remembered_epochs(folder, _digest(request), costs, seeds, workers)
    stage_seconds = None
    if costs is not None:
        stage_seconds = tuple(epochs * cost for cost in costs[0]), epochs * costs[1]
    return RetrainPlan(
        candidates=tuple(candidates),
        seeds=values,
        folds=folds,
        epochs=epochs,
        data=data,
        device=device,
        precision=precision,
        workers=workers,
        weights=folder / "weights",
        stage_seconds=stage_seconds,
    )


def default_epochs(costs: tuple[Sequence[float], float], seeds: int, workers: int) -> int:
    """As many epochs as let both stages take `AIM_SECONDS` together, in rounds of trainings on workers.

    Args:
        costs: seconds of an epoch in stage 1, by candidate, and of one in stage 2.
        seeds: trainings of each candidate, and of the winner.
        workers: trainings at once.
    """
    one_epoch = makespan(list(costs[0]) * seeds, workers) + makespan([costs[1]] * seeds, workers)
    return min(MOST_EPOCHS, max(LEAST_EPOCHS, int(AIM_SECONDS / one_epoch)))


def makespan(seconds: Sequence[float], workers: int) -> float:
    """How long trainings take that are begun in this order, each when a worker is free."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def _epoch_costs(
    candidates: Sequence[Candidate], search: Fidelity | None, data: DataSet
) -> tuple[tuple[float, ...], float] | None:
    """Seconds of an epoch in both stages, from those of the search; the slowest candidate may win."""
    known = [c.epoch_seconds for c in candidates if c.epoch_seconds]
    if not known or search is None:
        return None
    validation = FORWARD_SHARE * data.validation_images
    images = search.train_images + validation
    measured = [(c.epoch_seconds or max(known)) / images for c in candidates]
    first = data.train_images - data.validation_images + validation
    return tuple(each * first for each in measured), max(measured) * data.train_images


def _remembered_epochs(
    folder: Path,
    request: str,
    costs: tuple[Sequence[float], float] | None,
    seeds: int,
    workers: int,
) -> int:
    """The default epochs of a request: those of its first start, however many workers there were then."""
    path = folder / "epochs.json"
    try:
        remembered = json.loads(path.read_text())
    except (OSError, ValueError):
        remembered = {}
    if not isinstance(remembered, dict):
        remembered = {}
    if isinstance(epochs := remembered.get(request), int) and epochs > 0:
        return epochs
    epochs = UNKNOWN_EPOCHS if costs is None else default_epochs(costs, seeds, workers)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({**remembered, request: epochs}, indent=2) + "\n")
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}.") from error
    return epochs


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
