"""Which training images train and which validate: stratified by class, fixed for good.

All of it rests on one order of the training images in which every prefix has the classes in proportion. The
first part validates; what trains is a prefix of the rest, so that smaller sets lie in larger ones.
"""

import numpy as np
from numpy.typing import NDArray

from mc1opt.spec import Fold

SPLIT_SEED = 20230504
"""Never changed: results on other validation images could not be compared."""


def stratified_order(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """An order of all images, random within each class, whose prefixes hold the classes in proportion.

    The i-th of a class's n images (in random order) is placed at (i + 1/2) / n; sorting by place interleaves
    the classes. Where they are of equal size, no class of a prefix is off its share by as much as one image.

    Args:
        labels: N, 0 to 9.
    """
    generator = np.random.Generator(np.random.PCG64(SPLIT_SEED))
    places = np.empty(len(labels))
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        places[members] = (np.arange(len(members)) + 0.5) / len(members)
    # Classes of equal size share their places; the label then decides, the same on every machine.
    return np.lexsort((labels, places))


def split(
    labels: NDArray[np.uint8], validation_images: int, train_images: int, unused_images: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The indices of the images that train and of those that validate.

    Args:
        labels: of all training images, N.
        validation_images: how many are kept back.
        train_images: how many of the rest train.
        unused_images: how many of those behind them validate, in place of the images that are kept back.

    Raises:
        ValueError: there are not so many.
    """
    if validation_images + train_images + unused_images > len(labels):
        raise ValueError(
            f"{train_images} training and {validation_images + unused_images} validation images are more "
            f"than the {len(labels)} that there are"
        )
    order = stratified_order(labels)
    end = validation_images + train_images
    validation = order[end : end + unused_images] if unused_images else order[:validation_images]
    return order[validation_images:end], validation


def fold_split(
    labels: NDArray[np.uint8], fold: Fold, train_images: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The indices of the images that train and of those that validate, in one fold of a cross-validation.

    The folds are disjoint, cover all images, and hold as many of each class as scikit-learn's
    `StratifiedKFold` gives them: no two of them differ by more than one.

    Args:
        labels: of all training images, N.
        fold: which part validates.
        train_images: how many of the others train.

    Raises:
        ValueError: there are not so many, or a class has fewer images than there are folds.
    """
    smallest = int(np.unique(labels, return_counts=True)[1].min())
    if smallest < fold.count:
        raise ValueError(f"{fold.count} folds are more than the {smallest} images of the smallest class")
    order = stratified_order(labels)
    # One class after the other, each in the order above, dealt out to the folds in turn.
    dealt = np.empty(len(labels), dtype=np.int64)
    dealt[np.argsort(labels[order], kind="stable")] = np.arange(len(labels)) % fold.count
    train, validation = order[dealt != fold.index], order[dealt == fold.index]
    if train_images > len(train):
        raise ValueError(
            f"{train_images} training images are more than the {len(train)} that fold {fold.index} of "
            f"{fold.count} leaves"
        )
    return train[:train_images], validation
