"""PyTorch's training loop: a training in, one result an epoch out.

Nothing here knows of trials: a search, a preset and a retraining all train through `train`.
"""

import functools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from mc1opt.config import ConvNet, WhitenedStem, config_to_json
from mc1opt.data.augment import augment_batch
from mc1opt.data.images import ImageSplit, open_training_images
from mc1opt.models.build import build_model
from mc1opt.models.whitening import whitening_filters
from mc1opt.seeds import derive_seed
from mc1opt.spec import EpochResult, Training, TrainingFailed
from mc1opt.training.checkpoint import save_weights
from mc1opt.training.evaluate import accuracy
from mc1opt.training.optim import build_optimizer, learning_rate_factor, set_learning_rate

STATISTICS_IMAGES = 5_000
"""Training images that mean, standard deviation and whitening filters are computed from."""

# The trainings of a search have the same images: a worker copies them once, not for each.
_open_images = functools.lru_cache(maxsize=1)(open_training_images)


class Trainer:
    """One training in progress: network, optimizer, images, and how to train one more epoch.

    All random draws of an epoch come from a seed of that epoch alone, so that an epoch can be trained again,
    or the training go on from its beginning, to the same result.
    """

    def __init__(self, training: Training) -> None:
        config = training.config
        self.training = training
        self.device = torch.device(training.device)
        if training.device == "cpu":
            torch.set_num_threads(training.threads)
            # Weights that decay towards zero would else end as denormal numbers, which are slow on a CPU.
            torch.set_flush_denormal(True)
        self.images = _open_images(
            training.data, training.fidelity.train_images, training.device, training.fold
        )
        torch.manual_seed(derive_seed(training.seed, "initialisation"))
        self.model = new_model(training, self.images).to(self.device).to(memory_format=torch.channels_last)
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.batch_size = min(config.batch_size, training.fidelity.train_images)
        # The last, smaller batch is left out (other images in every epoch): one image alone has no batch
        # statistics.
        self.steps_an_epoch = training.fidelity.train_images // self.batch_size
        self.fill = self.images.mean_colour

    def train_epoch(self, epoch: int) -> EpochResult:
        """Trains epoch `epoch` (counted from 0) and measures the validation accuracy, if images are for it.

        Raises:
            TrainingFailed: `diverged`, where the loss or a logit is not finite.
        """
        started = time.monotonic()
        seed = derive_seed(self.training.seed, "epoch", epoch)
        torch.manual_seed(seed)  # dropout
        generator = torch.Generator().manual_seed(seed)  # order and augmentation, on the CPU for every device
        config = self.training.config
        order = torch.randperm(self.training.fidelity.train_images, generator=generator)
        total_steps = self.steps_an_epoch * self.training.fidelity.epochs
        loss_sum = torch.zeros((), device=self.device)
        self.model.train()
        for step in range(self.steps_an_epoch):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            factor = learning_rate_factor(config.schedule, epoch * self.steps_an_epoch + step, total_steps)
            set_learning_rate(self.optimizer, config.optimizer.learning_rate * factor)
            loss_sum += self._step(batch, generator)
        loss = loss_sum.item() / self.steps_an_epoch
        if not math.isfinite(loss):
            raise TrainingFailed("diverged", f"the training loss of epoch {epoch} is {loss}")
        return EpochResult(
            epoch=epoch,
            loss=loss,
            validation_accuracy=self._validate(epoch),
            seconds=time.monotonic() - started,
        )

    def _validate(self, epoch: int) -> float | None:
        """The validation accuracy; None where all images train."""
        if not len(self.images.validation_images):
            return None
        with self._autocast():
            value = accuracy(self.model, self.images.validation_images, self.images.validation_labels)
        if math.isnan(value):
            raise TrainingFailed("diverged", f"logits on validation images are not finite in epoch {epoch}")
        return value

    def _step(self, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One step of the optimizer on the images with these indices; the loss, still on the device."""
        config = self.training.config
        images_NCHW = augment_batch(  # noqa: N806  (shape suffix)
            self.images.train_images, batch, config.augmentation, generator, self.fill
        )
        labels = self.images.train_labels[batch.to(self.device)]
        with self._autocast():
            logits = self.model(images_NCHW)
            loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return loss.detach()

    def _autocast(self) -> torch.autocast:
        enabled = self.training.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


def new_model(training: Training, images: ImageSplit) -> nn.Module:
    """An untrained network for a training, with the statistics of its own training images stored in it."""
    sample = images.train_images[:STATISTICS_IMAGES].cpu().float()
    mean = sample.mean((0, 2, 3))
    # A channel that is the same everywhere would be divided by zero; 1 is one of the 256 levels.
    std = sample.std((0, 2, 3)).clamp(min=1.0)
    architecture = training.config.architecture
    whitening = None
    if isinstance(architecture, ConvNet) and isinstance(architecture.stem, WhitenedStem):
        normalised = (sample - mean[:, None, None]) / std[:, None, None]
        whitening = whitening_filters(normalised, architecture.stem.kernel_size)
    return build_model(architecture, mean=mean, std=std, whitening=whitening)


def train(training: Training) -> Iterator[EpochResult]:
    """Trains, one epoch for each result that is asked for; closing the iterator ends the training.

    On the CPU the results are the same, bit for bit, for the same training on the same CPU capability and
    torch build. After the last epoch the weights are written where `training.weights` says.

    Raises:
        TrainingFailed: `diverged`, where the loss or a logit is not finite.
        DataError: the images are missing or too few.
    """
    trainer = Trainer(training)
    for epoch in range(training.fidelity.epochs):
        result = trainer.train_epoch(epoch)
        # Before the last result goes out, so that whoever sees a finished training finds its weights.
        if training.weights is not None and epoch == training.fidelity.epochs - 1:
            metadata = {"config": json.dumps(config_to_json(training.config)), "seed": str(training.seed)}
            save_weights(trainer.model, Path(training.weights), metadata)
        yield result
