"""Opens the study database, after read-only checks: Optuna would add its tables to any database.

Not here: writing to it (`storage.py`).
"""

import contextlib
import functools
import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import alembic.config
import alembic.script
import optuna.storages._rdb
import sqlalchemy
from optuna.storages._rdb.models import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from mc1opt.database.location import (
    locked_beside,
    locked_on_server,
    server_arguments,
    shown_storage,
    sqlite_path,
    storage_url,
)
from mc1opt.database.retry import is_busy
from mc1opt.database.storage import BUSY_TIMEOUT_SECONDS, StudyStorage
from mc1opt.errors import StorageError

_SQLITE_HEADER = b"SQLite format 3\x00"
STUDY_TABLES = frozenset({"studies", "trials", "version_info"})
"""The tables by which a study database is recognised."""


def open_storage(
    storage: str, *, create: bool, owner: dict[str, Any] | None = None, threads: int = 1
) -> StudyStorage:
    """Opens the study database.

    Args:
        storage: a path or a URL.
        create: whether to create a missing database; commands that only read never do.
        owner: see `StudyStorage`.
        threads: see `StudyStorage`.

    Raises:
        StorageError: it is missing (without `create`), empty, damaged, another program's or not writable. It
            is not changed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = storage_url(storage)
    path = sqlite_path(url)
    if path is None:
        with _errors_of_opening(url), locked_on_server(url) if create else contextlib.nullcontext():
            _check_server(url, create)
            return StudyStorage(url, owner, threads)
    if not path.exists():
        if not create:
            raise StorageError(
                f"there is no study database {path}. `mc1opt run` makes one; or name another with --storage."
            )
        _make_folder(path)
    with locked_beside(path) if create else contextlib.nullcontext():
        if not path.exists():
            _create(path)
        check_sqlite_file(path)
        return _open(url, owner, threads)


def check_sqlite_file(path: Path) -> None:
    """Checks a file, read-only, before Optuna opens it.

    Raises:
        StorageError: the file is empty, not a SQLite database, locked, damaged, or has no study tables.
    """
    if path.is_dir():
        raise StorageError(f"{path} is a folder; --storage needs a file or a URL.")
    leave = "It was not changed; name another file with --storage."
    try:
        with path.open("rb") as file:
            header = file.read(16)
        if not header:
            raise StorageError(f"{path} is empty, so it is not a study database. {leave}")
        if header != _SQLITE_HEADER:
            raise StorageError(f"{path} is no SQLite database. {leave}")
        access = "mode=ro"
        if _was_left_within_a_write(path):
            # Reading it rolls the unfinished write back, which writes. The tables are checked without the
            # journal first: another program's database must stay unchanged.
            access = "mode=rw"
            with _look(path, "immutable=1") as connection:
                _check_tables(connection, path, leave)
        with _look(path, access) as connection:
            _check_tables(connection, path, leave)
            damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise StorageError(f"{path} is damaged: {damage}. {leave}")
            _check_schema(connection, path)
    except sqlite3.DatabaseError as error:
        if is_busy(error):
            raise StorageError(
                f"{path} is locked by another process, which has been writing to it for "
                f"{BUSY_TIMEOUT_SECONDS:g} seconds, or is halted. Wait for it, or end it, and give the same "
                "command again."
            ) from error
        raise StorageError(f"{path} cannot be read: {error}. {leave}") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}. {leave}") from error


def _look(path: Path, access: str) -> contextlib.closing[sqlite3.Connection]:
    uri = f"{path.resolve().as_uri()}?{access}"
    return contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_SECONDS))


def _was_left_within_a_write(path: Path) -> bool:
    """Whether a process was killed while it wrote, so that SQLite must roll an unfinished write back."""
    try:
        with _look(path, "mode=ro") as connection:
            connection.execute("SELECT name FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        # The lower byte is the primary code.
        return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY
    return False


def _check_tables(connection: sqlite3.Connection, path: Path, leave: str) -> None:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables >= STUDY_TABLES:
        found = ", ".join(sorted(tables)[:5]) or "none"
        raise StorageError(f"{path} is a database of another program (its tables: {found}). {leave}")


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Refuses tables of another Optuna version: RDBStorage would add the missing ones."""
    found = connection.execute("SELECT name FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if found else None
    if (what_to_do := other_schema(row[0] if row else None, storage_url(str(path)))) is not None:
        raise StorageError(f"{path} has the tables of another version of Optuna. {what_to_do}")


def other_schema(schema: str | None, url: str) -> str | None:
    """What to do about tables of another Optuna version than the installed one; None if it is the same.

    Args:
        schema: Alembic's version of the tables; None for very old tables without one.
        url: URL of the database, for the command to copy.
    """
    known = _known_schemas()
    if schema == known[0]:
        return None
    if schema is not None and schema not in known:
        return "Update Optuna: pip install -U optuna"
    return f"Copy it, then: optuna storage upgrade --storage {shlex.quote(url)}"


@functools.cache
def _known_schemas() -> list[str]:
    """The versions of Optuna's tables, the newest first; loading its migrations takes a while."""
    config = alembic.config.Config()
    folder = Path(optuna.storages._rdb.__file__).with_name("alembic")
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    scripts = alembic.script.ScriptDirectory.from_config(config)
    return [script.revision for script in scripts.walk_revisions()]


def _create(path: Path) -> None:
    """Creates an empty study database atomically."""
    new = path.with_name(f".{path.name}.new")
    for left in (new, new.with_name(f"{new.name}-journal")):
        left.unlink(missing_ok=True)
    storage = _open(storage_url(str(new)), None, 1)
    storage.remove_session()
    storage.engine.dispose()
    new.replace(path)


def _open(url: str, owner: dict[str, Any] | None, threads: int) -> StudyStorage:
    with _errors_of_opening(url):
        return StudyStorage(url, owner, threads)


@contextlib.contextmanager
def _errors_of_opening(url: str) -> Iterator[None]:
    """Turns errors of opening into errors that say what to do."""
    shown = shown_storage(url)
    try:
        yield
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
        raise StorageError(
            f"the study database {shown} cannot be opened: {reason}. Check that the folder is writable or "
            "the server responds, or name another with --storage."
        ) from error
    except RuntimeError as error:  # Optuna's message about another version of its tables
        raise StorageError(f"the study database {shown}: {error}") from error
    except ImportError as error:
        raise StorageError(
            f"the driver for {shown} is not installed. For PostgreSQL: pip install 'mc1opt[postgres]'."
        ) from error


def _check_server(url: str, create: bool) -> None:
    """Checks a server's database before Optuna opens it, as `check_sqlite_file` checks a file.

    Raises:
        StorageError: it is another program's, has tables of another Optuna version, or has none (without
            `create`).
        SQLAlchemyError, ImportError: it cannot be read.
    """
    shown = shown_storage(url)
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args=server_arguments(url))
    with engine.connect() as connection:
        tables = set(sqlalchemy.inspect(connection).get_table_names())
        if not tables >= STUDY_TABLES:
            foreign = sorted(tables - set(BaseModel.metadata.tables) - {"alembic_version"})
            if foreign:
                raise StorageError(
                    f"{shown} is a database of another program (its tables: {', '.join(foreign[:5])}). It "
                    "was not changed; create one for the studies alone, and name it with --storage."
                )
            if not create:
                raise StorageError(
                    f"the database {shown} has no studies yet. `mc1opt run` makes its tables; or name "
                    "another with --storage."
                )
            return
        row = None
        if "alembic_version" in tables:
            row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").fetchone()
        if (what_to_do := other_schema(row[0] if row else None, shown)) is not None:
            raise StorageError(f"{shown} has the tables of another version of Optuna. {what_to_do}")


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the folder {path.parent} for the study database cannot be made: {error.strerror}. "
            "Name a writable place with --storage."
        ) from error


def load_study(storage: StudyStorage, name: str) -> optuna.Study:
    """Loads a stored study for reading.

    Raises:
        StorageError: there is no such study.
    """
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        known = sorted(study.study_name for study in storage.get_all_studies())
        listed = f"It has: {', '.join(known)}." if known else "It has none yet."
        raise StorageError(f"there is no study {name!r} in this database. {listed}") from error
