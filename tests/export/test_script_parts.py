"""The parts of a training script against what mc1opt itself does."""

import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mc1opt.config import Augmentation
from mc1opt.data.augment import augment_batch
from mc1opt.data.images import open_training_images
from mc1opt.data.splits import SPLIT_SEED, stratified_order
from mc1opt.export import script_parts as parts
from mc1opt.export.script import training_script
from mc1opt.models.whitening import whitening_filters
from mc1opt.seeds import derive_seed
from mc1opt.training.evaluate import accuracy
from tests.export.test_script import CIFAR10, CONFIGS, source_of
from tests.support.trained import Trained, random_images

IMAGES = random_images(60).contiguous(memory_format=torch.channels_last)


def defined(*sections: str) -> dict[str, Callable]:
    """What these sections of a script define."""
    names: dict = {"SPLIT_SEED": SPLIT_SEED, "__name__": "script"}
    exec("\n".join(["import hashlib", parts.IMPORTS, *sections]), names)
    return names


def test_seeds_are_those_of_mc1opt() -> None:
    seed_of = defined(parts.data(own=False))["seed_of"]
    for what in ((1, "epoch", 3), (2**62 + 1, "initialisation"), (0,)):
        assert seed_of(*what) == derive_seed(*what)


@pytest.mark.parametrize("own", [True, False])
def test_the_images_are_those_of_mc1opt(trained: Trained, own: bool) -> None:
    names = defined(parts.data(own=own))
    images, labels = names["load"](Path(trained.data.folder), "train")
    order = names["stratified_order"](labels)
    np.testing.assert_array_equal(order, stratified_order(labels.numpy().astype(np.uint8)))
    ours = open_training_images(trained.data, 300, "cpu")
    validation, train = order[:40], order[40:340]
    assert torch.equal(images[validation].permute(0, 3, 1, 2), ours.validation_images)
    assert torch.equal(images[train].permute(0, 3, 1, 2), ours.train_images)
    assert torch.equal(labels[train], ours.train_labels)


def test_without_arrays_the_images_are_those_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its data set cannot be made here; what it gives is uint8, N x 32 x 32 x 3, and a list of labels."""
    pixels = IMAGES.permute(0, 2, 3, 1).numpy()

    def cifar10(root: Path, *, train: bool, download: bool) -> types.SimpleNamespace:
        assert download
        part = slice(0, 50) if train else slice(50, 60)
        return types.SimpleNamespace(data=pixels[part], targets=list(range(60))[part])

    monkeypatch.setattr("torchvision.datasets.CIFAR10", cifar10)
    images, labels = defined(parts.data(own=False))["load"](Path("none"), "test")
    np.testing.assert_array_equal(images, pixels[50:])
    assert (labels.dtype, labels.tolist()) == (torch.int64, list(range(50, 60)))


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(),
        Augmentation(flip=True),
        Augmentation(crop=3),
        Augmentation(cutout=7),
        Augmentation(flip=True, cutout=6),
        Augmentation(flip=True, crop=16, cutout=32),
    ],
    ids=lambda augmentation: augmentation.model_dump_json(exclude_defaults=True),
)
def test_the_augmentation_is_that_of_mc1opt(augmentation: Augmentation) -> None:
    config = CONFIGS["plain"].model_copy(update={"augmentation": augmentation})
    names: dict = {"__name__": "script"}
    exec(training_script(source_of(config), CIFAR10, "script.py"), names)
    chosen, fill = torch.arange(0, 60, 2).flip(0), torch.tensor([1, 2, 3], dtype=torch.uint8)
    for seed in range(3):
        ours = augment_batch(IMAGES, chosen, augmentation, torch.Generator().manual_seed(seed), fill)
        theirs = names["augment"](
            IMAGES.permute(0, 2, 3, 1), chosen, torch.Generator().manual_seed(seed), fill
        )
        assert torch.equal(theirs, ours)


@pytest.mark.parametrize("kernel_size", [1, 2, 3])
@pytest.mark.parametrize("count", [60, 2100])
def test_the_filters_are_those_of_mc1opt(kernel_size: int, count: int) -> None:
    images = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)).cumsum(3)
    filters = defined(parts.WHITENING)["whitening_filters"](images, kernel_size)
    torch.testing.assert_close(filters, whitening_filters(images, kernel_size), rtol=1e-5, atol=1e-6)


def test_the_accuracy_is_that_of_mc1opt() -> None:
    images, labels = random_images(1203), torch.arange(1203) % 10

    class FirstPixels(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :10].float()

    result = defined(parts.ACCURACY)["accuracy"](FirstPixels(), images.permute(0, 2, 3, 1), labels)
    assert result == accuracy(FirstPixels(), images, labels)
    assert 0 < result < 1
