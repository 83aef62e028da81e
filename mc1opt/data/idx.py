"""IDX, the format of MNIST and of data sets that are made like it: four files, compressed by gzip or not.

A header says the type of the values and the length of each dimension; the values follow (LeCun, Cortes and
Burges, "The MNIST database of handwritten digits", 1998).
"""

import gzip
import math
import re
import struct
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from mc1opt.errors import DataError

NAME = re.compile(r"(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")
PARTS = (("train", "images"), ("train", "labels"), ("t10k", "images"), ("t10k", "labels"))
UNSIGNED_BYTES = b"\0\0\x08"
"""How a file of them begins; then comes the number of dimensions."""


def idx_names(names: Iterable[str]) -> list[str]:
    """The files of images and labels, for training and for test, in this order; empty if one is missing."""
    found: dict[tuple[str, str], str] = {}
    for name in sorted(names):  # so that a file comes before the compressed one
        if match := NAME.fullmatch(name):
            part = "t10k" if match[1] == "test" else match[1]
            found.setdefault((part, match[2]), name)
    return [found[part] for part in PARTS] if len(found) == len(PARTS) else []


def read_idx(read: Callable[[str], bytes], names: list[str]) -> list[NDArray[np.uint8]]:
    """The arrays of four files: images N x 1 x H x W and labels N, for training and for test.

    Args:
        read: file name -> content.
        names: see `idx_names`.

    Raises:
        DataError: a file is damaged.
    """
    arrays = []
    for name, (_, kind) in zip(names, PARTS, strict=True):
        array = idx_array(read(name), name)
        if array.ndim != (3 if kind == "images" else 1):
            raise DataError(
                f"{name} has {array.ndim} dimensions; {kind} have {3 if kind == 'images' else 1}."
            )
        arrays.append(array[:, None] if kind == "images" else array)
    return arrays


def idx_array(content: bytes, name: str) -> NDArray[np.uint8]:
    """The array of one file.

    Args:
        content: of the file.
        name: its name, for messages.

    Raises:
        DataError: it is not IDX of unsigned bytes, or damaged.
    """
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    if not content.startswith(UNSIGNED_BYTES) or len(content) < 4 + 4 * content[3]:
        raise DataError(f"{name} is not an IDX file of unsigned bytes.")
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape))
    if len(values) != math.prod(shape):
        raise DataError(f"{name} is damaged: {len(values):,} values instead of {math.prod(shape):,}.")
    return values.reshape(shape)
