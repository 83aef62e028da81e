"""A folder of image files -> an entry of the cache: decoded once, and found again as long as nothing changes.

What is found again is remembered by the folder's fingerprint, in a file beside the entries.
"""

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from mc1opt.data.cache import (
    LEAST_SIZE,
    UINT8_CLASSES,
    CacheEntry,
    cache_folder,
    fetch_lock,
    open_entry,
    temporary_folder,
    write_entry,
    writing_to_cache,
)
from mc1opt.data.decode import Decoded, decode_images
from mc1opt.data.folders import ImageFile, ImageFolder, list_images, readable
from mc1opt.data.formats import Array, Arrays
from mc1opt.data.image_files import shorter_side
from mc1opt.dataset import LARGEST_SIZE
from mc1opt.errors import DataError, UsageError
from mc1opt.files import read_object, write_whole
from mc1opt.text import SILENCE_SECONDS, plural

FOLDERS = "folders"
"""Folder of the cache: a file for each folder of images that was taken in, by its fingerprint."""
DEFAULT_SIZES = range(16, 65, 4)
"""Of images whose size nobody gives."""
SAMPLE = 1000
"""Images whose headers say what the median size is."""
UNREADABLE_SHARE = 0.01
UNREADABLE_COUNT = 10
"""Images that may be unreadable where nobody says how many: the greater of that share and that number."""
SHOWN = 10
"""Unreadable images in a message, at most."""

OnProgress = Callable[[int], None]


@dataclass(frozen=True)
class FolderRecord:
    """What is remembered of a folder of images."""

    entry: str
    """Name of the cache's entry."""
    images: int
    """Image files, whether they could be read or not."""
    train_files: list[str]
    """Path below the folder of each training image, in the order of the array."""
    test_files: list[str]
    unreadable: list[str]
    """What is wrong with each file that could not be read."""
    sides: tuple[int, int, int]
    """Pixels of the shorter sides: least, median, greatest."""
    others: dict[str, int]
    """How many files are no images, by their ending."""


def take_in(
    path: Path, image_size: int | None, max_unreadable: int | None, output: TextIO | None
) -> tuple[CacheEntry, FolderRecord]:
    """The images of a folder, from the cache, or decoded into it.

    Args:
        path: the folder; nothing is written there.
        image_size: pixels, height and width; None for what the median image suggests.
        max_unreadable: files that are left out, at most; None for 1 %, and at least 10.
        output: where progress is shown, and what is left out; None for nowhere.

    Raises:
        DataError: it is no folder of classes, too many files cannot be read, or the cache cannot be written.
        UsageError: the size is out of range.
    """
    if image_size is not None and not LEAST_SIZE <= image_size <= LARGEST_SIZE:
        raise UsageError(
            f"--image-size {image_size} is out of range; allowed are {LEAST_SIZE} to {LARGEST_SIZE}."
        )
    folder = list_images(path)
    record_path = cache_folder() / FOLDERS / f"{folder.fingerprint(image_size)}.json"
    known = _remembered(record_path)
    if known is None:
        with fetch_lock():
            # Another process may have taken it in while this one waited for the lock.
            known = _remembered(record_path) or _decode(path, folder, image_size, max_unreadable, output)
            with writing_to_cache():
                write_whole(record_path, json.dumps(asdict(known[1])).encode())
    _check_unreadable(path, known[1], max_unreadable)
    return known


def known_folder(path: Path) -> tuple[str | None, int, int]:
    """Name of a folder's entry if it was taken in, and how many training and test images it has.

    Raises:
        DataError: it is no folder of classes.
    """
    folder = list_images(path)
    known = _remembered(cache_folder() / FOLDERS / f"{folder.fingerprint(None)}.json")
    if known is not None:
        return known[1].entry, *known[0].counts
    return None, len(folder.validation) + len(folder.train), len(folder.test)


def _remembered(record_path: Path) -> tuple[CacheEntry, FolderRecord] | None:
    try:
        record = FolderRecord(**read_object(record_path))
    except TypeError:  # there is none, or it is damaged
        return None
    entry = open_entry(record.entry)
    return None if entry is None else (entry, record)


