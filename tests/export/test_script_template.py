"""What the template of the scripts computes, against what mc1opt itself does."""

import copy
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mc1opt.config import SGD, Adam, AdamW, Augmentation, Constant, Cosine, Muon, OneCycle
from mc1opt.data.augment import alternating_flips, augment_batch
from mc1opt.data.images import open_training_images
from mc1opt.data.splits import SPLIT_SEED, stratified_order
from mc1opt.export import script_template
from mc1opt.seeds import derive_seed
from mc1opt.training.accuracy import accuracy
from mc1opt.training.optim import build_optimizer, learning_rate_factor, set_learning_rate
from tests.support.trained import Trained, random_images

IMAGES = random_images(60).contiguous(memory_format=torch.channels_last)


def test_seeds_are_those_of_mc1opt() -> None:
    for what in ((1, "epoch", 3), (2**62 + 1, "initialisation"), (0,)):
        assert script_template.seed_of(*what) == derive_seed(*what)


@pytest.mark.parametrize("load", [script_template.load_arrays, script_template.load_cifar10])
def test_the_images_are_those_of_mc1opt(
    trained: Trained, load: Callable[[Path, str], tuple[torch.Tensor, torch.Tensor]]
) -> None:
    images, labels = load(Path(trained.data.folder), "train")
    assert script_template.SPLIT_SEED == SPLIT_SEED
    order = script_template.stratified_order(labels)
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
    images, labels = script_template.load_cifar10(Path("none"), "test")
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
        Augmentation(flip="alternating", crop=2),
    ],
    ids=lambda augmentation: augmentation.model_dump_json(exclude_defaults=True),
)
def test_the_augmentation_is_that_of_mc1opt(
    augmentation: Augmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in augmentation:
        monkeypatch.setattr(script_template, name.upper(), value)
    chosen, fill = torch.arange(0, 60, 2).flip(0), torch.tensor([1, 2, 3], dtype=torch.uint8)
    flips = None
    if augmentation.flip == "alternating":
        monkeypatch.setattr(script_template, "random_flips", script_template.alternating_flips)
    for seed in range(3):
        if augmentation.flip == "alternating":
            flips = alternating_flips(60, derive_seed(script_template.SEED, "flip"), epoch=seed)
        ours = augment_batch(IMAGES, chosen, augmentation, torch.Generator().manual_seed(seed), fill, flips)
        theirs = script_template.augment(
            IMAGES.permute(0, 2, 3, 1), chosen, torch.Generator().manual_seed(seed), fill, epoch=seed
        )
        assert torch.equal(theirs, ours)


@pytest.mark.parametrize("schedule", [Constant(), Cosine(), OneCycle(warmup=0.3, start=0.1, end=0.05)])
@pytest.mark.parametrize("steps", [1, 3, 40])
def test_the_learning_rate_is_that_of_mc1opt(
    schedule: Constant | Cosine | OneCycle, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in schedule:
        monkeypatch.setattr(script_template, name.upper(), value, raising=False)
    share = getattr(script_template, schedule.kind)
    ours = [learning_rate_factor(schedule, step, steps) for step in range(steps)]
    assert [share(step, steps) for step in range(steps)] == ours


@pytest.mark.parametrize(
    "config",
    [
        SGD(learning_rate=0.3, momentum=0.8, nesterov=True, weight_decay=0.1),
        Adam(learning_rate=0.3, beta1=0.7, beta2=0.8, weight_decay=0.1),
        AdamW(learning_rate=0.3, beta1=0.7, beta2=0.8, weight_decay=0.1),
    ],
)
def test_the_optimizer_is_that_of_mc1opt(config: SGD | Adam | AdamW, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in config:
        monkeypatch.setattr(script_template, name.upper(), value, raising=False)
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    ours = build_optimizer(network, config)
    theirs = getattr(script_template, config.kind)(script_template.parameter_groups(network))
    assert type(theirs) is type(ours)
    assert str(theirs) == str(ours)
    assert [len(group["params"]) for group in theirs.param_groups] == [1, 3]


def test_muons_steps_are_those_of_mc1opt(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Muon(learning_rate=0.3, sgd_learning_rate=0.2, momentum=0.8, weight_decay=0.1)
    for name, value in config:
        monkeypatch.setattr(script_template, name.upper(), value, raising=False)
    torch.manual_seed(0)
    layers = (torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(3600, 8))
    ours = torch.nn.Sequential(*layers, torch.nn.Linear(8, 10)).to(memory_format=torch.channels_last)
    theirs = copy.deepcopy(ours)
    optimizers = (
        build_optimizer(ours, config),
        script_template.muon(script_template.parameter_groups(theirs)),
    )
    before = copy.deepcopy(ours.state_dict())
    for step in range(3):
        for network, optimizer in zip((ours, theirs), optimizers, strict=True):
            set_learning_rate(optimizer, 1 / (step + 1))
            optimizer.zero_grad()
            network(IMAGES.float() / 255).square().mean().backward()
            optimizer.step()
    for (name, tensor), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name
        assert not torch.equal(tensor, before[name]), name


def test_the_accuracy_is_that_of_mc1opt() -> None:
    images, labels = random_images(1203), torch.arange(1203) % 10

    class FirstPixels(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :10].float()

    result = script_template.accuracy(FirstPixels(), images.permute(0, 2, 3, 1), labels)
    assert result == accuracy(FirstPixels(), images, labels)
    assert 0 < result < 1
