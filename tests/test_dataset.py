"""What a data set says of its images, and that CIFAR-10's JSON is as it was before others had shapes."""

import pytest
from pydantic import ValidationError

from mc1opt.dataset import CIFAR10_SHAPE, DataSet, DataShape

CIFAR10 = {
    "name": "cifar10",
    "folder": "f",
    "sha256": "9",
    "train_images": 50_000,
    "validation_images": 5_000,
}
GREY = {
    **CIFAR10,
    "name": "own-1",
    "channels": 1,
    "size": 28,
    "class_names": ("cat", "dog"),
    "validation_first": True,
}


def test_cifar10_is_stored_as_before():
    data = DataSet(**CIFAR10)
    assert data.shape == CIFAR10_SHAPE
    assert data.model_dump(mode="json") == CIFAR10


def test_other_images_carry_their_shape_and_classes():
    data = DataSet(**GREY)
    assert data.shape == DataShape(channels=1, size=28, classes=2)
    assert DataSet.model_validate_json(data.model_dump_json()) == data


@pytest.mark.parametrize(
    "wrong",
    [{"class_names": ("cat", "cat")}, {"class_names": ("cat",)}, {"channels": 4}, {"size": 7}],
)
def test_impossible_images_are_refused(wrong):
    with pytest.raises(ValidationError):
        DataSet(**{**GREY, **wrong})
