"""The checks of disk, SQLite and images. Nothing is written, and nothing is fetched."""

import os
import shlex
import shutil
import sqlite3
from pathlib import Path

import psutil

from mc1opt.data.cache import CIFAR10_DISK, CacheEntry, cache_folder, damaged_arrays, open_entry
from mc1opt.data.named import CIFAR10, named_at
from mc1opt.data.sources import look_at_files
from mc1opt.database.location import checkpoints_folder, files_folder, sqlite_path, storage_url
from mc1opt.doctor.diagnosis import Check, Status
from mc1opt.errors import DataError
from mc1opt.text import megabytes

LITTLE_DISK = 2_000_000_000
"""Bytes: below this a long search with its checkpoints, models and exports may fill the disk."""
LEAST_DISK = 200_000_000
"""Bytes: below this a search does not even begin in comfort."""
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
    folder = files_folder(storage)
    place = _existing(folder)
    if not place.is_dir():
        return Check(
            "disk", "problem", f"{place} is no folder", "Name another place with --storage or --files."
        )
    free = shutil.disk_usage(place).free if free_bytes is None else free_bytes
    found = f"{megabytes(free)} free at {folder.absolute()}"
    database = () if path is None else (_existing(path.parent), path)
    for needed in (place, *database, checkpoints_folder(storage)):
        if needed.exists() and not os.access(needed, os.W_OK):
            what_to_do = "Give yourself the right to write there, or name another place with --storage."
            return Check("disk", "problem", f"{found}; {needed} cannot be written", what_to_do)
    if free < LITTLE_DISK:
        status: Status = "problem" if free < LEAST_DISK else "warning"
        what_to_do = f"Free some, or name another disk with --storage; {megabytes(LITTLE_DISK)} are plenty."
        return Check("disk", status, found, what_to_do)
    return Check("disk", "ok", found)


def _existing(path: Path) -> Path:
    """A path, or the nearest folder above it that exists."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


# ---- SQLite ----------------------------------------------------------------------------------------------


def check_sqlite(storage: str) -> Check:
    """SQLite's version, and whether the locks of the file system that the database is on can be trusted."""
    path = sqlite_path(storage_url(storage))
    assert path is not None
    kind = file_system(path)
    found = f"SQLite {sqlite3.sqlite_version} on {kind or 'a file system of unknown kind'}"
    if kind.startswith(NETWORK_FILE_SYSTEMS):
        what_to_do = (
            "Put the database on a disk of this machine, or use PostgreSQL (--storage postgresql+...)."
        )
        return Check("sqlite", "warning", f"{found}, whose locks are not reliable", what_to_do)
    return Check("sqlite", "ok", found)


def file_system(path: Path) -> str:
    """The kind of file system that a path is on, such as "ext4" or "nfs4"; empty where it is not known."""
    mounts = [
        disk for disk in psutil.disk_partitions(all=True) if path.resolve().is_relative_to(disk.mountpoint)
    ]
    # Of two that are mounted at the same place, the later one is seen.
    return max(reversed(mounts), key=lambda disk: len(disk.mountpoint)).fstype if mounts else ""


# ---- Images ----------------------------------------------------------------------------------------------


def check_data(data: Path | None = None) -> Check:
    """Whether the images are there, and are those that they were; else whether the cache can take them.

    Args:
        data: a named data set or files of images; CIFAR-10 if None.
    """
    name: str | None = CIFAR10
    counts = ""
    if data is not None:
        try:
            name, training, test = look_at_files(data)
        except DataError as error:
            return Check("data", "problem", f"{data} cannot be used", str(error))
        counts = f" ({training:,} training and {test:,} test images)"
    if name is not None and (entry := open_entry(name)) is not None:
        return _check_entry(entry)
    place = _existing(cache_folder())
    found = f"{data or 'CIFAR-10'}{counts} is not in the cache {cache_folder()} yet"
    if not place.is_dir() or not os.access(place, os.W_OK):
        what_to_do = "Name a folder that you may write to with the environment variable MC1OPT_DATA."
        return Check("data", "problem", f"{found}, which cannot be written", what_to_do)
    free = shutil.disk_usage(place).free
    if free < CIFAR10_DISK:
        what_to_do = f"Free {megabytes(CIFAR10_DISK)}, or name another folder with MC1OPT_DATA."
        return Check("data", "problem", f"{found}, where {megabytes(free)} are free", what_to_do)
    if named_at(data) is None:
        return Check("data", "ok", found, "The first command puts them there.")
    return Check("data", "warning", found, "`mc1opt data` fetches it now; else the first search does.")


def _check_entry(entry: CacheEntry) -> Check:
    name = entry.data.name
    damaged = damaged_arrays(entry)
    if damaged:
        found = f"{name} in {entry.folder} has changed since it was fetched: {', '.join(damaged)}"
        what_to_do = f"rm -r {shlex.quote(str(entry.folder))}\nThe next command makes it again."
        return Check("data", "problem", found, what_to_do)
    train, test = entry.counts
    found = f"{name}, {train:,} training and {test:,} test images in {entry.folder}, all hashes verified"
    return Check("data", "ok", found)
