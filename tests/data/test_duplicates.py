"""Images that are there twice are found, and others are not."""

import io

import numpy as np
import pytest
from PIL import Image

from mc1opt.data.duplicates import duplicates


def smooth(count: int, channels: int = 3, size: int = 32) -> np.ndarray:
    """Images with large forms, as photographs have."""
    coarse = np.random.default_rng(4).integers(0, 256, (count, 8, 8, channels), dtype=np.uint8)
    images = [np.asarray(Image.fromarray(image.squeeze()).resize((size, size))) for image in coarse]
    return np.stack(images).reshape(count, size, size, channels).transpose(0, 3, 1, 2)


def recompressed(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=90)
    return np.asarray(Image.open(file)).transpose(2, 0, 1)


@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 28), (3, 8), (3, 64)])
def test_the_same_pixels_are_found_and_each_image_is_told_once(channels: int, size: int) -> None:
    images = smooth(50, channels, size)
    again = np.concatenate([images, images[[7, 7, 3]]])
    assert duplicates(again) == ([(7, 50), (7, 51), (3, 52)], [])


def test_images_that_were_compressed_again_or_made_brighter_are_nearly_the_same() -> None:
    images = smooth(50) // 2
    changed = np.stack([recompressed(images[5]), images[9] + 20])
    assert duplicates(np.concatenate([images, changed])) == ([], [(5, 50), (9, 51)])


def test_different_images_are_no_duplicates() -> None:
    assert duplicates(smooth(2000)) == ([], [])
