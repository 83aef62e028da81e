"""Folders of small image files, as people have them, made of the images of the other tests."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.image_sets import make_arrays

ARRAYS = make_arrays()


def picture(number: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """One of 200 images, in colour."""
    pixels = np.ascontiguousarray(ARRAYS.train_images[number % 200].transpose(1, 2, 0))
    return Image.fromarray(pixels).resize(size)


def write_images(
    folder: Path,
    count: int,
    first: int = 0,
    *,
    ending: str = "png",
    mode: str = "RGB",
    size: tuple[int, int] = (48, 40),
) -> None:
    """Image files 0, 1 and so on of a class."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(first + number, size).convert(mode).save(folder / f"{number}.{ending}")


def write_classes(folder: Path, *counts: int, first: int = 0, **options: object) -> None:
    """A folder for each class, "class 0" and so on, with so many images."""
    for label, count in enumerate(counts):
        write_images(folder / f"class {label}", count, first + 30 * label, **options)
