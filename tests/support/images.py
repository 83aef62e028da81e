"""Small images whose classes are easy to tell apart, and trainings on them that take part of a second."""

from pathlib import Path
from typing import Any

import numpy as np

from mc1opt.config import (
    MLP,
    SGD,
    Augmentation,
    Config,
    ConvBlock,
    ConvNet,
    LinearLayer,
    Pooling,
    WhitenedStem,
)
from mc1opt.dataset import DataSet
from mc1opt.spec import Fidelity, Training

IMAGES = 400
VALIDATION_IMAGES = 100
TEST_IMAGES = 50

SMALL_MLP = MLP(layers=(LinearLayer(width=16, norm="batch", dropout=0.2),))
SMALL_CONVNET = ConvNet(
    stem=WhitenedStem(),
    blocks=(
        ConvBlock(width=8, stride=2, norm="batch", pooling=Pooling(kind="max"), dropout=0.1),
        ConvBlock(width=12, norm="batch", activation="gelu"),
    ),
    global_pooling="average",
    head=(LinearLayer(width=16),),
)
ALL_AUGMENTATION = Augmentation(flip=True, crop=2, cutout=6)


def write_images(folder: Path, channels: int = 3, size: int = 32) -> DataSet:
    """Writes the arrays of a data set: each class has a colour and a width of stripes, under much noise."""
    generator = np.random.default_rng(0)
    colours = generator.integers(60, 196, (10, 3))
    for name, count in (("train", IMAGES), ("test", TEST_IMAGES)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        stripes = 30 * np.sign(np.sin(np.arange(size) * np.pi / (1 + labels[:, None] % 5) + 0.1))
        images = colours[labels][:, :channels, None, None] + stripes[:, None, None, :]
        images = images + generator.normal(0, 25, (count, channels, size, size))
        np.save(folder / f"{name}_images.npy", images.clip(0, 255).astype(np.uint8))
        np.save(folder / f"{name}_labels.npy", labels)
    return DataSet(
        name="easy",
        folder=str(folder),
        sha256="0" * 64,
        train_images=IMAGES,
        validation_images=VALIDATION_IMAGES,
        channels=channels,
        size=size,
    )


def small_training(
    data: DataSet, *, epochs: int = 2, train_images: int = IMAGES - VALIDATION_IMAGES, **changes: Any
) -> Training:
    """A training of `SMALL_MLP`; `changes` are further fields of `Config` or `Training`."""
    fields: dict[str, Any] = {
        "architecture": SMALL_MLP,
        "optimizer": SGD(learning_rate=0.05, momentum=0.9, nesterov=True),
        "batch_size": 64,
    }
    for name in list(changes):
        if name in Config.model_fields:
            fields[name] = changes.pop(name)
    fidelity = Fidelity(train_images=train_images, epochs=epochs)
    return Training(**({"config": Config(**fields), "fidelity": fidelity, "seed": 1, "data": data} | changes))
