"""Stratified folds of the training images: how many there can be, and what each leaves to train."""

import math

from mc1opt.errors import UsageError
from mc1opt.spec import DataSet


def check_folds(folds: int, data: DataSet) -> None:
    """Whether the images allow so many folds; 0 are none.

    Raises:
        UsageError: a class has fewer training images.
        DataError: the images are missing or damaged.
    """
    if not folds:
        return
    from mc1opt.data.images import smallest_class

    most = smallest_class(data)
    if folds > most:
        raise UsageError(
            f"--folds {folds} is too many: the smallest class of {data.name} has {most} training images, and "
            f"each fold needs one of it; at most {most}."
        )


def fold_images(folds: int, data: DataSet) -> int:
    """Training images of a fold: as many as the largest fold leaves, in all of them."""
    return data.train_images - math.ceil(data.train_images / max(folds, 1))
