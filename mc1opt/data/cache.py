"""The image cache: arrays on disk that all workers of a machine map into memory, checked by their hashes."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from mc1opt.data.formats import ARRAY_FILES, Array, Arrays
from mc1opt.data.named import CIFAR10, CIFAR10_COUNTS, CIFAR10_SHA256, NAMED, named_by_hash
from mc1opt.dataset import CIFAR10_CLASS_NAMES, CIFAR10_SHAPE, LARGEST_SIZE, MOST_CLASSES, DataSet
from mc1opt.errors import DataError
from mc1opt.files import locked, read_object
from mc1opt.paths import user_path
from mc1opt.program import boot_id
from mc1opt.text import megabytes

TEMPORARY = ".fetching-"
"""Prefix of temporary folders."""
VERIFIED = "verified.json"
"""File in an entry's folder: the state of the arrays' files at the last verification."""
LEAST_TRAIN_IMAGES = 20
"""Of own images: two of them validate."""
LEAST_SIZE = 8
CIFAR10_DISK = 400_000_000
"""Bytes that fetching CIFAR-10 needs."""
UINT8_CLASSES = 256
"""Labels of more classes are uint16."""


@dataclass(frozen=True)
class CacheEntry:
    """Arrays in the cache, with their source and hashes, and what the images are."""

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
    data: DataSet
    """The data set as trainings refer to it."""


def cache_folder() -> Path:
    """`MC1OPT_DATA`, else the platform's cache folder."""
    own = os.environ.get("MC1OPT_DATA")
    return user_path(own).resolve() if own else user_path(platformdirs.user_cache_dir("mc1opt"))


def own_name(sha256: str) -> str:
    """Name of own images, from the hash of all arrays."""
    return f"own-{sha256[:12]}"


def data_set(arrays: Arrays, hashes: dict[str, str]) -> DataSet:
    """What checked arrays are, as trainings refer to them.

    Images that are CIFAR-10's have its class names, whatever their labels are. Of other images without class
    names nobody knows what they show: their classes are called "0", "1" and so on.
    """
    named = NAMED[arrays.name] if arrays.name else named_by_hash(hashes)
    names = tuple(str(label) for label in range(_classes(arrays)))
    if named is not None and named.class_names is not None:
        names = named.class_names
    elif hashes["train_images"] == CIFAR10_SHA256["train_images"]:
        names = CIFAR10_CLASS_NAMES
    # What nobody has said about the arrays is not in the hash: it is as it was before there was more to say.
    said: dict[str, Any] = {}
    if arrays.class_names not in (None, names):
        names = said["class_names"] = arrays.class_names
        named = named if arrays.name else None
    if arrays.validation_images:
        said["validation_images"] = arrays.validation_images
    sha256 = _hash_of_all({**hashes, **said})
    count = len(arrays.train_labels)
    name = named.name if named else own_name(sha256)
    return DataSet(
        name=name,
        folder=str(cache_folder() / name),
        sha256=hashes["train_images"] if name == CIFAR10 else sha256,
        train_images=count,
        validation_images=arrays.validation_images or count // 10,
        validation_first=arrays.validation_images > 0,
        channels=arrays.train_images.shape[1],
        size=arrays.train_images.shape[2],
        class_names=names,
    )


def _classes(arrays: Arrays) -> int:
    return len(arrays.class_names) if arrays.class_names else int(arrays.train_labels.max(initial=0)) + 1


def check_arrays(arrays: Arrays, origin: str, must_be: str | None = None) -> dict[str, str]:
    """Checks types, shapes and labels; of a named data set that we know the hashes of, the hashes, too.

    Args:
        arrays: what was read.
        origin: where it comes from, for messages.
        must_be: the name of the data set that it must be; None for any images.

    Returns:
        The SHA-256 of each array.

    Raises:
        DataError: what is wrong, and what to do.
    """
    _check_shapes(arrays, origin)
    hashes = {name.removesuffix(".npy"): _sha256(array) for name, array in named_arrays(arrays)}
    counts = (len(arrays.train_labels), len(arrays.test_labels))
    shape = (*arrays.train_images.shape[1:3], _classes(arrays))
    if must_be is not None:
        named = NAMED[must_be]
        _compare(hashes, hashes.keys(), must_be, origin)
        if named.sha256 is None and (counts != named.counts or shape != named.shape):
            raise DataError(f"{origin}: {counts} images of the shape {shape} are not {named.title}.")
    elif counts == CIFAR10_COUNTS and shape == CIFAR10_SHAPE and arrays.class_names is None:
        # CIFAR-10's images with other labels may be intended, such as corrected ones: they are own images.
        _compare(hashes, {"train_images", "test_images"}, CIFAR10, origin)
    elif counts[0] < LEAST_TRAIN_IMAGES or not counts[1]:
        raise DataError(
            f"{origin} has {counts[0]} training and {counts[1]} test images; at least "
            f"{LEAST_TRAIN_IMAGES} and 1 are needed."
        )
    return hashes


