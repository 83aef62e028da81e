"""Finished trainings in a file, a line each, which are never trained again.

Not here: training what is missing (`mc1opt.measurement.trainings`).
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from mc1opt.config import config_id
from mc1opt.errors import StorageError, describe_validation_error
from mc1opt.fields import later_field
from mc1opt.files import append_line, read_lines, remove_checkpoint
from mc1opt.metric import ACCURACY, ClassWeights, Metric
from mc1opt.spec import (
    Device,
    EpochResult,
    FailureKind,
    Fidelity,
    Fold,
    Precision,
    Training,
)
from mc1opt.training.model_folder import file_sha256

REPEATABLE: tuple[FailureKind, ...] = ("diverged", "network")
"""Failures that repeat, and so are results; a training with another failure is tried again."""
TRAININGS = "trainings.jsonl"
"""The file of finished trainings, in the folder of a study's models or of presets."""


class Failure(BaseModel):
    """Why a training ended without a result, and would again."""

    model_config = ConfigDict(frozen=True)

    kind: FailureKind
    message: str


class TrainingKey(BaseModel):
    """What distinguishes two trainings."""

    model_config = ConfigDict(frozen=True)

    config_id: str
    seed: int
    fold: Fold | None
    fidelity: Fidelity
    data: str
    """SHA-256 of the data; see `DataSet`."""
    validation_images: int
    device: Device
    threads: int
    precision: Precision
    metric: Metric = later_field(ACCURACY)
    """Without the place of its file."""
    class_weights: ClassWeights | None = later_field(None)

    @classmethod
    def of(cls, training: Training) -> Self:
        """The key of a training."""
        return cls(
            config_id=config_id(training.config),
            seed=training.seed,
            fold=training.fold,
            fidelity=training.fidelity,
            data=training.data.sha256,
            validation_images=training.data.validation_images,
            device=training.device,
            threads=training.threads,
            precision=training.precision,
            metric=training.metric.model_copy(update={"path": None}),
            class_weights=training.class_weights,
        )


class StoredTraining(BaseModel):
    """A training that has ended, and its results."""

    model_config = ConfigDict(frozen=True)

    key: TrainingKey
    curve: tuple[EpochResult, ...]
    failure: Failure | None = None
    seconds: float
    """From start to end, with the wait for a worker; after an interruption, at least those of all epochs."""
    accumulation: int = 1
    """Parts of each batch whose gradients were added up; more than 1 where memory was short."""
    weights_sha256: str | None = None
    versions: dict[str, str | int]
    commit: str | None
    ended: str
    """Time in UTC."""

    @property
    def value(self) -> float | None:
        """The metric's value after the last epoch; None without validation, or where it failed."""
        return self.curve[-1].judged if self.curve and self.failure is None else None

    @property
    def accuracy(self) -> float | None:
        """The same of the validation accuracy."""
        return self.curve[-1].validation_accuracy if self.curve and self.failure is None else None

    @property
    def failure_message(self) -> str | None:
        """Why it failed; None if it did not."""
        return None if self.failure is None else self.failure.message


class TrainingStore:
    """The finished trainings in a file; of several with one key, the last one counts.

    Args:
        path: the file; it may be missing.
        others: files of further trainings, which are read, and never written; the same.

    Raises:
        StorageError: a file cannot be read, or is damaged.
    """

    def __init__(self, path: Path, *others: Path) -> None:
        self.path = path
        self._by_key: dict[TrainingKey, StoredTraining] = {}
        for each in (*others, path):
            self._read(each)

    def _read(self, path: Path) -> None:
        for number, record in enumerate(read_lines(path), start=1):
            try:
                stored = StoredTraining.model_validate(record)
            except ValidationError as error:
                raise StorageError(
                    f"{path}, line {number} is no training: {describe_validation_error(error)}. Delete the "
                    "line, or the file."
                ) from error
            self._by_key[stored.key] = stored

    def find(self, training: Training) -> StoredTraining | None:
        """The stored training; None if there is none, or if its weights are wanted, but missing or others."""
        stored = self._by_key.get(TrainingKey.of(training))
        if stored is None or training.weights is None or stored.failure is not None:
            return stored
        weights = Path(training.weights)
        whole = weights.is_file() and file_sha256(weights) == stored.weights_sha256
        return stored if whole else None

    def __iter__(self) -> Iterator[StoredTraining]:
        """All of them, in the order in which they were first stored."""
        return iter(list(self._by_key.values()))

    def checkpoint_path(self, training: Training) -> Path:
        """The checkpoint of a training; in smaller steps it is another one."""
        name = hashlib.sha256(TrainingKey.of(training).model_dump_json().encode()).hexdigest()[:16]
        if training.accumulation > 1:
            name += f"-{training.accumulation}"
        return self.path.parent / "checkpoints" / f"{name}.checkpoint"

    def as_interrupted(self, training: Training) -> Training:
        """The training as it was interrupted: in smaller steps, if memory was short."""
        smaller = training.in_smaller_steps()
        return smaller if smaller is not None and self.checkpoint_path(smaller).exists() else training

    def remove_checkpoints(self, training: Training) -> None:
        """Deletes the checkpoints of a training that is over, also in smaller steps."""
        for each in (training, training.in_smaller_steps()):
            if each is not None:
                remove_checkpoint(self.checkpoint_path(each))

    def add(self, stored: StoredTraining) -> None:
        """Stores a training; it is on disk when this returns."""
        append_line(self.path, stored.model_dump(mode="json"))
        self._by_key[stored.key] = stored
