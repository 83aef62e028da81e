"""Files that a crash leaves whole: JSON records, a line each, and files replaced at once; locks of files."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mc1opt.errors import StorageError, UsageError


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Appends a record; when this returns, it is on disk.

    A half-written last line, which a power cut or a full disk leaves, is taken away first. Other processes
    that append wait meanwhile.

    Raises:
        StorageError: the file cannot be written.
    """
    line = json.dumps(record, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path) as file:
            file.truncate(_whole_bytes(path))
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}.") from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All records of a file, without a half-written last line; none if there is no file.

    Raises:
        StorageError: the file cannot be read, or another line than the last is damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error
    records = []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise StorageError(f"{path}, line {number} is damaged; delete the line, or the file.") from error
        if not isinstance(record, dict):
            raise StorageError(f"{path}, line {number} is no record; delete the line, or the file.")
        records.append(record)
    return records


def _whole_bytes(path: Path) -> int:
    """How many bytes the whole lines of a file take."""
    return path.read_bytes().rfind(b"\n") + 1


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds; empty if there is no such file, or if it is damaged."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write_whole(path: Path, content: bytes) -> None:
    """Replaces a file at once, and makes its folder if need be; when this returns, it is on disk.

    Raises:
        OSError: the file cannot be written. The old one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems sync no folders
            os.fsync(descriptor)  # or a power cut may bring the old file back
    finally:
        os.close(descriptor)


def remove_checkpoint(path: Path) -> None:
    """Deletes a checkpoint that is of no use any more, and what killed processes have left of it."""
    for left in (path, *path.parent.glob(f".{path.name}.*.tmp")):
        delete(left)


def delete(path: Path) -> None:
    """Deletes a file, if it is there and can be."""
    # A file that cannot be deleted costs disk, not results.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[BinaryIO]:
    """Locks a file, made if need be, for this process; the lock ends with the process, however it ends.

    Args:
        path: the file.
        wait: whether to wait for another process that holds the lock.

    Yields:
        The file, open for appending.

    Raises:
        BlockingIOError: another process holds the lock (without `wait`).
        OSError: the file cannot be opened.
    """
    with path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file


@contextlib.contextmanager
def exclusive(folder: Path, busy: str) -> Iterator[None]:
    """Holds a folder, which is made if need be; the lock ends with the process, however it ends.

    Args:
        folder: which one.
        busy: what to tell people where another process holds it.

    Raises:
        UsageError: another process holds it.
        StorageError: the folder cannot be written.
    """
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(folder / ".lock", wait=False))
        except BlockingIOError as error:
            raise UsageError(busy) from error
        except OSError as error:
            raise StorageError(f"{folder} cannot be written: {error.strerror}.") from error
        yield