def _check_shapes(arrays: Arrays, origin: str) -> None:
    image = arrays.train_images.shape[1:]
    classes = _classes(arrays)
    label_type = np.uint8 if classes <= UINT8_CLASSES else np.uint16
    for images, labels, part in (
        (arrays.train_images, arrays.train_labels, "training"),
        (arrays.test_images, arrays.test_labels, "test"),
    ):
        fits = images.dtype == np.uint8 and labels.dtype == label_type and labels.ndim == 1
        size = image[-1] if len(image) == 3 else 0
        square = image in ((1, size, size), (3, size, size)) and LEAST_SIZE <= size <= LARGEST_SIZE
        if not fits or not square or images.shape != (*labels.shape, *image):
            raise DataError(
                f"{origin}: the {part} images are {images.dtype} {images.shape} with labels {labels.dtype} "
                f"{labels.shape}; they must be uint8, N x 1 or 3 x S x S with S from {LEAST_SIZE} to "
                f"{LARGEST_SIZE}, all of one shape, with as many labels, uint8 (uint16 for more than "
                f"{UINT8_CLASSES} classes)."
            )
        if labels.size and labels.max() >= classes:
            raise DataError(
                f"{origin}: a {part} label is {labels.max()}; the training labels and class names allow "
                f"0 to {classes - 1}."
            )
    if not 2 <= classes <= MOST_CLASSES:
        raise DataError(f"{origin} has {classes} classes; 2 to {MOST_CLASSES:,} are allowed.")
    if len(set(arrays.class_names or ())) < len(arrays.class_names or ()):
        raise DataError(f"{origin}: two classes have the same name.")


def _compare(hashes: dict[str, str], parts: Collection[str], name: str, origin: str) -> None:
    """Raises DataError if one of these arrays is not the named data set's."""
    known = NAMED[name].sha256 or hashes
    wrong = [part for part, digest in hashes.items() if digest != known[part]]
    if set(wrong) & set(parts):
        raise DataError(
            f"{origin}: {', '.join(wrong)} differ from {NAMED[name].title}'s (SHA-256 "
            f"{hashes[wrong[0]][:12]}... instead of {known[wrong[0]][:12]}...): damaged or other images. "
            "Fetch them again."
        )


def named_arrays(arrays: Arrays) -> list[tuple[str, Array]]:
    """The arrays with the names of their files."""
    parts = (arrays.train_images, arrays.train_labels, arrays.test_images, arrays.test_labels)
    return list(zip(ARRAY_FILES, parts, strict=True))


def write_entry(arrays: Arrays, source: str, must_be: str | None = None) -> CacheEntry:
    """Checks arrays and writes them to the cache atomically, if they are not there.

    Raises:
        DataError: the arrays are not what they should be, or the cache cannot be written.
    """
    hashes = check_arrays(arrays, source, must_be)
    data = data_set(arrays, hashes)
    name, final = data.name, Path(data.folder)
    if there := open_entry(name):
        return there  # workers may have mapped it
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
        } | _stored(data, hashes)
        (staging / "source.json").write_text(json.dumps(description, indent=2))
        if final.exists():
            shutil.rmtree(final)  # damaged
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
        counts = (known["counts"][0], known["counts"][1])
        as_before = _as_before(known["sha256"], counts[0])
        return CacheEntry(
            folder=folder,
            source=known["source"],
            fetched=known["fetched"],
            counts=counts,
            sizes=sizes,
            sha256=known["sha256"],
            data=DataSet(folder=str(folder), **as_before | known.get("data", {})),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _as_before(hashes: dict[str, str], train_images: int) -> dict[str, Any]:
    """What an entry is of which no more is stored: 3 x 32 x 32, CIFAR-10's classes, a tenth validates."""
    sha256 = _hash_of_all(hashes)
    is_cifar10 = hashes == CIFAR10_SHA256
    return {
        "name": CIFAR10 if is_cifar10 else own_name(sha256),
        "sha256": hashes["train_images"] if is_cifar10 else sha256,
        "train_images": train_images,
        "validation_images": train_images // 10,
    }


def _stored(data: DataSet, hashes: dict[str, str]) -> dict[str, Any]:
    """What is stored of a data set beside its arrays: what is not as before."""
    before = _as_before(hashes, data.train_images)
    content = data.model_dump(mode="json", exclude={"folder"})
    changed = {key: value for key, value in content.items() if before.get(key) != value}
    return {"data": changed} if changed else {}


def repair(name: str) -> str:
    """How to repair the damaged entry of this name, for messages."""
    own = f" --data {name}" if name in NAMED else " --data PATH, with the original images"
    return f"Delete its folder and run: mc1opt data{'' if name == CIFAR10 else own}"


def open_array(path: Path) -> Array:
    """An array of an entry, mapped into memory.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}. {repair(path.parent.name)}") from error
    return array


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
def writing_to_cache(needed: int = CIFAR10_DISK) -> Iterator[None]:
    """Turns OSError into a DataError that says what to do.

    Args:
        needed: bytes that are about to be written.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the data cache {cache_folder()} cannot be written: {error.strerror or error}. It needs "
            f"{megabytes(needed)}: free some, or set the environment variable MC1OPT_DATA to another folder."
        ) from error


def _hash_of_all(hashes: dict[str, Any]) -> str:
    """Hash of all four arrays' hashes, and of what was said of them: corrected labels make other data."""
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def _sha256(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
