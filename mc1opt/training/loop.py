"""PyTorch's training loop: from a training to one result per epoch.

It does not know trials: searches, presets and retrainings all call `train`.
"""

import copy
import functools
import json
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mc1opt.config import ConvNet, WhitenedStem, config_to_json
from mc1opt.data.augment import alternating_flips, augment_batch, shrink
from mc1opt.data.images import ImageSplit, open_training_images
from mc1opt.metric_functions import NAMED, metric_function
from mc1opt.models.build import build_model
from mc1opt.models.whitening import whitening_filters
from mc1opt.seeds import derive_seed
from mc1opt.spec import INFERENCE_BATCH, EpochResult, Training, TrainingFailed
from mc1opt.training.accuracy import accuracy, logits_on
from mc1opt.training.checkpoint import (
    CheckpointError,
    CheckpointWriter,
    State,
    load_checkpoint,
    save_weights,
    set_state,
    state_of,
)
from mc1opt.training.optim import (
    build_optimizer,
    learning_rate_factor,
    optimizer_state_keys,
    set_learning_rate,
    update_average,
)

logger = logging.getLogger(__name__)

STATISTICS_IMAGES = 5_000
"""Number of training images that mean, standard deviation and whitening filters are computed from."""

# The trainings of a search share their images: a worker copies them once.
_open_images = functools.lru_cache(maxsize=1)(open_training_images)
# Loading a study file takes as long as its imports.
_metric_function = functools.lru_cache(maxsize=1)(metric_function)


