"""The image cache: arrays on disk that all workers of a machine map into memory, checked by their hashes."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from mc1opt.data.formats import ARRAY_FILES, Array, Arrays
from mc1opt.dataset import CIFAR10_SHAPE, DataSet
from mc1opt.errors import DataError
from mc1opt.files import locked, read_object
from mc1opt.paths import user_path
from mc1opt.program import boot_id

IMAGE_CHANNELS, IMAGE_SIZE, CLASSES = CIFAR10_SHAPE
CIFAR10 = "cifar10"
CIFAR10_SHA256 = {
    "train_images": "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
    "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test_images": "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
    "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}
"""Of each array's bytes; images in the order N, C, H, W."""
CIFAR10_COUNTS = (50_000, 10_000)
TEMPORARY = ".fetching-"
"""Prefix of temporary folders."""
VERIFIED = "verified.json"
"""File in an entry's folder: the state of the arrays' files at the last verification."""
LEAST_TRAIN_IMAGES = 20
"""For own images: two of each class."""


@dataclass(frozen=True)
class CacheEntry:
    """Arrays in the cache, with their source and hashes."""

    folder: Path
    source: str
    """Where they came from, in words."""
    fetched: str
    """When, ISO 8601, UTC."""
    counts: tuple[int, int]
    """Training and test images."""
    sizes: dict[str, int]
    """Bytes of each file."""
    sha256: dict[str, str]
    """Of each array's bytes."""

    @property
    def data(self) -> DataSet:
        """The data set as trainings refer to it."""
        name = entry_name(self.sha256)
        return DataSet(
            name=name,
            folder=str(self.folder),
            sha256=self.sha256["train_images"] if name == CIFAR10 else _hash_of_all(self.sha256),
            train_images=self.counts[0],
            validation_images=self.counts[0] // 10,
        )


def cache_folder() -> Path:
    """`MC1OPT_DATA`, else the platform's cache folder."""
    own = os.environ.get("MC1OPT_DATA")
    return user_path(own).resolve() if own else user_path(platformdirs.user_cache_dir("mc1opt"))


def entry_name(hashes: dict[str, str]) -> str:
    """Name of the data set with these hashes, and of its folder in the cache."""
    if hashes == CIFAR10_SHA256:
        return CIFAR10
    return own_name(_hash_of_all(hashes))


def own_name(sha256: str) -> str:
    """Name of own images, from the hash of all arrays."""
    return f"own-{sha256[:12]}"


def check_arrays(arrays: Arrays, origin: str, *, must_be_cifar10: bool) -> dict[str, str]:
    """Checks types, shapes and labels; for CIFAR-10 the hashes, too.

    Returns:
        The SHA-256 of each array.

    Raises:
        DataError: what is wrong, and what to do.
    """
    for images, labels, part in (
        (arrays.train_images, arrays.train_labels, "training"),
        (arrays.test_images, arrays.test_labels, "test"),
    ):
        shape = (*labels.shape[:1], IMAGE_CHANNELS, IMAGE_SIZE, IMAGE_SIZE)
        if images.dtype != np.uint8 or labels.dtype != np.uint8 or images.shape != shape or labels.ndim != 1:
            raise DataError(
                f"{origin}: the {part} images are {images.dtype} {images.shape} with labels {labels.dtype} "
                f"{labels.shape}; they must be uint8, N x 3 x 32 x 32, with as many labels."
            )
        if labels.size and labels.max() >= CLASSES:
            raise DataError(f"{origin}: a {part} label is {labels.max()}; allowed are 0 to {CLASSES - 1}.")
    hashes = {name.removesuffix(".npy"): _sha256(array) for name, array in named_arrays(arrays)}
    counts = (len(arrays.train_labels), len(arrays.test_labels))
    if must_be_cifar10 or counts == CIFAR10_COUNTS:
        wrong = [name for name, digest in hashes.items() if digest != CIFAR10_SHA256[name]]
        # CIFAR-10's images with other labels may be intended, such as corrected ones: they are own images.
        if wrong if must_be_cifar10 else {"train_images", "test_images"} & set(wrong):
            raise DataError(
                f"{origin}: {', '.join(wrong)} differ from CIFAR-10's (SHA-256 {hashes[wrong[0]][:12]}... "
                f"instead of {CIFAR10_SHA256[wrong[0]][:12]}...): damaged or other images. Fetch them again."
            )
    elif counts[0] < LEAST_TRAIN_IMAGES or not counts[1]:
        raise DataError(
            f"{origin} has {counts[0]} training and {counts[1]} test images; at least "
            f"{LEAST_TRAIN_IMAGES} and 1 are needed."
        )
    return hashes


def named_arrays(arrays: Arrays) -> list[tuple[str, Array]]:
    """The arrays with the names of their files."""
    parts = (arrays.train_images, arrays.train_labels, arrays.test_images, arrays.test_labels)
    return list(zip(ARRAY_FILES, parts, strict=True))


