"""Pictures: PNG files that show what they are given, the same bytes for the same."""

import io

import numpy as np
import pytest
from PIL import Image

from mc1opt.dataset import CIFAR10_CLASS_NAMES as CLASS_NAMES
from mc1opt.display.pictures import confusion_picture, learning_curve_picture, misclassified_picture


def pixels(png: bytes) -> np.ndarray:
    """Height x width x 3."""
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def has_colour(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    """Up to what rounding makes of it."""
    return bool((np.abs(picture.astype(int) - colour).max(axis=2) <= 2).any())


def wrong_images(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images of one colour each, their classes in turn, all taken for the next class."""
    images = np.zeros((count, 3, 32, 32), dtype=np.uint8)
    images[:, 0] = np.arange(count, dtype=np.uint8)[:, None, None] * 3
    images[:, 1], images[:, 2] = 200, 40
    labels = np.arange(count) % 10
    return images, labels, (labels + 1) % 10


def test_a_learning_curve_is_drawn_with_and_without_losses() -> None:
    blue, orange = (31, 119, 180), (255, 127, 14)
    plain = pixels(learning_curve_picture("Trial #3", [0.3, 0.5, 0.55], []))
    both = pixels(learning_curve_picture("Trial #3", [0.3, 0.5, 0.55], [1.9, 1.2, 1.0]))
    assert has_colour(plain, blue)
    assert has_colour(both, blue)
    assert has_colour(both, orange)
    assert not has_colour(plain, orange)


@pytest.mark.parametrize("accuracies", [[], [0.4]])
def test_a_curve_of_few_points_is_a_picture_too(accuracies: list[float]) -> None:
    assert pixels(learning_curve_picture("", accuracies, accuracies)).shape == (400, 640, 3)


def test_a_cell_of_the_confusions_is_the_darker_the_greater_its_share_of_the_class() -> None:
    right = (100 * np.eye(10)).astype(int)
    dark = (8, 48, 107)
    right[3] = 0  # a class without images has no share to divide
    assert has_colour(pixels(confusion_picture("", right.tolist(), CLASS_NAMES)), dark)
    half = right // 2 + np.roll(right // 2, 1, axis=1)
    assert not has_colour(pixels(confusion_picture("", half.tolist(), CLASS_NAMES)), dark)


def test_the_sheet_shows_the_first_wrong_images_of_each_class_in_their_colours() -> None:
    picture = pixels(misclassified_picture("Wrong", *wrong_images(85), CLASS_NAMES))
    ours = picture[(picture[..., 1] == 200) & (picture[..., 2] == 40)]
    assert {number for number in range(85) if number * 3 in ours[:, 0]} == set(range(80))
    assert pixels(misclassified_picture("", *wrong_images(0), CLASS_NAMES)).size


def test_the_same_picture_is_the_same_file() -> None:
    first = learning_curve_picture("a", [0.1, 0.2], [])
    assert learning_curve_picture("a", [0.1, 0.2], []) == first
    assert learning_curve_picture("b", [0.1, 0.2], []) != first
