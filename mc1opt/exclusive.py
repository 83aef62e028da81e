"""One process at a time in a folder: of a study's models, or of the presets' trainings."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from mc1opt.errors import StorageError, UsageError


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a")
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(busy) from error
        yield
