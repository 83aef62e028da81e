"""The tutorial's loop, which `throughput.py` compares with: PyTorch's and torchvision's, as people copy it.

A data set of PIL images, transforms an image at a time, a DataLoader, NCHW float32, one process. The layers
are built by mc1opt, so that they are the same, but nothing else of it is used. Not here: what is compared.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import VisionDataset

from mc1opt.config import SGD, Config, ConvNet
from mc1opt.data.images import open_training_images
from mc1opt.models.build import build_layers
from mc1opt.spec import DataSet, Device

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of CIFAR-10's training images, in units of 0 to 1, as tutorials have them."""


class ImageDataset(VisionDataset):
    """torchvision's CIFAR10 on arrays that are there already: N x H x W x C, uint8, an image at a time."""

    def __init__(self, images: np.ndarray, labels: list[int], transform: Callable[[Any], Any]) -> None:
        super().__init__(root="", transform=transform)
        self.data = images
        self.targets = labels

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """The transformed image and its label, as torchvision's CIFAR10 makes them."""
        image = Image.fromarray(self.data[index])
        return self.transform(image), self.targets[index]

    def __len__(self) -> int:
        """Images."""
        return len(self.data)


def tutorial_dataset(data: DataSet, images: int, crop: int) -> ImageDataset:
    """The images that mc1opt's workers train on, with the tutorial's transforms."""
    split = open_training_images(data, images, "cpu")
    augmentation = [transforms.RandomCrop(32, padding=crop), transforms.RandomHorizontalFlip()]
    transform = transforms.Compose([*augmentation, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    images_NHWC = np.ascontiguousarray(split.train_images.permute(0, 2, 3, 1).numpy())  # noqa: N806
    return ImageDataset(images_NHWC, split.train_labels.tolist(), transform)


def tutorial_speed(
    config: Config, dataset: ImageDataset, *, loader_processes: int, epochs: int, device: Device = "cpu"
) -> float:
    """Images a second of the last epoch, in this process, with torch's default threads.

    Args:
        config: its architecture must be a `ConvNet` and its optimizer SGD; the data set has the augmentation.
        dataset: from `tutorial_dataset`.
        loader_processes: the DataLoader's `num_workers`; 0 loads in this process.
        epochs: how many are trained.
        device: where the network is.
    """
    assert isinstance(config.architecture, ConvNet)
    assert isinstance(config.optimizer, SGD)
    persistent = loader_processes > 0
    loader: DataLoader[Any] = DataLoader(
        dataset, config.batch_size, shuffle=True, num_workers=loader_processes, persistent_workers=persistent
    )
    model = build_layers(config.architecture).to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=config.optimizer.learning_rate,
        momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
    )
    seconds = 0.0
    for _ in range(epochs):
        started = time.perf_counter()
        running_loss = 0.0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = criterion(model(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        seconds = time.perf_counter() - started
    return len(dataset) / seconds
