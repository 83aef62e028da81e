"""Image files -> pixels, as a viewer shows them and as the network needs them.

Steps, in this order: take the first frame or page; reduce 16 bits a channel to 8; make transparent parts
white; convert grey, palette and CMYK to RGB; apply the EXIF orientation; resize the central square to the
size that is asked for with Pillow's bicubic filter, which antialiases (an image of this size stays as it is);
make it grey if that is asked for. Other metadata, such as colour profiles and gamma, is ignored.
"""

import io
import os
import stat
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mc1opt.data.metadata import without_metadata
from mc1opt.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
ENDINGS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Of file names in folders; a file that is given by its own name may have any."""
NAMES = "PNG, JPEG, WebP, BMP, GIF or TIFF"
LARGEST = 2**30
"""Bytes of a file: the largest picture that Pillow accepts, in 16 bits."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the operation that makes the image upright."""
WHITE_IS_ZERO = 262
"""TIFF's tag PhotometricInterpretation; its value 0 means that white is zero."""


def find_images(path: Path) -> list[Path]:
    """The path itself, or the image files in the folder that it names, by their endings, sorted.

    Searches at any depth, skips hidden files and folders, and does not follow links to folders. A folder
    that cannot be listed is returned like a file: reading it raises the error.

    Raises:
        DataError: the folder holds no image file.
    """
    found: list[Path] = []
    unlisted: list[OSError] = []  # folders without permission, and a path that is no folder
    for parent, folders, files in os.walk(path, onerror=unlisted.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = [name for name in files if name.lower().endswith(ENDINGS) and not name.startswith(".")]
        found += [Path(parent, name) for name in images]
    found += [Path(error.filename) for error in unlisted]
    if not found:
        raise DataError(f"the folder {path} holds no {NAMES} file.")
    return sorted(found)


def read_image(path: Path, channels: int, size: int) -> NDArray[np.uint8]:
    """An image file as channels x size x size: RGB, or grey if there is one channel.

    Raises:
        DataError: the file is missing, not an image, damaged, or too large.
    """
    return square_pixels(open_image(path), channels, size)


def open_image(path: Path) -> Image.Image:
    """An image file as a viewer shows it on white: RGB, in full size.

    Raises:
        DataError: the file is missing, not an image, damaged, or too large.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise DataError(f"{path} is not a regular file.")  # reading a pipe would block
        if status.st_size > LARGEST:
            raise DataError(f"{path} has {status.st_size:,} bytes; the limit is {LARGEST:,}.")
        content = path.read_bytes()
    except FileNotFoundError as error:
        what = f"{path} is a broken link." if path.is_symlink() else f"there is no image {path}."
        raise DataError(what) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return rgb_image(content, str(path))


def square_pixels(image: Image.Image, channels: int, size: int) -> NDArray[np.uint8]:
    """The central square of an RGB image as channels x size x size."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if image.size != (size, size):
        # Not `resize(box=...)`, whose filter also sees pixels outside the box.
        square = image.crop((left, top, left + side, top + side))
        image = square.resize((size, size), Image.Resampling.BICUBIC)
    if channels == 1:
        return np.asarray(image.convert("L"), dtype=np.uint8)[None]
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))


def shorter_side(path: Path) -> int | None:
    """Pixels of an image's shorter side, by its header; None if that cannot be read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return min(image.size)
    except Exception:  # decoders raise whatever they like; reading the whole file will name what is wrong
        return None


def rgb_image(content: bytes, name: str) -> Image.Image:
    """An image file as a viewer shows it on white: RGB, in full size.

    Args:
        content: of the file.
        name: its name, for messages.

    Raises:
        DataError: it is not an image of a known format, damaged, or too large.
    """
    needed, orientation = without_metadata(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Pillow warns above its limit of pixels, and raises above twice that.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = _on_white(needed)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(
            f"{name} is too large: it has more than {Image.MAX_IMAGE_PIXELS:,} pixels. Make it smaller."
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name} is not a readable {NAMES} image.") from error
    except Exception as error:  # decoders raise whatever they like
        raise DataError(f"{name} is damaged, or cannot be read: {error}") from error
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _on_white(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        # A GIF's first frame may be smaller than the picture; the rest is empty.
        frame = image.tile[0].extents if image.format == "GIF" else None
        key = image.info.get("transparency")
        if image.tile and image.tile[0].args == "RGB;16B" and key is not None:
            low = Image.open(io.BytesIO(content), formats=FORMATS)
            low.tile = [low.tile[0]._replace(args="RGB;16L")]  # the other byte of each value
            both = np.asarray(image).astype(np.uint16) << 8 | np.asarray(low)
            shown: Image.Image = _with_colour_key(both, key)
        elif image.mode.startswith("I"):
            values = np.asarray(image).clip(0, 65535)
            if getattr(image, "tag_v2", {}).get(WHITE_IS_ZERO) == 0:
                values = 65535 - values
            shown = _with_colour_key(values, key)
        elif image.mode == "F":  # black is 0 and white is 1
            shown = Image.fromarray(
                (np.nan_to_num(np.asarray(image)).clip(0, 1) * 255).round().astype(np.uint8)
            )
        else:
            shown = image
        if shown.mode == "La":  # which Pillow converts to nothing else
            shown = shown.convert("LA")
        if shown.has_transparency_data:
            shown = shown.convert("RGBA")
            shown = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
        shown = shown.convert("RGB")
    if frame is not None:
        white = Image.new("RGB", shown.size, "white")
        white.paste(shown.crop(frame), frame)
        return white
    return shown


def _with_colour_key(values: NDArray[np.integer], key: int | tuple[int, ...] | None) -> Image.Image:
    """Grey or RGB of 16 bits in 8, transparent where it has the colour `key`."""
    image = Image.fromarray((values >> 8).astype(np.uint8))
    if key is not None:
        opaque = values != key
        image.putalpha(Image.fromarray(opaque if opaque.ndim == 2 else opaque.any(2)).convert("L"))
    return image
