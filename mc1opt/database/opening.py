"""Opens the study database, after read-only checks: Optuna would add its tables to any database.

Not here: writing to it (`storage.py`).
"""

import contextlib
import functools
import shlex
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import alembic.config
import alembic.script
import optuna.storages._rdb
import sqlalchemy
from optuna.storages._rdb.models import BaseModel
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from mc1opt.database.location import (
    locked_database,
    server_arguments,
    shown_storage,
    sqlite_path,
    storage_url,
)
from mc1opt.database.retry import is_locked
from mc1opt.database.storage import BUSY_TIMEOUT_SECONDS, StudyStorage
from mc1opt.errors import StorageError
from mc1opt.text import first_line

_SQLITE_HEADER = b"SQLite format 3\x00"
_STUDY_TABLES = frozenset({"studies", "trials", "version_info"})
"""The tables by which a study database is recognised."""
_LEFT = "It was left as it is; name another with --storage."
LOOKS, LOOK_SECONDS = 5, 0.1
"""Looks without locks at a file that seems to be damaged, and seconds between two: others may write it."""


def open_storage(
    storage: str, *, create: bool, owner: dict[str, Any] | None = None, threads: int = 1
) -> StudyStorage:
    """Opens the study database.

    Args:
        storage: a path or a URL.
        create: whether a database that does not exist is made; commands that read never make one.
        owner: see `StudyStorage`.
        threads: see `StudyStorage`.

    Raises:
        StorageError: it is missing (without `create`), empty, damaged, foreign, locked or not writable;
            whatever is there stays untouched.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = storage_url(storage)
    path = sqlite_path(url)
    with _readable_errors(storage), locked_database(url) if create else contextlib.nullcontext():
        with inspected(storage) as database:
            if database is None and not create:
                raise StorageError(
                    f"there is no study database {shown_storage(storage)}. `mc1opt run` makes one; or name "
                    "another with --storage."
                )
        if path is not None and not path.exists():
            _create(path)
        return StudyStorage(storage, owner, threads)


def try_server(storage: str) -> None:
    """Raises at once what `open_storage` would raise of a server; nothing is done for a file.

    Raises:
        StorageError: see `open_storage`.
    """
    url = storage_url(storage)
    if sqlite_path(url) is None:
        # With the lock: tables that another process is just making would look like another version's.
        with _readable_errors(storage), locked_database(url), inspected(storage):
            pass


@contextlib.contextmanager
def inspected(storage: str) -> Iterator[sqlalchemy.Connection | None]:
    """Opens a study database for reading, after checking that it is one.

    Nothing in it changes, except that SQLite rolls the unfinished write of a killed process back, as it must
    before any read; not in a database of another program.

    Args:
        storage: a path or a URL.

    Yields:
        A connection; None if there is no such file, or the database has no tables yet.

    Raises:
        StorageError: it is empty, damaged, locked or another program's, cannot be reached, or has the tables
            of another Optuna version; also if reading fails inside the block.
    """
    url = storage_url(storage)
    path = sqlite_path(url)
    shown = shown_storage(storage)
    if path is not None and not path.exists():
        yield None
        return
    with _readable_errors(storage):
        if path is not None:
            _check_header(path)
            _look_at(url, shown)
        with _connected(url) as connection:
            if not _has_studies(connection, shown):
                yield None
                return
            _check_content(connection, shown, url)
            yield connection


def _connected(url: str, access: str = "mode=rw") -> contextlib.closing[sqlalchemy.Connection]:
    """A new connection; `access` is the query of SQLite's file URI."""
    options: dict[str, Any] = {"connect_args": server_arguments(url)}
    if (path := sqlite_path(url)) is not None:
        uri = f"{path.resolve().as_uri()}?{access}"
        options = {"creator": lambda: sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_SECONDS)}
    return contextlib.closing(
        sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, **options).connect()
    )


def _look_at(url: str, shown: str) -> None:
    """Checks that a file is no database of another program, and leaves it as it is: without locks."""
    for looks_left in reversed(range(LOOKS)):
        try:
            # "immutable" ignores the journal of a killed process, which would be rolled back.
            with _connected(url, "immutable=1") as connection:
                _has_studies(connection, shown)
                return
        except DatabaseError:  # another process may have been in the middle of a write
            if not looks_left:
                raise
        time.sleep(LOOK_SECONDS)


def _check_header(path: Path) -> None:
    if path.is_dir():
        raise StorageError(f"{path} is a folder. --storage needs a file or a URL.")
    with path.open("rb") as file:
        header = file.read(len(_SQLITE_HEADER))
    if header != _SQLITE_HEADER:
        raise StorageError(f"{path} is {'no SQLite database' if header else 'empty'}. {_LEFT}")


def _has_studies(connection: sqlalchemy.Connection, shown: str) -> bool:
    """Whether a database has the tables of studies; an error if it has others instead."""
    tables = set(sqlalchemy.inspect(connection).get_table_names())
    foreign = sorted(tables - set(BaseModel.metadata.tables) - {"alembic_version"})
    if foreign and not tables >= _STUDY_TABLES:
        raise StorageError(
            f"{shown} is a database of another program (its tables: {', '.join(foreign[:5])}). {_LEFT}"
        )
    return tables >= _STUDY_TABLES


def _check_content(connection: sqlalchemy.Connection, shown: str, url: str) -> None:
    """Refuses a damaged file, and tables of another Optuna version: RDBStorage would add missing ones."""
    if connection.dialect.name == "sqlite":
        damage = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
        if damage != "ok":
            raise StorageError(f"{shown} is damaged: {first_line(damage)}. {_LEFT}")
    schema = None
    if sqlalchemy.inspect(connection).has_table("alembic_version"):
        schema = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if (what_to_do := _other_schema(schema, shown_storage(url))) is not None:
        raise StorageError(f"{shown} has the tables of another version of Optuna. {what_to_do}")


def _other_schema(schema: str | None, url: str) -> str | None:
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
    storage = StudyStorage(str(new), None, 1)
    storage.remove_session()
    storage.engine.dispose()
    new.replace(path)


@contextlib.contextmanager
def _readable_errors(storage: str) -> Iterator[None]:
    """Turns errors of opening into errors that say what to do."""
    shown = shown_storage(storage)
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        if is_locked(error):
            raise StorageError(
                f"{shown} is locked by another process. It has held the lock for {BUSY_TIMEOUT_SECONDS:g} "
                "seconds: wait for it, or end it, and give the same command again."
            ) from error
        reason = first_line(getattr(error, "orig", None) or error)
        raise StorageError(
            f"the study database {shown} cannot be opened: {reason}. Check that the file is whole and can be "
            "written, or that the server answers; or name another with --storage."
        ) from error
    except RuntimeError as error:  # Optuna's message about another version of its tables
        raise StorageError(f"the study database {shown}: {error}") from error
    except ImportError as error:
        raise StorageError(
            f"the driver for {shown} is not installed. For PostgreSQL: pip install 'mc1opt[postgres]'."
        ) from error


def load_study(storage: StudyStorage, name: str) -> optuna.Study:
    """Loads a stored study for reading.

    Raises:
        StorageError: there is no study of that name.
    """
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        known = sorted(study.study_name for study in storage.get_all_studies())
        listed = f"It has: {', '.join(known)}." if known else "It has none yet."
        raise StorageError(f"there is no study {name!r} in this database. {listed}") from error
