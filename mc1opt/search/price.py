"""What a trial may cost by default, from the size and the number of the images.

The measured case is CIFAR-10's: few epochs of many images are at equal cost about 1.5 points better than many
epochs of few images, with half as many validations (`benchmarks/LOG.md`). Other images keep its price: so
many images seen in a trial, and so many multiply-accumulates for each of their pixels.
"""

from mc1opt.dataset import CIFAR10_SHAPE, DataSet
from mc1opt.spec import Fidelity

TRAIN_IMAGES = 18_000
EPOCHS = 5
MOST_EPOCHS = 40
TRAINED_SHARE = 0.6
"""Of the images that validation leaves, at most so many train: the others validate."""
FEW_IMAGES = 10_000
"""Of fewer training images all train that validation leaves."""
MAX_MACS = 20_000_000
"""Multiply-accumulates an image of at most CIFAR-10's size; of larger ones in proportion to their pixels."""


def default_fidelity(data: DataSet, train_images: int | None = None, epochs: int | None = None) -> Fidelity:
    """Training images and epochs of a trial where the study file leaves them open.

    Larger images are seen less often: their networks cost more for each of them (`default_max_macs`).

    Args:
        data: the images.
        train_images: what the study file says; None for nothing.
        epochs: the same.
    """
    larger = max(1.0, data.size / CIFAR10_SHAPE.size)
    left = data.train_images - data.validation_images
    if train_images is None:
        share = 1.0 if data.train_images < FEW_IMAGES else TRAINED_SHARE
        train_images = max(1, min(round(TRAIN_IMAGES / larger), int(share * left)))
    if epochs is None:
        seen = TRAIN_IMAGES * EPOCHS / larger
        epochs = min(MOST_EPOCHS, max(EPOCHS, round(seen / train_images)))
    return Fidelity(train_images=train_images, epochs=epochs)


def default_max_macs(size: int) -> int:
    """The most multiply-accumulates an image of size x size pixels where nobody says another limit."""
    return round(MAX_MACS * max(1.0, size / CIFAR10_SHAPE.size) ** 2)
