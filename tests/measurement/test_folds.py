"""Folds: how many there can be."""

from pathlib import Path

import numpy as np
import pytest

from mc1opt.errors import UsageError
from mc1opt.measurement.folds import check_folds, fold_images
from mc1opt.spec import DataSet

DATA = DataSet(name="own-0", folder="images", sha256="0" * 64, train_images=100, validation_images=10)


def test_each_fold_needs_an_image_of_the_smallest_class() -> None:
    Path("images").mkdir()
    np.save("images/train_labels.npy", np.array([0] * 7 + [1] * 93, dtype=np.uint8))
    for folds in (0, 2, 7):
        check_folds(folds, DATA)
    with pytest.raises(UsageError, match="--folds 8 is too many: the smallest class of own-0 has 7 training"):
        check_folds(8, DATA)


@pytest.mark.parametrize(("folds", "images"), [(2, 50), (3, 66), (10, 90), (100, 99)])
def test_every_fold_trains_on_as_many_images_as_the_largest_one_leaves(folds: int, images: int) -> None:
    assert fold_images(folds, DATA) == images
