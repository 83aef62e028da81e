"""Opening the study database: a look before, because Optuna would add its tables to any database.

Not here: what is written to it (`storage.py`).
"""

import contextlib
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
"""By which a database of studies is known."""


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
        StorageError: it is missing (without `create`), empty, damaged, foreign or not writable; whatever is
            there stays untouched.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # of its lines people need none beside ours
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
    """Looks at a file, read-only, before Optuna opens it: RDBStorage would add its tables to any database.

    Raises:
        StorageError: the file is empty, no SQLite database, damaged, or has no study tables.
    """
    if path.is_dir():
        raise StorageError(f"{path} is a folder; --storage needs a file or a URL.")
    leave = "It was left as it is; name another file with --storage."
    try:
        with path.open("rb") as file:
            header = file.read(16)
        if not header:
            raise StorageError(f"{path} is empty, so it is no study database. {leave}")
        if header != _SQLITE_HEADER:
            raise StorageError(f"{path} is no SQLite database. {leave}")
        access = "mode=ro"
        if _was_left_within_a_write(path):
            # Whoever reads it next takes back what was begun, for which it must write: a journal of another
            # program's database is not ours to use, so the tables are looked at without it.
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
                f"{path} is locked by another process, which has written to it for {BUSY_TIMEOUT_SECONDS:g} "
                "seconds or was halted meanwhile. Wait for it, or end it, and give the same command again."
            ) from error
        raise StorageError(f"{path} cannot be read: {error}. {leave}") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}. {leave}") from error


def _look(path: Path, access: str) -> contextlib.closing[sqlite3.Connection]:
    uri = f"{path.resolve().as_uri()}?{access}"
    return contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_SECONDS))


def _was_left_within_a_write(path: Path) -> bool:
    """Whether a process was killed while it wrote, so that SQLite must first take back what was begun."""
    try:
        with _look(path, "mode=ro") as connection:
            connection.execute("SELECT name FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        # The lower byte is the plain code; the rest says what there is to be written.
        return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY
    return False


def _check_tables(connection: sqlite3.Connection, path: Path, leave: str) -> None:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables >= STUDY_TABLES:
        found = ", ".join(sorted(tables)[:5]) or "none"
        raise StorageError(f"{path} is a database of another program (its tables: {found}). {leave}")


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Refuses tables of another Optuna, to which RDBStorage would add those that are missing."""
    found = connection.execute("SELECT name FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if found else None
    if (what_to_do := other_schema(row[0] if row else None, storage_url(str(path)))) is not None:
        raise StorageError(f"{path} has the tables of another version of Optuna. {what_to_do}")


def other_schema(schema: str | None, url: str) -> str | None:
    """What to do about a database whose tables are not those of the installed Optuna; None if they are.

    Args:
        schema: the version of its tables, as Alembic has it; None where there is none, as long ago.
        url: the database's, for the command to copy.
    """
    config = alembic.config.Config()
    folder = Path(optuna.storages._rdb.__file__).with_name("alembic")
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    scripts = alembic.script.ScriptDirectory.from_config(config)
    known = [script.revision for script in scripts.walk_revisions()]
    if schema == known[0]:
        return None
    if schema is not None and schema not in known:
        return "Update Optuna: pip install -U optuna"
    return f"Copy it, then: optuna storage upgrade --storage {shlex.quote(url)}"


def _create(path: Path) -> None:
    """Makes an empty study database: as a whole or, if this process is killed meanwhile, not at all."""
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
    """Turns what can go wrong into errors that say what to do."""
    shown = shown_storage(url)
    try:
        yield
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
        raise StorageError(
            f"the study database {shown} cannot be opened: {reason}. Check that the folder can be written or "
            "the server answers, or name another with --storage."
        ) from error
    except RuntimeError as error:  # Optuna's message about another version of its tables
        raise StorageError(f"the study database {shown}: {error}") from error
    except ImportError as error:
        raise StorageError(
            f"the driver for {shown} is not installed. For PostgreSQL: pip install 'mc1opt[postgres]'."
        ) from error


def _check_server(url: str, create: bool) -> None:
    """Looks at a server's database before Optuna opens it, as `check_sqlite_file` does at a file.

    Raises:
        StorageError: it is another program's, has the tables of another Optuna, or has none (without
            `create`).
        SQLAlchemyError, ImportError: it cannot be looked at.
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
                    "was left as it is; make one for the studies alone, and name it with --storage."
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
            "Name a place that you may write to with --storage."
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