class Trainer:
    """One training in progress: network, optimizer, images, and a method that trains one epoch.

    Each epoch draws from its own seed, so that training it again, or resuming there, gives the same result.
    """

    def __init__(self, training: Training) -> None:
        config = training.config
        self.training = training
        self.device = torch.device(training.device)
        if training.device == "cpu":
            torch.set_num_threads(training.threads)
            # Weights that decay towards zero would become denormal numbers, which are slow on a CPU.
            torch.set_flush_denormal(True)
        self.images = _open_images(
            training.data,
            training.fidelity.train_images,
            training.device,
            training.fold,
            training.unused_images,
        )
        self._begin()
        self.batch_size = min(config.batch_size, training.fidelity.train_images)
        # The last, smaller batch is dropped (other images in every epoch): a single image has no batch
        # statistics.
        self.steps_an_epoch = training.fidelity.train_images // self.batch_size
        self.fill = self.images.mean_colour
        self.metric = _metric_function(training.metric, training.data.classes)
        self.class_weights = None
        if training.class_weights == "balanced":
            self.class_weights = balanced_weights(self.images.train_labels, training.data.classes)

    def _begin(self) -> None:
        """An untrained network and its optimizer."""
        config = self.training.config
        torch.manual_seed(derive_seed(self.training.seed, "initialisation"))
        self.model = new_model(self.training, self.images).to(self.device)
        # What is validated and stored.
        self.averaged = copy.deepcopy(self.model) if config.weight_averaging else self.model
        self.optimizer = build_optimizer(self.model, config.optimizer)

    def train_epoch(self, epoch: int) -> EpochResult:
        """Trains epoch `epoch` (from 0) and measures the accuracy on the validation images, if there are any.

        Raises:
            TrainingFailed: `diverged`: the loss or a logit is not finite.
        """
        started = time.monotonic()
        place, epochs = self.training.fidelity.within_schedule(epoch)
        if place == 0 and epoch > 0:
            self._begin()
        seed = derive_seed(self.training.seed, "epoch", epoch)
        torch.manual_seed(seed)  # dropout
        generator = torch.Generator().manual_seed(seed)  # order and augmentation, on the CPU for every device
        config = self.training.config
        images = self.training.fidelity.train_images
        order = torch.randperm(images, generator=generator)
        flips = None
        if config.augmentation.flip == "alternating":
            flips = alternating_flips(images, derive_seed(self.training.seed, "flip"), epoch)
        size = config.progressive_size if 2 * (place + 1) <= epochs else None
        total_steps = self.steps_an_epoch * epochs
        loss_sum = torch.zeros((), device=self.device)
        self.model.train()
        for step in range(self.steps_an_epoch):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            number = place * self.steps_an_epoch + step
            factor = learning_rate_factor(config.schedule, number, total_steps)
            set_learning_rate(self.optimizer, factor)
            loss_sum += self._step(batch, generator, flips, size)
            if config.weight_averaging:
                update_average(self.averaged, self.model, config.weight_averaging, number, total_steps)
        loss = loss_sum.item() / self.steps_an_epoch
        if not math.isfinite(loss):
            raise TrainingFailed("diverged", f"the training loss of epoch {epoch} is {loss}")
        right, value = self._validate(epoch)
        return EpochResult(
            epoch=epoch,
            loss=loss,
            validation_accuracy=right,
            metric_value=value,
            seconds=time.monotonic() - started,
        )

    def state(self) -> State:
        """Everything that the next epoch depends on but its number: the tensors themselves, not copies."""
        return state_of(self.model, self.optimizer, self.averaged)

    def _validate(self, epoch: int) -> tuple[float | None, float | None]:
        """The validation accuracy, and the value of another metric; None if there are no validation images.

        Raises:
            TrainingFailed: `diverged`: a logit or a weight is not finite.
            StudyFileError: the study file's metric raised, or returned no finite number.
        """
        if not len(self.images.validation_images):
            # Losses are measured before each step: nothing else would notice what the last step did.
            tensors = (tensor for tensor in self.averaged.state_dict().values() if tensor.is_floating_point())
            if not torch.stack([tensor.isfinite().all() for tensor in tensors]).all():
                raise TrainingFailed("diverged", f"the weights are not finite after epoch {epoch}")
            return None, None
        # Unused images may be many: all of them only where the trial's value is measured.
        last = epoch == self.training.fidelity.all_epochs - 1
        count = None if last or not self.training.unused_images else self.training.data.validation_images
        images, labels = self.images.validation_images[:count], self.images.validation_labels[:count]
        batch_size = math.ceil(INFERENCE_BATCH / self.training.accumulation)
        diverged = TrainingFailed("diverged", f"logits on validation images are not finite in epoch {epoch}")
        with self.autocast():
            if self.training.metric.is_accuracy:
                right = accuracy(self.averaged, images, labels, batch_size=batch_size)
                if math.isnan(right):
                    raise diverged
                return right, None
            logits = logits_on(self.averaged, images, batch_size=batch_size)
        if not np.isfinite(logits).all():
            raise diverged
        truth = labels.cpu().numpy()
        return NAMED["accuracy"](logits, truth), self.metric(logits, truth)

    def _step(
        self,
        batch: torch.Tensor,
        generator: torch.Generator,
        flips: torch.Tensor | None = None,
        size: int | None = None,
    ) -> torch.Tensor:
        """One optimizer step on the images with these indices; returns the loss, still on the device.

        Gradient accumulation adds up the gradients of the micro-batches, each weighted with its share of the
        images: the gradient of the mean loss over the batch, except for the effect on batch norm.
        """
        config = self.training.config
        images_NCHW = augment_batch(  # noqa: N806  (shape suffix)
            self.images.train_images, batch, config.augmentation, generator, self.fill, flips
        )
        if size is not None and size < self.training.data.size:
            images_NCHW = shrink(images_NCHW, size)  # noqa: N806  (shape suffix)
        labels = self.images.train_labels[batch.to(self.device)]
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.training.accumulation
        losses = []
        for images, targets in zip(images_NCHW.tensor_split(parts), labels.tensor_split(parts), strict=True):
            with self.autocast():
                logits = self.model(images)
                loss = F.cross_entropy(
                    logits, targets, self.class_weights, label_smoothing=config.label_smoothing
                )
            if parts > 1:
                loss = loss * self._share(targets, labels)
            torch.autograd.backward(loss)
            losses.append(loss.detach())
        self.optimizer.step()
        return losses[0] if parts == 1 else torch.stack(losses).sum()

    def _share(self, part: torch.Tensor, batch: torch.Tensor) -> float | torch.Tensor:
        """The share of a micro-batch in the mean loss over its batch, by their labels."""
        if self.class_weights is None:
            return len(part) / len(batch)
        return self.class_weights[part].sum() / self.class_weights[batch].sum()

    def autocast(self) -> torch.autocast:
        """Context in which the training computes in its precision."""
        enabled = self.training.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


