"""The checks of `mc1opt doctor` that look at what is stored: disk, SQLite, images.

Nothing is written. Not here: what is in the study database (`doctor_database.py`), and the other checks
(`doctor.py`).
"""

import os
import shlex
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from mc1opt.data.cache import (
    CIFAR10,
    TEMPORARY,
    CacheEntry,
    cache_folder,
    damaged_arrays,
    entry_name,
    open_entry,
)
from mc1opt.data.sources import look_at_files
from mc1opt.database.location import checkpoints_folder, files_folder, sqlite_path, storage_url
from mc1opt.doctor.database import has_wal
from mc1opt.doctor.diagnosis import Check, Status
from mc1opt.errors import DataError
from mc1opt.text import megabytes

LITTLE_DISK = 2_000_000_000
"""Bytes: below this a long search with its checkpoints, models and exports may fill the disk."""
LEAST_DISK = 200_000_000
"""Bytes: below this a search does not even begin in comfort."""
CACHE_DISK = 400_000_000
"""Bytes that fetching CIFAR-10 needs."""
# https://sqlite.org/wal.html#walresetbug: two processes that write and checkpoint at the same moment can
# damage the database. Mended in 3.51.3, and for those who stay with an older minor release in these.
WAL_MENDED = (3, 51, 3)
WAL_MENDED_PATCHES = {(3, 50): 7, (3, 44): 6}

NETWORK_FILE_SYSTEMS = (
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.", "gluster", "gpfs", "lustre", "nfs", "smb",
)  # fmt: skip
"""How the names of file systems begin that other machines may write to at the same time."""


# ---- Disk ------------------------------------------------------------------------------------------------


def check_disk(storage: str, free_bytes: int | None = None) -> Check:
    """Free disk where study database, checkpoints and models go, and whether that can be written.

    Args:
        storage: the study database.
        free_bytes: measured if None.
    """
    path = sqlite_path(storage_url(storage))
    folder = files_folder(storage) if path is None else path.parent
    place = _existing(folder)
    if not place.is_dir():
        return Check("disk", "problem", f"{place} is no folder", "Name another place with --storage.")
    free = shutil.disk_usage(place).free if free_bytes is None else free_bytes
    found = f"{megabytes(free)} free at {folder.absolute()}"
    needed = [place, *(part for part in (path, checkpoints_folder(storage)) if part is not None)]
    closed = [part for part in needed if part.exists() and not os.access(part, os.W_OK)]
    if closed:
        which = "which" if closed[0] == place else f"but {closed[0]}"
        what_to_do = "Give yourself the right to write there, or name another place with --storage."
        return Check("disk", "problem", f"{found}, {which} cannot be written", what_to_do)
    if free < LITTLE_DISK:
        status: Status = "problem" if free < LEAST_DISK else "warning"
        what_to_do = f"Free some, or name another disk with --storage; {megabytes(LITTLE_DISK)} are plenty."
        return Check("disk", status, found, what_to_do)
    return Check("disk", "ok", found)


def _existing(path: Path) -> Path:
    """A path, or the nearest folder above it that exists."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


# ---- SQLite ----------------------------------------------------------------------------------------------


def check_sqlite(storage: str, version: tuple[int, ...] = sqlite3.sqlite_version_info) -> Check:
    """SQLite's version, and whether a write-ahead log would be safe where the database is."""
    path = sqlite_path(storage_url(storage))
    assert path is not None
    kind = file_system(_existing(path))
    network = kind is not None and kind.startswith(NETWORK_FILE_SYSTEMS)
    mended = is_wal_mended(version)
    found = f"SQLite {'.'.join(map(str, version))} on {kind or 'a file system of unknown kind'}"
    if path.is_file() and has_wal(path) and not (mended and not network):
        reason = "shared with other machines" if network else "not free of its WAL-reset bug"
        found += f", {reason}; the database has a write-ahead log, which may damage it"
        quoted = shlex.quote(str(path))
        what_to_do = f'End what uses it, then: python -m sqlite3 {quoted} "PRAGMA journal_mode = DELETE"'
        # The module's command line came with Python 3.12; the program does the same everywhere.
        return Check("sqlite", "problem", found, what_to_do.replace("python -m sqlite3", "sqlite3"))
    if network:
        found += ", whose locks are not to be relied on"
        what_to_do = (
            "Put the database on a disk of this machine, or use PostgreSQL (--storage postgresql+...)."
        )
        return Check("sqlite", "warning", found, what_to_do)
    used = "and the database has one" if path.is_file() and has_wal(path) else "and is not used"
    found += f"; a write-ahead log would {'' if mended else 'not '}be safe with this version, {used}"
    return Check("sqlite", "ok", found)


