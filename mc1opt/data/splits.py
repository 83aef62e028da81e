"""Which of the training images train and which validate: stratified by class, and never changed.

One order of the images, every prefix of which holds the classes in proportion, decides: the first part
validates, and a prefix of the rest trains, so that smaller training sets are subsets of larger ones. Where
somebody has chosen the validation images, they are the first part, and the order is one of the rest.
"""

import numpy as np
from numpy.typing import NDArray

from mc1opt.spec import Fold

SPLIT_SEED = 20230504
"""Never change it: results on other validation images are not comparable."""


def stratified_order(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """An order of all images, random within each class, whose prefixes hold the classes in proportion.

    The i-th of a class's n images (in random order) is placed at (i + 1/2) / n; sorting by place interleaves
    the classes. Where they are of equal size, no class of a prefix is off its share by as much as one image.

    Args:
        labels: N.
    """
    generator = np.random.Generator(np.random.PCG64(SPLIT_SEED))
    places = np.empty(len(labels))
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        places[members] = (np.arange(len(members)) + 0.5) / len(members)
    # Classes of equal size tie; the label breaks the tie, the same on every machine.
    return np.lexsort((labels, places))


def split(
    labels: NDArray[np.integer],
    validation_images: int,
    train_images: int,
    unused_images: int = 0,
    *,
    validation_first: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The indices of the images that train and of those that validate.

    Args:
        labels: of all training images, N.
        validation_images: number of held-out images.
        train_images: number of training images among the rest.
        unused_images: number of images after those that validate instead of the held-out ones.
        validation_first: whether the held-out images are the first ones, because somebody chose them.

    Raises:
        ValueError: there are fewer images.
    """
    if validation_images + train_images + unused_images > len(labels):
        raise ValueError(
            f"{train_images} training and {validation_images + unused_images} validation images are more "
            f"than the {len(labels)} that there are"
        )
    chosen = validation_images if validation_first else 0
    order = np.concatenate([stratified_order(labels[:chosen]), chosen + stratified_order(labels[chosen:])])
    end = validation_images + train_images
    validation = order[end : end + unused_images] if unused_images else order[:validation_images]
    return order[validation_images:end], validation


def fold_split(
    labels: NDArray[np.integer], fold: Fold, train_images: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The indices of the images that train and of those that validate, in one fold of a cross-validation.

    The folds are disjoint, cover all images, and hold as many of each class as scikit-learn's
    `StratifiedKFold` gives them: no two of them differ by more than one.

    Args:
        labels: of all training images, N.
        fold: the part that validates.
        train_images: number of training images among the others.

    Raises:
        ValueError: there are fewer images, or a class has fewer images than there are folds.
    """
    smallest = int(np.unique(labels, return_counts=True)[1].min())
    if smallest < fold.count:
        raise ValueError(f"{fold.count} folds are more than the {smallest} images of the smallest class")
    order = stratified_order(labels)
    # Dealt to the folds in turn, class by class, each class in the order above.
    dealt = np.empty(len(labels), dtype=np.int64)
    dealt[np.argsort(labels[order], kind="stable")] = np.arange(len(labels)) % fold.count
    train, validation = order[dealt != fold.index], order[dealt == fold.index]
    if train_images > len(train):
        raise ValueError(
            f"{train_images} training images are more than the {len(train)} that fold {fold.index} of "
            f"{fold.count} leaves"
        )
    return train[:train_images], validation
