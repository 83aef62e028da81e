"""Where the study database is: a path or a URL; and one process at a time beside a SQLite file.

Not here: opening it (`opening.py`), and what is written to it (`storage.py`).
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from mc1opt.errors import StorageError, UsageError

DEFAULT_STORAGE = "storage/mc1opt.db"


def storage_url(storage: str) -> str:
    """The SQLAlchemy URL of `--storage`: a URL as it is, a path as a SQLite file.

    Raises:
        UsageError: the text is neither.
    """
    if "://" not in storage:
        return URL.create("sqlite", database=storage).render_as_string(hide_password=False)
    try:
        url = make_url(storage)
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise UsageError(
            f"--storage {storage!r} is no database that SQLAlchemy knows ({error}). Give the path of a "
            "SQLite file, or a URL such as postgresql+psycopg://user@host/database."
        ) from error
    return storage


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None for other databases."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    if not parsed.database or parsed.database == ":memory:":
        raise UsageError("--storage needs a file: a database in memory would be lost with the process.")
    return Path(parsed.database)


@contextlib.contextmanager
def locked_beside(path: Path) -> Iterator[None]:
    """One process at a time makes the tables: two at once would both try to create them."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        file = lock.open("a")
    except OSError as error:
        raise StorageError(
            f"{path.parent} cannot be written: {error.strerror}. Name another place with --storage."
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