def is_wal_mended(version: Sequence[int]) -> bool:
    """Whether a version of SQLite is free of the WAL-reset bug."""
    major, minor, patch = version[:3]
    return (major, minor, patch) >= WAL_MENDED or (
        (major, minor) in WAL_MENDED_PATCHES and patch >= WAL_MENDED_PATCHES[major, minor]
    )


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """The kind of file system that a path is on, such as "ext4" or "nfs4"; None where Linux does not say it.

    Args:
        path: an existing file or folder.
        mounts: the system's list of what is mounted.
    """
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return None
    resolved = path.resolve()
    found: tuple[int, str] | None = None
    for line in lines:
        _, place, kind = line.split(" ")[:3]
        for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
            place = place.replace(code, character)
        # Of two that are mounted at the same place, the later one is seen.
        if resolved.is_relative_to(place) and (found is None or len(place) >= found[0]):
            found = (len(place), kind)
    return found[1] if found else None


# ---- Images ----------------------------------------------------------------------------------------------


def check_data(data: Path | None = None) -> Check:
    """Whether the images are there, and are those that they were.

    Args:
        data: files of images; the cache of CIFAR-10 if None.
    """
    if data is None:
        return _check_cache()
    try:
        name, training, test = look_at_files(data)
    except DataError as error:
        return Check("data", "problem", f"{data} cannot be used", str(error))
    entry = open_entry(name)
    if entry is not None:
        return _check_entry(entry)
    counts = f"{training:,} training and {test:,} test images"
    if (trouble := _trouble_with_the_cache(f"{data} is not in the cache yet")) is not None:
        return trouble
    return Check(
        "data", "ok", f"{data}: {counts}, not in the cache yet", "The first command puts them there."
    )


def _check_cache() -> Check:
    folder = cache_folder()
    entry = open_entry(CIFAR10)
    if entry is not None:
        return _check_entry(entry)
    there = (folder / CIFAR10).exists() or any(folder.glob(f"{TEMPORARY}*"))
    found = f"CIFAR-10 is {'only in part' if there else 'not yet'} in the cache {folder}"
    if (trouble := _trouble_with_the_cache(found)) is not None:
        return trouble
    return Check("data", "warning", found, "`mc1opt data` fetches it now; else the first search does.")


def _trouble_with_the_cache(found: str) -> Check | None:
    """Why images cannot be put into the cache; None if they can."""
    place = _existing(cache_folder())
    if not place.is_dir() or not os.access(place, os.W_OK):
        what_to_do = "Name a folder that you may write to with the environment variable MC1OPT_DATA."
        return Check("data", "problem", f"{found}, which cannot be written", what_to_do)
    free = shutil.disk_usage(place).free
    if free < CACHE_DISK:
        what_to_do = f"Free {megabytes(CACHE_DISK)}, or name another folder with MC1OPT_DATA."
        return Check("data", "problem", f"{found}, where {megabytes(free)} are free", what_to_do)
    return None


def _check_entry(entry: CacheEntry) -> Check:
    name = entry_name(entry.sha256)
    damaged = damaged_arrays(entry)
    if damaged:
        found = f"{name} in {entry.folder} has changed since it was fetched: {', '.join(damaged)}"
        what_to_do = f"rm -r {shlex.quote(str(entry.folder))}\nThe next command makes it again."
        return Check("data", "problem", found, what_to_do)
    train, test = entry.counts
    found = f"{name}, {train:,} training and {test:,} test images in {entry.folder}, all hashes verified"
    return Check("data", "ok", found)
