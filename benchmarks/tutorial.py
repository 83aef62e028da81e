"""The tutorial's loop, with which `throughput.py` and `race.py` compare: PyTorch's and torchvision's.

A data set of PIL images, transforms an image at a time, a DataLoader, NCHW float32, `torch.optim` and its
schedulers. The layers are built by mc1opt, so that the networks are the same, and so is Muon, which PyTorch
has for matrices alone; nothing else of mc1opt's training is used. Alternating flips, which torchvision lacks,
are random ones here. Not here: what is compared.
"""

import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import VisionDataset

from mc1opt.config import IMAGE_SIZE, SGD, Adam, AdamW, Config, Constant, ConvNet, Cosine, Muon, OneCycle
from mc1opt.data.images import open_training_images
from mc1opt.dataset import CIFAR10_SHAPE, DataSet
from mc1opt.models.build import build_layers
from mc1opt.spec import INFERENCE_BATCH, Device, EpochResult, Training, TrainingFailed
from mc1opt.training.loop import new_model
from mc1opt.training.optim import build_optimizer

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of CIFAR-10's training images, in units of 0 to 1, as tutorials have them."""

# A process that trains many networks opens its images once, as careful people do.
_open_images = functools.lru_cache(maxsize=1)(open_training_images)

# ---- Images ----------------------------------------------------------------------------------------------


class ImageDataset(VisionDataset):
    """torchvision's CIFAR10 on arrays that are there already: uint8, an image at a time.

    Args:
        images: N x 3 x H x W, as mc1opt opens them.
        labels: N.
        transform: of a PIL image.
    """

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, transform: Callable[[Any], Any]) -> None:
        super().__init__(root="", transform=transform)
        self.data = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        self.targets: list[int] = labels.tolist()

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """The transformed image and its label, as torchvision's CIFAR10 makes them."""
        image = Image.fromarray(self.data[index])
        return self.transform(image), self.targets[index]

    def __len__(self) -> int:
        """Images."""
        return len(self.data)


def tensor_transforms(config: Config) -> list[Callable[[Any], Any]]:
    """From a PIL image to a normalised tensor."""
    half = (0.5, 0.5, 0.5)
    mean, std = (half, half) if config.normalisation == "symmetric" else (MEAN, STD)
    return [transforms.ToTensor(), transforms.Normalize(mean, std)]


def augmenting_transforms(config: Config, size: int = IMAGE_SIZE) -> list[Callable[[Any], Any]]:
    """From a PIL image to a normalised tensor of size x size pixels, with torchvision's augmentations."""
    augmentation = config.augmentation
    found: list[Callable[[Any], Any]] = []
    if augmentation.crop:
        found.append(transforms.RandomCrop(IMAGE_SIZE, padding=augmentation.crop))
    if augmentation.flip:
        found.append(transforms.RandomHorizontalFlip())
    if size < IMAGE_SIZE:
        found.append(transforms.Resize(size))
    found += tensor_transforms(config)
    if augmentation.cutout:
        share = (augmentation.cutout / IMAGE_SIZE) ** 2
        # Of normalised images, 0 is the mean colour.
        found.append(transforms.RandomErasing(p=1.0, scale=(share, share), ratio=(1.0, 1.0), value=0))
    return found


def tutorial_dataset(config: Config, data: DataSet, images: int) -> ImageDataset:
    """The images that mc1opt's workers train on, with the tutorial's transforms."""
    split = open_training_images(data, images, "cpu")
    transform = transforms.Compose(augmenting_transforms(config))
    return ImageDataset(split.train_images, split.train_labels, transform)


# ---- Training --------------------------------------------------------------------------------------------


def make_optimizer(model: nn.Module, config: SGD | Adam | AdamW | Muon) -> torch.optim.Optimizer:
    """torch's optimizer of all parameters; mc1opt's Muon, for which filters must be channels_last."""
    if isinstance(config, Muon):
        return build_optimizer(model, config)
    if isinstance(config, SGD):
        return torch.optim.SGD(
            model.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
        )
    kind = torch.optim.Adam if isinstance(config, Adam) else torch.optim.AdamW
    betas = (config.beta1, config.beta2)
    return kind(model.parameters(), lr=config.learning_rate, betas=betas, weight_decay=config.weight_decay)


def make_scheduler(
    optimizer: torch.optim.Optimizer, config: Constant | Cosine | OneCycle, total_steps: int
) -> LRScheduler:
    """torch's scheduler, to be stepped after each batch."""
    if isinstance(config, Constant):
        return ConstantLR(optimizer, factor=1.0)
    if isinstance(config, Cosine):
        return CosineAnnealingLR(optimizer, T_max=total_steps)
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total_steps,
        pct_start=config.warmup,
        anneal_strategy="linear",
        cycle_momentum=False,
        div_factor=1.0 / config.start,
        final_div_factor=config.start / config.end,
    )


