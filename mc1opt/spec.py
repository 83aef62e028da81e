"""A training, as data: what is trained, and what comes of it. No torch here: every layer speaks of it."""

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from mc1opt.config import Config
from mc1opt.dataset import DataSet
from mc1opt.fields import later_field
from mc1opt.metric import ACCURACY, ClassWeights, Metric

Device = Literal["cpu", "cuda", "mps"]
DEVICES: tuple[Device, ...] = ("cpu", "cuda", "mps")

Precision = Literal["float32", "bfloat16"]

FailureKind = Literal[
    "diverged", "out_of_memory", "timed_out", "network", "crashed", "killed", "storage", "search_space"
]

CAUSED_BY_CONFIG: tuple[FailureKind, ...] = ("diverged", "out_of_memory", "timed_out", "network")
"""Failures that say something of the config; the others are the world's, and are no results."""

CHECKPOINT_SECONDS = 10.0
"""How often the state of a training is written, at most: what a killed process may have to train again."""

INFERENCE_BATCH = 500
"""Images at once where nothing is learnt from them: the cache of the CPU is the limit, not memory."""

UNUSED_SHARE = 0.3
"""Unused images that validate after the last epoch, for each image that was trained."""

SMALLER_STEPS = 4
"""Into so many parts batches are cut where memory was short."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Fidelity(_Model):
    """How much a config is trained: the price and the sharpness of a measurement."""

    train_images: int = Field(ge=1)
    """Training images, a stratified part of those that validation leaves."""
    epochs: int = Field(ge=1)
    validation: Literal["held_out", "unused"] = "held_out"
    """Images that validate: those held out of all trainings, or training images that this one does not use,
    which are more of them, and leave the held-out ones for choosing among finalists."""

    short_epochs: int = Field(default=0, ge=0)
    """Epochs of a whole schedule before that of `epochs`, from the same initialisation: its end ranks configs
    as the long one does, which the beginning of the long one does not. 0 for none."""

    @property
    def all_epochs(self) -> int:
        """Epochs of both schedules."""
        return self.short_epochs + self.epochs

    def within_schedule(self, epoch: int) -> tuple[int, int]:
        """Where epoch `epoch` lies within its schedule (from 0), and how many epochs that schedule has."""
        if epoch < self.short_epochs:
            return epoch, self.short_epochs
        return epoch - self.short_epochs, self.epochs

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is as it was before there was a field for it: stored identities last."""
        before = {"validation": "held_out", "short_epochs": 0}
        content: dict[str, Any] = serialise(self)
        return {key: value for key, value in content.items() if before.get(key) != value}


class Fold(_Model):
    """One part of a stratified cross-validation: it validates, the other parts train."""

    index: int = Field(ge=0)
    """Counted from 0."""
    count: int = Field(ge=2)
    """Parts of all training images."""

    @model_validator(mode="after")
    def _is_one_of_them(self) -> "Fold":
        if self.index >= self.count:
            raise ValueError(f"fold {self.index} of {self.count}: they are counted from 0")
        return self


class Training(_Model):
    """What a worker does: the same thing for a trial, a preset, a retraining."""

    config: Config
    fidelity: Fidelity
    seed: int = Field(ge=0, lt=2**63)
    data: DataSet
    device: Device = "cpu"
    threads: int = Field(default=1, ge=1)
    """Intra-op threads on a CPU. The curve depends on them, in its last bits."""
    precision: Precision = "float32"
    """What convolutions and linear layers compute in (`torch.autocast`); weights stay float32."""
    accumulation: int = Field(default=1, ge=1)
    """Parts of each batch that go through the network one after the other, their gradients added up: less
    memory for the same batch. Batch norm has the statistics of a part, so that the curve is another one."""
    fold: Fold | None = None
    """Which part of all training images validates, instead of the data set's own validation images."""
    metric: Metric = later_field(ACCURACY)
    """By which the training is judged, beside the accuracy."""
    class_weights: ClassWeights | None = later_field(None)
    """None where every image counts the same."""
    weights: str | None = None
    """Where the weights go after the last epoch (a safetensors file), or None to drop them."""
    checkpoint: str | None = None
    """Where the state goes at ends of epochs, and from where the training goes on; None for neither. Whoever
    has it trained deletes the file in the end."""
    checkpoint_seconds: float = Field(default=CHECKPOINT_SECONDS, ge=0.0)
    """That state is written at most once in so many seconds, and when the training is interrupted."""

    @property
    def unused_images(self) -> int:
        """Unused training images that validate after the last epoch; 0 where others validate.

        As many as cost a tenth of the training, a forward pass being a third of a step; at least as many as
        are held out, if there are so many.
        """
        if self.fidelity.validation == "held_out" or self.fold is not None:
            return 0
        left = self.data.train_images - self.data.validation_images - self.fidelity.train_images
        worth = round(UNUSED_SHARE * self.fidelity.train_images * self.fidelity.epochs)
        return max(0, min(left, max(worth, self.data.validation_images)))

    def in_smaller_steps(self) -> "Training | None":
        """The same training with a quarter of the images in memory at once, or as few as batch norm bears.

        None where it is trained so already, or batches are of fewer than 4 images.
        """
        batch = min(self.config.batch_size, self.fidelity.train_images)
        parts = min(SMALLER_STEPS, batch // 2)
        if self.accumulation > 1 or parts < 2:
            return None
        return self.model_copy(update={"accumulation": parts})


class EpochResult(_Model):
    """What one epoch gave. A NaN loss or accuracy never gets here: see `TrainingFailed`."""

    epoch: int = Field(ge=0)
    """Counted from 0, over both schedules."""
    loss: float = Field(allow_inf_nan=False)
    """Mean training loss over the epoch, label smoothing and class weights included."""
    validation_accuracy: float | None = Field(ge=0.0, le=1.0)
    """None where no images are kept back for validation."""
    seconds: float = Field(ge=0.0)
    """Training and validation, without start-up."""
    metric_value: float | None = later_field(None, allow_inf_nan=False)
    """The value of the training's metric, where that is another one than accuracy."""
    restored: bool = False
    """Whether it comes from a checkpoint: the epoch was trained before the training was interrupted."""

    @property
    def accuracy(self) -> float:
        """The validation accuracy of a training that validates.

        Raises:
            ValueError: no images were kept back for it.
        """
        if self.validation_accuracy is None:
            raise ValueError("this training has no validation images")
        return self.validation_accuracy

    @property
    def judged(self) -> float | None:
        """The value of the training's metric, accuracy or another; None where nothing validates."""
        return self.validation_accuracy if self.metric_value is None else self.metric_value

    @property
    def value(self) -> float:
        """The same, of a training that validates.

        Raises:
            ValueError: no images were kept back for it.
        """
        return self.accuracy if self.metric_value is None else self.metric_value


class TrainingFailed(Exception):  # noqa: N818  (a result, not an error of the program)
    """A training ended without a result, and why."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind: FailureKind = kind
        self.message = message
        self.training: Training | None = None
        self.results: tuple[EpochResult, ...] = ()
        """Of its epochs before the failure. Both are set by `mc1opt.workers.train.train`."""
