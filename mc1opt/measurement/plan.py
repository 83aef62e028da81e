"""Which trainings measure configs: each over seeds, on all images or without those of validation, and folds.

Retraining and the published models share these jobs, and the options of their commands. Not here: which
configs and seeds, and having them trained (`mc1opt.measurement.trainings`).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mc1opt.config import Config, config_id
from mc1opt.dataset import DataSet
from mc1opt.errors import UsageError
from mc1opt.machine.memory import MemoryNeed, training_memory
from mc1opt.metric import Aim
from mc1opt.spec import Device, Fidelity, Fold, Precision, Training
from mc1opt.workers.engine import Engine

CHECKPOINT_SECONDS = 60.0
"""How often the state of a training is written, at most: of a deep network it has hundreds of megabytes."""


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """The options that `mc1opt retrain` and `mc1opt presets run` share."""

    storage: str
    """The study database; models and trainings are stored beside it."""
    seeds: int = 3
    """Trainings of each config."""
    folds: int | None = None
    """Folds of the cross-validation; None if the command names none."""
    epochs: int | None = None
    """Epochs of each training; None for the default."""
    timeout: float | None = None
    """Seconds; None for no limit."""
    engine: Engine = field(default_factory=Engine)
    data: Path | None = None
    """Files of images; None for the default."""


@dataclass(frozen=True)
class Job:
    """A training with a name for people."""

    name: str
    """Of the config: "#7", "cnn-deep (published)"."""
    seed: int
    """Index of the training's seed, from 0."""
    training: Training

    @property
    def label(self) -> str:
        """The name, with the fold or the seed, counted from 1."""
        fold = self.training.fold
        return f"{self.name} seed {self.seed + 1}" if fold is None else f"{self.name} fold {fold.index + 1}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the trainings of a measurement have in common."""

    folds: int
    """Folds of the cross-validation; 0 for none."""
    data: DataSet
    device: Device
    precision: Precision
    workers: int
    """Trainings at once."""
    threads: int = 1
    """Intra-op threads of each."""
    folder: Path
    """Where trainings and test results are stored."""
    aim: Aim = field(default_factory=Aim)
    """By what trainings are judged, and what an image counts."""

    @property
    def train_images(self) -> int:
        """Training images without those of validation."""
        return self.data.train_images - self.data.validation_images

    @property
    def fold_images(self) -> int:
        """Training images of each fold: as many as the largest fold leaves."""
        return self.data.train_images - math.ceil(self.data.train_images / max(self.folds, 1))

    def seed_job(self, name: str, config: Config, epochs: int, index: int, seed: int) -> Job:
        """A training that validates on the data set's validation images.

        Args:
            name: of the config, for people.
            config: what is trained.
            epochs: how long.
            index: of the seed, from 0.
            seed: the seed itself.
        """
        training = Training(
            config=config,
            fidelity=Fidelity(train_images=self.train_images, epochs=epochs),
            seed=seed,
            data=self.data,
            device=self.device,
            precision=self.precision,
            threads=self.threads,
            metric=self.aim.metric,
            class_weights=self.aim.class_weights,
            checkpoint_seconds=CHECKPOINT_SECONDS,
        )
        return Job(name, index, training)

    def final_jobs(
        self, name: str, config: Config, epochs: int, seeds: Mapping[int, int], weights: Path
    ) -> list[Job]:
        """Trainings on all training images, whose weights are written to be tested; see `seed_job`.

        Args:
            name: of the config, for people.
            config: what is trained.
            epochs: how long.
            seeds: by index.
            weights: the folder of the weights.
        """
        trained = f"{config_id(config)}-{epochs}-epochs-{self.device}-{self.precision}"
        changes = {
            "fidelity": Fidelity(train_images=self.data.train_images, epochs=epochs),
            "data": self.data.model_copy(update={"validation_images": 0}),
        }
        jobs = []
        for index, seed in seeds.items():
            training = self.seed_job(name, config, epochs, index, seed).training
            path = str((weights / f"{trained}-{seed}.safetensors").absolute())
            jobs.append(Job(name, index, training.model_copy(update={**changes, "weights": path})))
        return jobs

    def fold_jobs(self, name: str, config: Config, epochs: int, seed: int) -> list[Job]:
        """A training in each fold, all with one seed; each orders its images otherwise. See `seed_job`."""
        training = self.seed_job(name, config, epochs, 0, seed).training
        jobs = []
        for index in range(self.folds):
            fidelity = Fidelity(train_images=self.fold_images, epochs=epochs)
            changes = {"fidelity": fidelity, "fold": Fold(index=index, count=self.folds)}
            jobs.append(Job(name, 0, training.model_copy(update=changes)))
        return jobs


def memory_needs(
    configs: Iterable[Config], data: DataSet, device: Device, precision: Precision
) -> list[MemoryNeed]:
    """What the training of each config on all training images takes, which needs the most."""
    return [
        training_memory(
            config,
            data.shape,
            train_images=data.train_images,
            validation_images=0,
            device=device,
            precision=precision,
        )
        for config in configs
    ]


def check_folds(folds: int, data: DataSet) -> None:
    """Checks that the images allow so many folds; 0 are none.

    Raises:
        UsageError: a class has fewer training images.
        DataError: the images are missing or damaged.
    """
    if not folds:
        return
    from mc1opt.data.images import smallest_class

    most = smallest_class(data)
    if folds > most:
        raise UsageError(
            f"--folds {folds} is too many: the smallest class of {data.name} has {most} training images, and "
            f"each fold needs one of it; at most {most}."
        )