def write_entry(arrays: Arrays, source: str, *, must_be_cifar10: bool) -> CacheEntry:
    """Checks arrays and writes them to the cache atomically.

    Raises:
        DataError: the arrays are not what they should be, or the cache cannot be written.
    """
    hashes = check_arrays(arrays, source, must_be_cifar10=must_be_cifar10)
    name = entry_name(hashes)
    final = cache_folder() / name
    with writing_to_cache(), temporary_folder() as temporary:
        staging = temporary / name
        staging.mkdir()
        for file_name, array in named_arrays(arrays):
            with (staging / file_name).open("wb") as file:
                np.save(file, np.ascontiguousarray(array), allow_pickle=False)
                os.fsync(file.fileno())
        description = {
            "source": source,
            "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
            "counts": [len(arrays.train_labels), len(arrays.test_labels)],
            "sizes": {file_name: (staging / file_name).stat().st_size for file_name in ARRAY_FILES},
            "sha256": hashes,
        }
        (staging / "source.json").write_text(json.dumps(description, indent=2))
        if final.exists():
            shutil.rmtree(final)  # damaged: an entry that opens is never replaced
        staging.rename(final)
    entry = open_entry(name)
    assert entry is not None  # it was written a moment ago
    return entry


def open_entry(name: str) -> CacheEntry | None:
    """An entry of the cache; None if it is missing or incomplete.

    Compares sizes, not hashes: call `verify` before training or testing on the images.
    """
    folder = cache_folder() / name
    try:
        known: dict[str, Any] = json.loads((folder / "source.json").read_text())
        sizes = {file_name: (folder / file_name).stat().st_size for file_name in ARRAY_FILES}
        if sizes != known["sizes"]:
            return None
        return CacheEntry(
            folder=folder,
            source=known["source"],
            fetched=known["fetched"],
            counts=(known["counts"][0], known["counts"][1]),
            sizes=sizes,
            sha256=known["sha256"],
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def repair(name: str) -> str:
    """How to repair the damaged entry of this name, for messages."""
    own = "" if name == CIFAR10 else " --data PATH, with the original images"
    return f"Delete its folder and run: mc1opt data{own}"


def verify(entry: CacheEntry, *, anew: bool = False) -> None:
    """Checks that the arrays of an entry are unchanged.

    Hashes are computed once per boot, and again when a file's inode, size, mtime or ctime has changed
    (setting mtime back, as `os.utime` and `rsync --times` do, changes ctime). A change that leaves no trace
    in the file system, such as a disk fault, is found after the next boot. Where nothing can be remembered
    (a read-only cache, a system without a boot id), hashes are computed each time: 0.2 s for CIFAR-10.

    Args:
        entry: the arrays.
        anew: whether to compute the hashes in any case.

    Raises:
        DataError: an array has changed.
    """
    record = entry.folder / VERIFIED
    # Taken before the files are read, so that a change meanwhile is noticed the next time.
    state = {"boot": boot_id(), "sha256": entry.sha256, "files": _file_states(entry)}
    if not anew and state["boot"] is not None and read_object(record) == state:
        return
    damaged = damaged_arrays(entry)
    if damaged:
        raise DataError(
            f"{entry.folder}: {', '.join(damaged)} changed since they were fetched. "
            + repair(entry.data.name)
        )
    # Not atomic: a damaged record counts as none.
    with contextlib.suppress(OSError):
        record.write_text(json.dumps(state, indent=2))


def _file_states(entry: CacheEntry) -> list[list[int]]:
    """Inode, size and times (ns) of each array's file; empty if one is missing."""
    try:
        states = [(entry.folder / file_name).stat() for file_name in ARRAY_FILES]
    except FileNotFoundError:
        return []
    return [[state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns] for state in states]


def damaged_arrays(entry: CacheEntry) -> list[str]:
    """Names of the arrays whose SHA-256 is no longer the stored one."""
    damaged = []
    for file_name in ARRAY_FILES:
        name = file_name.removesuffix(".npy")
        try:
            array = np.load(entry.folder / file_name, mmap_mode="r", allow_pickle=False)
            whole = _sha256(array) == entry.sha256[name]
        except (OSError, ValueError, EOFError):
            whole = False
        if not whole:
            damaged.append(name)
    return damaged


@contextlib.contextmanager
def fetch_lock() -> Iterator[None]:
    """Lets one process at a time fetch; the others wait, then find the data in the cache."""
    folder = cache_folder()
    with contextlib.ExitStack() as held:
        with writing_to_cache():
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(folder / ".lock"))
        for leftover in folder.glob(f"{TEMPORARY}*"):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        yield


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder on the cache's file system, always deleted afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=cache_folder()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def writing_to_cache() -> Iterator[None]:
    """Turns OSError into a DataError that says what to do."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the data cache {cache_folder()} cannot be written: {error.strerror or error}. It needs 400 MB: "
            "free some, or set the environment variable MC1OPT_DATA to another folder."
        ) from error


def _hash_of_all(hashes: dict[str, str]) -> str:
    """Hash of all four arrays: the same images with corrected labels are other data."""
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def _sha256(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