def train_epoch(
    model: nn.Module,
    loader: "DataLoader[Any]",
    criterion: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler,
    device: Device = "cpu",
    after_step: Callable[[], None] = lambda: None,
) -> float:
    """Trains one epoch; the mean loss of its batches."""
    model.train()
    running_loss = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = criterion(model(images.to(device)), labels.to(device))
        loss.backward()
        optimizer.step()
        scheduler.step()
        after_step()
        running_loss += loss.item()
    return running_loss / len(loader)


@torch.no_grad()
def validate(model: nn.Module, loader: "DataLoader[Any]") -> float:
    """The share of images whose largest logit is that of their label."""
    model.eval()
    correct = total = 0
    for images, labels in loader:
        correct += (model(images).argmax(dim=1) == labels).sum().item()
        total += len(labels)
    return correct / total


def train(training: Training) -> Iterator[EpochResult]:
    """Trains in the tutorial's way, with the interface of mc1opt's own `train`, in this process on a CPU.

    After each epoch it validates on as many of the training's validation images as are held out by default.

    Raises:
        TrainingFailed: the loss is not finite; a tutorial would train on.
    """
    config, epochs = training.config, training.fidelity.epochs
    most = training.data.validation_images
    split = _open_images(
        training.data, training.fidelity.train_images, "cpu", None, min(training.unused_images, most)
    )
    torch.set_num_threads(training.threads)
    torch.manual_seed(training.seed)
    batch_size = min(config.batch_size, len(split.train_images))

    def loader(size: int) -> "DataLoader[Any]":
        transform = transforms.Compose(augmenting_transforms(config, size))
        dataset = ImageDataset(split.train_images, split.train_labels, transform)
        # The last, smaller batch is dropped: a single image has no batch statistics.
        return DataLoader(dataset, batch_size, shuffle=True, drop_last=True)

    large, small = loader(IMAGE_SIZE), loader(config.progressive_size or IMAGE_SIZE)
    transform = transforms.Compose(tensor_transforms(config))
    validation: DataLoader[Any] = DataLoader(
        ImageDataset(split.validation_images, split.validation_labels, transform), INFERENCE_BATCH
    )
    # Without its first layer, which normalises: here a transform does.
    model = nn.Sequential(*list(new_model(training, split).children())[1:])
    if not isinstance(config.optimizer, Muon):
        model = model.to(memory_format=torch.contiguous_format)
    optimizer = make_optimizer(model, config.optimizer)
    total_steps = epochs * len(large)
    scheduler = make_scheduler(optimizer, config.schedule, total_steps)
    criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    averaged = AveragedModel(model, use_buffers=True)

    def average() -> None:
        if scheduler.last_epoch > total_steps * (1.0 - config.weight_averaging):
            averaged.update_parameters(model)

    for epoch in range(epochs):
        started = time.monotonic()
        images = small if 2 * (epoch + 1) <= epochs else large
        loss = train_epoch(model, images, criterion, optimizer, scheduler, after_step=average)
        if not math.isfinite(loss):
            raise TrainingFailed("diverged", f"the training loss of epoch {epoch} is {loss}")
        accuracy = validate(averaged if averaged.n_averaged else model, validation)
        seconds = time.monotonic() - started
        yield EpochResult(epoch=epoch, loss=loss, validation_accuracy=accuracy, seconds=seconds)


def tutorial_speed(
    config: Config, dataset: ImageDataset, *, loader_processes: int, epochs: int, device: Device = "cpu"
) -> float:
    """Images a second of the last epoch, in this process, with torch's default threads.

    Args:
        config: its architecture must be a `ConvNet`; the data set has the augmentation.
        dataset: from `tutorial_dataset`.
        loader_processes: the DataLoader's `num_workers`; 0 loads in this process.
        epochs: how many are trained.
        device: where the network is.
    """
    assert isinstance(config.architecture, ConvNet)
    persistent = loader_processes > 0
    loader: DataLoader[Any] = DataLoader(
        dataset, config.batch_size, shuffle=True, num_workers=loader_processes, persistent_workers=persistent
    )
    model = build_layers(config.architecture, CIFAR10_SHAPE).to(device)
    optimizer = make_optimizer(model, config.optimizer)
    scheduler = make_scheduler(optimizer, config.schedule, epochs * len(loader))
    seconds = 0.0
    for _ in range(epochs):
        started = time.perf_counter()
        train_epoch(model, loader, nn.CrossEntropyLoss(), optimizer, scheduler, device)
        seconds = time.perf_counter() - started
    return len(dataset) / seconds
