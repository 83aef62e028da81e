"""Image files as the network wants them: PNG and JPEG to 32 x 32 pixels.

What is done to an image, in this order: it is turned as its EXIF orientation says; 16 bits a channel become
8; transparent parts become white; grey and palette images become RGB; its central square is resized to
32 x 32 pixels by Pillow's bicubic filter, which averages over all pixels where it shrinks (antialiasing). An
image of 32 x 32 stays as it is.
"""

import struct
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mc1opt.config import IMAGE_SIZE
from mc1opt.errors import DataError

FORMATS = ("PNG", "JPEG")
ENDINGS = {".png", ".jpg", ".jpeg"}
"""Of the files that are taken from a folder; a file that is named may have any."""
WHITE = (255, 255, 255, 255)


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The files that are named, and those in the folders that are named, at any depth, in order.

    Raises:
        DataError: a path does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file()
            )
            if not inside:
                raise DataError(f"the folder {path} holds no PNG or JPEG file.")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"there is no image {path}.")
    return found


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as 3 x 32 x 32, RGB.

    Raises:
        DataError: it is no PNG or JPEG image, damaged, or too large.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of an image that is too large, and raises where it has twice as many pixels.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return _prepare(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} is too large: it has more than {Image.MAX_IMAGE_PIXELS:,} pixels. Make it smaller."
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is no PNG or JPEG image.") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise DataError(f"{path} is damaged, or cannot be read: {error}") from error


def _prepare(image: Image.Image) -> NDArray[np.uint8]:
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I"):  # 16 bits; Pillow would cut off what is above 255
        turned = Image.fromarray((np.asarray(turned).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if turned.has_transparency_data:
        turned = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", turned.size, WHITE), turned)
    turned = turned.convert("RGB")
    side = min(turned.size)
    left, top = (turned.width - side) // 2, (turned.height - side) // 2
    size = (IMAGE_SIZE, IMAGE_SIZE)
    if turned.size != size:
        # Not `resize(box=...)`, whose filter also looks at pixels outside of the box.
        square = turned.crop((left, top, left + side, top + side))
        turned = square.resize(size, Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(turned, dtype=np.uint8).transpose(2, 0, 1))
