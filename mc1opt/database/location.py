"""Where the study database and its files are, from a path or a URL; the lock for making tables and studies.

Not here: opening it (`opening.py`), and what is written to it (`storage.py`).
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from mc1opt.errors import StorageError, UsageError
from mc1opt.files import locked
from mc1opt.paths import user_path

DEFAULT_STORAGE = "storage/mc1opt.db"
STUDY_FOLDERS = ("checkpoints", "models", "exports")
"""Folders that have one for each study, in the folder of the database's files."""
_DEFAULT_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}

_LOCK_KEY = 0x6D63316F7074
"""The key of PostgreSQL's advisory lock, which each database has of its own: "mc1opt" in ASCII."""


def user_storage(text: str) -> str:
    """`--storage` as a person writes it: in a path, or in the URL of a SQLite file, `~` is the home folder.

    Raises:
        UsageError: there is no such home folder.
    """
    url = make_url(text) if re.match(r"sqlite(\+\w+)?://", text) else None
    if url is None and "://" in text:
        return text  # a server's
    given = text if url is None else url.database or ""
    path = user_path(given)
    if path == Path(given):
        return text
    return str(path) if url is None else url.set(database=str(path)).render_as_string(hide_password=False)


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


def shown_storage(storage: str) -> str:
    """A path as it is, a URL without its password."""
    if "://" not in storage:
        return storage
    url = make_url(storage)
    query = {key: "hidden" if "pass" in key else value for key, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True)


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None for other databases."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    if parsed.host:
        raise UsageError(
            f"--storage {url}: the path of a SQLite file begins behind three slashes, sqlite:///."
        )
    if not parsed.database or parsed.database == ":memory:":
        raise UsageError("--storage needs a file: a database in memory would be lost with the process.")
    return Path(parsed.database)


def files_folder(storage: str) -> Path:
    """Where the files of a study database lie: checkpoints, models, exports, and what else belongs to it.

    Studies of two databases may have one name, so that each database has a folder of its own: that of the
    SQLite file where it is called `mc1opt.db`; beside any other, as `runs/b.db.files` of `runs/b.db`; for a
    database server one below ./storage, on the machine that searches.
    """
    url = storage_url(storage)
    path = sqlite_path(url)
    if path is not None:
        return (
            path.parent if path.name == Path(DEFAULT_STORAGE).name else path.with_name(f"{path.name}.files")
        )
    return Path(DEFAULT_STORAGE).parent / f"{_server_name(make_url(url))}.files"


def _server_name(url: URL) -> str:
    """A name for a server's database: the same for every user and driver, another one for every database."""
    backend = url.get_backend_name()
    host = (url.host or "").lower()
    place: list[Any] = [backend, host, url.port or _DEFAULT_PORTS.get(backend), url.database]
    # How drivers are told a socket, several hosts, or a schema.
    place += [url.query.get(key) for key in ("host", "port", "dbname", "service", "options", "unix_socket")]
    digest = hashlib.sha256(json.dumps(place).encode()).hexdigest()[:8]
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{host or 'server'}-{url.database or ''}").strip(".-")
    return f"{readable[:60]}-{digest}"


def checkpoints_folder(storage: str) -> Path:
    """Where checkpoints and kept weights are, in a folder for each study."""
    return files_folder(storage) / "checkpoints"


def folder_name(text: str, default: str) -> str:
    """A text of any characters as the name of a folder: another one for every text.

    Args:
        text: such as a study's name; it is the folder's name where that is possible.
        default: what the name begins with if no character of the text may stay.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")[:60]
    if plain and plain == text:
        return text
    return f"{plain or default}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


SERVER_ARGUMENTS = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Parameters of libpq, PostgreSQL's client library, in seconds; the last one in milliseconds. By default it
waits two hours for a server whose machine has vanished."""


def server_arguments(url: str) -> dict[str, Any]:
    """What a connection to a PostgreSQL server is made with; the URL takes precedence."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "postgresql" or parsed.get_driver_name() not in ("psycopg", "psycopg2"):
        return {}
    return {name: value for name, value in SERVER_ARGUMENTS.items() if name not in parsed.query}


@contextlib.contextmanager
def locked_database(url: str) -> Iterator[None]:
    """One process at a time makes the tables and the studies of a database; the others wait.

    A SQLite file has a lock file beside it, in a folder that is made if need be; PostgreSQL has an advisory
    lock, for all machines. It ends with its process, however that ends. Other servers have none.

    Raises:
        StorageError: the folder of a SQLite file cannot be written.
        SQLAlchemyError: the server cannot be reached.
    """
    path = sqlite_path(url)
    with contextlib.ExitStack() as held:
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(path.with_name(f".{path.name}.lock")))
            except OSError as error:
                raise StorageError(
                    f"the folder {path.parent} for the study database cannot be made or written: "
                    f"{error.strerror}. Name a place that you may write to with --storage."
                ) from error
        elif make_url(url).get_backend_name() == "postgresql":
            engine = create_engine(
                url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=server_arguments(url)
            )
            connection = held.enter_context(engine.connect())
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK_KEY})
        yield


def models_folder(storage: str, folder: str) -> Path:
    """Where the models of a study are.

    Args:
        storage: the study database.
        folder: the study's; see `mc1opt.database.records.study_folder_name`.
    """
    return files_folder(storage) / "models" / folder