def balanced_weights(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Weights of the classes in the loss, as scikit-learn's "balanced": n / (classes * count of the class).

    Over the images their mean is 1. A class without images has the weight 0.
    """
    counts = labels.bincount(minlength=classes).float()
    return torch.where(counts > 0, len(labels) / (classes * counts), torch.zeros_like(counts))


def new_model(training: Training, images: ImageSplit) -> nn.Module:
    """An untrained network for a training; its image statistics come from the training images alone."""
    sample = images.train_images[:STATISTICS_IMAGES].cpu().float()
    if training.config.normalisation == "symmetric":
        mean = std = torch.full((training.data.channels,), 127.5)
    else:
        mean = sample.mean((0, 2, 3))
        # At least 1 of the 256 levels: a constant channel would be divided by zero.
        std = sample.std((0, 2, 3)).clamp(min=1.0)
    architecture = training.config.architecture
    whitening = None
    if isinstance(architecture, ConvNet) and isinstance(architecture.stem, WhitenedStem):
        normalised = (sample - mean[:, None, None]) / std[:, None, None]
        whitening = whitening_filters(normalised, architecture.stem.kernel_size)
    initialisation = training.config.initialisation
    return build_model(
        architecture,
        training.data.shape,
        initialisation=initialisation,
        mean=mean,
        std=std,
        whitening=whitening,
    )


def train(training: Training) -> Iterator[EpochResult]:
    """Trains one epoch for each result that is asked for; closing the iterator ends the training.

    On the CPU the same training gives the same results, bit for bit, on the same CPU capability (for
    bfloat16: the same instructions) and torch build. After the last epoch the weights are written to
    `training.weights`.

    If `training.checkpoint` names a file, the state is written there at ends of epochs. A training that finds
    its own checkpoint resumes from it: it yields the results of the earlier epochs, marked `restored`, and
    trains the others, with the same results as without the interruption. A checkpoint that is damaged or
    belongs to another training is ignored with a warning. On KeyboardInterrupt the state at the last epoch's
    end is written before the exception propagates.

    Raises:
        TrainingFailed: `diverged`: the loss, a logit or a weight is not finite; `storage`: the weights cannot
            be written.
        DataError: the images are missing or too few.
    """
    trainer = Trainer(training)
    results = _restore(trainer)
    if len(results) == training.fidelity.all_epochs:
        _save_weights(trainer)
    yield from [result.model_copy(update={"restored": True}) for result in results]
    checkpoints = CheckpointWriter(training, trainer.state)
    try:
        for epoch in range(len(results), training.fidelity.all_epochs):
            results.append(trainer.train_epoch(epoch))
            checkpoints.epoch_ended(results)
            # Before the last result, so that a finished training always has its weights.
            if epoch == training.fidelity.all_epochs - 1:
                _save_weights(trainer)
            yield results[-1]
    except KeyboardInterrupt:
        checkpoints.write()
        raise


def _restore(trainer: Trainer) -> list[EpochResult]:
    """Resumes from the training's checkpoint; the results of its epochs, none without a usable one."""
    if trainer.training.checkpoint is None:
        return []
    path = Path(trainer.training.checkpoint)
    try:
        checkpoint = load_checkpoint(path, trainer.training)
        if checkpoint is None:
            return []
        keys = optimizer_state_keys(trainer.training.config.optimizer)
        set_state(trainer.model, trainer.optimizer, keys, checkpoint.state, trainer.averaged)
    except (CheckpointError, ValueError) as error:
        logger.warning("the checkpoint %s is not used: %s. The training starts over.", path, error)
        return []
    return list(checkpoint.results)


def _save_weights(trainer: Trainer) -> None:
    training = trainer.training
    if training.weights is None:
        return
    metadata = {"config": json.dumps(config_to_json(training.config)), "seed": str(training.seed)}
    try:
        save_weights(trainer.averaged, Path(training.weights), metadata)
    except OSError as error:
        reason = error.strerror or str(error)
        raise TrainingFailed(
            "storage", f"the weights {training.weights} cannot be written: {reason}"
        ) from error
