"""Paths and URLs of study databases and their files, and the lock for creating tables and studies.

Not here: opening the database (`opening.py`), and writing to it (`storage.py`).
"""

import contextlib
import hashlib
import json
import os
import re
import shlex
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
STORAGE_VARIABLE = "MC1OPT_STORAGE"
"""Names the variable that is read where no `--storage` is given: a URL in it is in no list of processes."""
FILES_VARIABLE = "MC1OPT_FILES"
"""Names the variable that is read where no `--files` is given."""
STUDY_FOLDERS = ("checkpoints", "models", "exports")
"""Subfolders of `files_folder` that have a folder for each study."""
_DEFAULT_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}

_LOCK_KEY = 0x6D63316F7074
"""Key of PostgreSQL's advisory lock, unique per database: "mc1opt" in ASCII."""


def user_storage(text: str) -> str:
    """Expands `~` in `--storage`, in a path or in the URL of a SQLite file, to the home folder.

    Raises:
        UsageError: there is no such home folder.
    """
    url = make_url(text) if re.match(r"sqlite(\+\w+)?://", text) else None
    if url is None and "://" in text:
        return text  # a server
    given = text if url is None else url.database or ""
    path = user_path(given)
    if path == Path(given):
        return text
    return str(path) if url is None else url.set(database=str(path)).render_as_string(hide_password=False)


def default_storage() -> str:
    """The study database where no `--storage` is given: `MC1OPT_STORAGE`, else the default file."""
    return user_storage(os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE)


class _StorageWithFiles(str):
    """A study database whose files are in a folder that was named; for all else it is the path or URL."""

    files: Path


def with_files(storage: str, files: Path | None) -> str:
    """The study database of `--storage` with the folder of `--files`, for `files_folder`; None for none."""
    if files is None:
        return storage
    placed = _StorageWithFiles(storage)
    placed.files = files
    return placed


def storage_url(storage: str) -> str:
    """The SQLAlchemy URL of `--storage`: a URL unchanged, a path as a SQLite file.

    Raises:
        UsageError: the URL is invalid.
    """
    if "://" not in storage:
        return URL.create("sqlite", database=storage).render_as_string(hide_password=False)
    try:
        url = _parsed(storage)
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise UsageError(
            f"--storage {shown_storage(storage)!r} is no database that SQLAlchemy knows ({error}). Give the "
            "path of a SQLite file, or a URL such as postgresql+psycopg://user@host/database."
        ) from error
    return str(storage)


def _parsed(url: str) -> URL:
    """The parts of a URL.

    Raises:
        ArgumentError: it is none, or a password in it is not written as URLs have it. Without the URL.
    """
    with contextlib.suppress(ArgumentError, ValueError):  # they may name what stands there: a password
        parsed = make_url(url)
        if "@" not in (parsed.host or ""):
            return parsed
    raise ArgumentError("its parts cannot be told: in a password, @ is written %40, : %3A and / %2F")


def shown_storage(storage: str) -> str:
    """A path unchanged, a URL without its password; of a URL that cannot be read, what is before it."""
    if "://" not in storage:
        return storage
    try:
        url = _parsed(storage)
    except ArgumentError:
        return f"{storage.partition('://')[0]}://***"
    query = {key: "hidden" if "pass" in key else value for key, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True)


def storage_arguments(storage: str) -> list[str]:
    """The --storage and --files that a command needs for this study database, with its password.

    None for what the command takes without them: the default, or what the environment names.
    """
    default = default_storage()
    arguments = [] if storage in (default, storage_url(default)) else [f"--storage={storage}"]
    if isinstance(storage, _StorageWithFiles):
        arguments.append(f"--files={storage.files}")
    return arguments