def _decode(
    path: Path, folder: ImageFolder, image_size: int | None, max_unreadable: int | None, output: TextIO | None
) -> tuple[CacheEntry, FolderRecord]:
    files = folder.files
    paths = [folder.path / file.path for file in files]
    size = image_size or suggested_size(paths)
    needed = len(files) * 3 * size * size
    with (
        writing_to_cache(2 * needed),
        temporary_folder() as temporary,
        _progress(
            f"Reading {plural(len(files), 'image')} of {path}, {size} x {size} pixels", len(files), output
        ) as on_progress,
    ):
        decoded = decode_images(paths, size, temporary / "pixels", on_progress)
        record = _record("", folder, decoded)
        _check_unreadable(path, record, max_unreadable)
        _tell_unreadable(record, output)
        pixels = np.memmap(temporary / "pixels", np.uint8, "r+", shape=(len(files), 3, size, size))
        entry = write_entry(_arrays(path, folder, decoded, pixels), f"the folder {path}")
    return entry, _record(entry.folder.name, folder, decoded)


def suggested_size(paths: list[Path]) -> int:
    """Pixels: the median of the shorter sides, a multiple of 4 from 16 to 64."""
    step = -(-len(paths) // SAMPLE)
    sides = [side for path in paths[::step] if (side := shorter_side(path)) is not None]
    median = statistics.median_low(sides) if sides else DEFAULT_SIZES[-1]
    return max(DEFAULT_SIZES[0], min(DEFAULT_SIZES[-1], median // DEFAULT_SIZES.step * DEFAULT_SIZES.step))


def _arrays(path: Path, folder: ImageFolder, decoded: Decoded, pixels: Array) -> Arrays:
    """The arrays without unreadable images, whose places the later ones take."""
    files = folder.files
    kept = [place for place in range(len(files)) if place not in decoded.unreadable]
    for place, old in enumerate(kept):
        if place != old:
            pixels[place] = pixels[old]
    images = pixels[: len(kept), : 1 if decoded.grey else 3]
    labels = np.array([files[place].label for place in kept])
    first_test = len(files) - len(folder.test)
    train = sum(place < first_test for place in kept)
    lacking = set(range(len(folder.class_names))) - set(labels[:train].tolist())
    if lacking:
        name = folder.class_names[min(lacking)]
        raise DataError(f"{path}: the class {name} has no training image that can be read.")
    kind = np.uint8 if len(folder.class_names) <= UINT8_CLASSES else np.uint16
    return Arrays(
        images[:train],
        labels[:train].astype(kind),
        images[train:],
        labels[train:].astype(kind),
        class_names=folder.class_names,
        validation_images=sum(place < len(folder.validation) for place in kept),
    )


def _record(entry: str, folder: ImageFolder, decoded: Decoded) -> FolderRecord:
    def names(files: list[ImageFile], start: int) -> list[str]:
        return [
            readable(file.path) for place, file in enumerate(files, start) if place not in decoded.unreadable
        ]

    train = folder.validation + folder.train
    sides = decoded.sides or [0]
    return FolderRecord(
        entry=entry,
        images=len(folder.files),
        train_files=names(train, 0),
        test_files=names(folder.test, len(train)),
        unreadable=[readable(why) for why in decoded.unreadable.values()],
        sides=(min(sides), statistics.median_low(sides), max(sides)),
        others=dict(folder.others),
    )


def _check_unreadable(path: Path, record: FolderRecord, limit: int | None) -> None:
    allowed = max(UNREADABLE_COUNT, int(UNREADABLE_SHARE * record.images)) if limit is None else limit
    count = len(record.unreadable)
    if count > allowed:
        raise DataError(
            f"{count:,} of {plural(record.images, 'image')} of {path} cannot be read; {allowed:,} may be:\n"
            + "\n".join(_some(record.unreadable))
            + f"\nRepair or remove them, or leave them out with --max-unreadable {count}."
        )


def _tell_unreadable(record: FolderRecord, output: TextIO | None) -> None:
    if output is not None and record.unreadable:
        print(f"Left out, because they cannot be read: {len(record.unreadable):,}", file=output)
        print("\n".join(_some(record.unreadable)), file=output, flush=True)


def _some(lines: list[str]) -> list[str]:
    more = [f"  and {len(lines) - SHOWN:,} more"] if len(lines) > SHOWN else []
    return [f"  {line}" for line in lines[:SHOWN]] + more


@contextlib.contextmanager
def _progress(title: str, images: int, output: TextIO | None) -> Iterator[OnProgress]:
    """A bar on a terminal, else a line at the start and in every half minute."""
    if output is None:
        yield lambda _done: None
    elif not output.isatty():
        print(f"{title}.", file=output, flush=True)
        yield _lines(images, output)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(file=output)) as bar:
            task = bar.add_task(title, total=images)
            yield lambda done: bar.update(task, completed=done)


def _lines(images: int, output: TextIO) -> OnProgress:
    last = time.monotonic()

    def tell(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= SILENCE_SECONDS:
            last = time.monotonic()
            print(f"{done:,} of {images:,} images", file=output, flush=True)

    return tell