def storage_option(storage: str) -> str:
    """The same in a command to copy: each after a blank, and without a password."""
    given = (argument.partition("=") for argument in storage_arguments(storage))
    return "".join(f" {option} {shlex.quote(shown_storage(value))}" for option, _, value in given)


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None for other databases.

    Raises:
        UsageError: the URL has a host, or means a database in memory.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    if parsed.host:
        raise UsageError(f"--storage {url}: the path of a SQLite file follows three slashes, sqlite:///.")
    if not parsed.database or parsed.database == ":memory:":
        raise UsageError("--storage needs a file: a database in memory would be lost with the process.")
    return Path(parsed.database)


def files_folder(storage: str) -> Path:
    """The folder of a study database's files: checkpoints, models, exports and others.

    The folder of `--files`, else of `MC1OPT_FILES`, which machines may share. Else beside the database.
    Studies of two databases may share a name, so each database has its own folder: for a SQLite file
    `mc1opt.db` the folder of the file; for any other, such as `runs/b.db`, `runs/b.db.files`; for a database
    server a folder below ./storage on the machine of the search.

    Args:
        storage: a path or a URL; of `with_files` where `--files` was given.
    """
    if (named := named_files(storage)) is not None:
        return named
    url = storage_url(storage)
    path = sqlite_path(url)
    if path is not None:
        return (
            path.parent if path.name == Path(DEFAULT_STORAGE).name else path.with_name(f"{path.name}.files")
        )
    return Path(DEFAULT_STORAGE).parent / f"{_server_name(make_url(url))}.files"


def named_files(storage: str) -> Path | None:
    """The folder of `--files`, else of `MC1OPT_FILES`: all machines are taken to see it. None for neither."""
    if isinstance(storage, _StorageWithFiles):
        return storage.files
    named = os.environ.get(FILES_VARIABLE)
    return user_path(named) if named else None


def _server_name(url: URL) -> str:
    """A name for a server's database: unique per database, the same for every user and driver."""
    backend = url.get_backend_name()
    host = (url.host or "").lower()
    place: list[Any] = [backend, host, url.port or _DEFAULT_PORTS.get(backend), url.database]
    # The options that give drivers a socket, several hosts, or a schema.
    place += [url.query.get(key) for key in ("host", "port", "dbname", "service", "options", "unix_socket")]
    digest = hashlib.sha256(json.dumps(place).encode()).hexdigest()[:8]
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{host or 'server'}-{url.database or ''}").strip(".-")
    return f"{readable[:60]}-{digest}"


def checkpoints_folder(storage: str) -> Path:
    """The folder of checkpoints and kept weights, with a folder for each study."""
    return files_folder(storage) / "checkpoints"


def models_folder(storage: str, folder: str) -> Path:
    """The folder of a study's models.

    Args:
        storage: the study database.
        folder: the study's folder name; see `mc1opt.database.study_attributes.study_folder_name`.
    """
    return files_folder(storage) / "models" / folder


def folder_name(text: str, default: str) -> str:
    """A folder name for a text of any characters, unique per text.

    Args:
        text: for example a study's name; kept as it is if possible.
        default: beginning of the name if no character of the text can be kept.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")[:60]
    if plain and plain == text:
        return text
    return f"{plain or default}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


SERVER_ARGUMENTS = {
    "connect_timeout": 5,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Parameters of libpq, PostgreSQL's client library, in seconds; the last one in milliseconds. By default it
waits two hours for a server whose machine has vanished."""


def server_arguments(url: str) -> dict[str, Any]:
    """The parameters of a connection to a PostgreSQL server; those in the URL take precedence."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "postgresql" or parsed.get_driver_name() not in ("psycopg", "psycopg2"):
        return {}
    return {name: value for name, value in SERVER_ARGUMENTS.items() if name not in parsed.query}


@contextlib.contextmanager
def locked_database(url: str) -> Iterator[None]:
    """Lets one process at a time create the tables and the studies of a database; the others wait.

    SQLite: a lock file beside the database, whose folder is created if missing. PostgreSQL: an advisory lock
    for all machines. Other servers: none. The lock ends with its process, however that ends.

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
