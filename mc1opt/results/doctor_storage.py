"""The checks of `mc1opt doctor` that look at what is stored: disk, study database, running trials, images.

Databases are read, never written. SQLite would write where a process was killed within a write, and where the
database has a write-ahead log; then a copy is looked at. Not here: the other checks (`doctor.py`).
"""

import contextlib
import json
import os
import shlex
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

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
from mc1opt.errors import DataError
from mc1opt.results.diagnosis import Check, Status
from mc1opt.search import records
from mc1opt.search.command import checkpoints_folder
from mc1opt.search.heartbeat import GRACE_SECONDS
from mc1opt.search.ownership import is_dead
from mc1opt.search.progress import duration, megabytes, plural
from mc1opt.search.resume import MAX_STALLED
from mc1opt.search.storage import DEFAULT_STORAGE, other_schema, sqlite_path, storage_url
from mc1opt.search.tables import shown_storage

LITTLE_DISK = 2_000_000_000
"""Bytes: below this a long search with its checkpoints, models and exports may fill the disk."""
LEAST_DISK = 200_000_000
"""Bytes: below this a search does not even begin in comfort."""
CACHE_DISK = 400_000_000
"""Bytes that fetching CIFAR-10 needs."""
LOCKED_SECONDS = 5.0
"""How long another process's lock on the database is waited for."""
COPIES = 3
"""So often a database that is written meanwhile is copied until that counts as locked."""

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
    folder = checkpoints_folder(storage).parent
    place = _existing(folder)
    if not place.is_dir():
        return Check("disk", "problem", f"{place} is no folder", "Name another place with --storage.")
    free = shutil.disk_usage(place).free if free_bytes is None else free_bytes
    found = f"{megabytes(free)} free at {folder.absolute()}"
    if not os.access(place, os.W_OK):
        what_to_do = "Name a place that you may write to with --storage."
        return Check("disk", "problem", f"{found}, which cannot be written", what_to_do)
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
    if path.is_file() and _has_wal(path) and not (mended and not network):
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
    wal = "" if mended else "not "
    found += f"; a write-ahead log would {wal}be safe with this version, and is not used"
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


# ---- The database ----------------------------------------------------------------------------------------


def check_database(storage: str) -> Check:
    """Whether the study database is whole, one of ours, and of this Optuna's version."""
    path = sqlite_path(storage_url(storage))
    shown = shown_storage(storage)
    if path is not None and not path.exists():
        return Check("database", "ok", f"{shown} does not exist yet", "`mc1opt run` makes it.")
    leave = "It is left as it is; name another one with --storage."
    if path is not None and path.is_file() and path.stat().st_size == 0:
        return Check("database", "problem", f"{shown} is empty, so it is no study database", leave)
    try:
        with _reading(storage) as database:
            return _check_contents(database, shown, leave)
    except (SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
        reason = _reason(error)
        if "locked" in reason:
            what_to_do = f"End the process that holds the lock; find it with: fuser {shlex.quote(str(path))}"
            return Check("database", "warning", f"{shown} is locked by another process", what_to_do)
        if path is None:
            what_to_do = "Check the URL, that the server answers, and: pip install 'mc1opt[postgres]'"
            return Check("database", "problem", f"{shown} cannot be read: {reason}", what_to_do)
        what_to_do = f"{leave} A copy of it, if you have one, goes on where it was made."
        return Check("database", "problem", f"{shown} is damaged or no SQLite database: {reason}", what_to_do)


@dataclass(frozen=True)
class _Database:
    """A study database that is open for reading."""

    connection: sqlalchemy.Connection
    left_within_a_write: bool
    """A process was killed while it wrote; what it had begun is not in here."""


def _check_contents(database: _Database, shown: str, leave: str) -> Check:
    connection = database.connection
    tables = set(sqlalchemy.inspect(connection).get_table_names())
    if not {"studies", "trials", "version_info"} <= tables:
        if connection.dialect.name != "sqlite" and not tables:
            return Check("database", "ok", f"{shown} is empty", "`mc1opt run` makes its tables.")
        found = (
            f"{shown} is a database of another program (tables: {', '.join(sorted(tables)[:5]) or 'none'})"
        )
        return Check("database", "problem", found, leave)
    if connection.dialect.name == "sqlite":
        damage = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
        if damage != "ok":
            found = f"{shown} is damaged: {str(damage).strip().splitlines()[-1]}"
            return Check("database", "problem", found, leave)
    schema = _schema(connection, tables)
    if (what_to_do := other_schema(schema, shown_storage(storage_url(shown)))) is not None:
        found = f"{shown} has the tables of another version of Optuna (schema {schema})"
        return Check("database", "problem", found, what_to_do)
    studies, trials = (_count(connection, table) for table in ("studies", "trials"))
    found = (
        f"{shown} is whole: {studies:,} {'study' if studies == 1 else 'studies'}, {plural(trials, 'trial')}"
    )
    if database.left_within_a_write:
        what_to_do = "A process was killed while it wrote; the next command takes back what it had begun."
        return Check("database", "warning", found, what_to_do)
    return Check("database", "ok", found)


def _schema(connection: sqlalchemy.Connection, tables: set[str]) -> str | None:
    if "alembic_version" not in tables:
        return None
    statement = sqlalchemy.text("SELECT version_num FROM alembic_version")
    return connection.execute(statement).scalar()


def _count(connection: sqlalchemy.Connection, table: str) -> int:
    return int(connection.execute(sqlalchemy.text(f"SELECT COUNT(*) FROM {table}")).scalar_one())


def _reason(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).strip().split("\n")[0]


@contextlib.contextmanager
def _reading(storage: str) -> Iterator[_Database]:
    """A study database open for reading, so that nothing in it or beside it changes.

    Raises:
        SQLAlchemyError, sqlite3.Error, OSError, ImportError: it cannot be read.
    """
    url = storage_url(storage)
    path = sqlite_path(url)
    with contextlib.ExitStack() as stack:
        left = False
        options: dict[str, Any] = {"poolclass": sqlalchemy.NullPool}
        if path is not None:
            left = _was_left_within_a_write(path)
            opened, access = path, "mode=ro"
            if left or _has_wal(path):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mc1opt-doctor-"))
                opened, access = _copy(path, Path(folder)), "mode=rw"
            options["creator"] = lambda: _connect(opened, access)
            url = "sqlite://"
        engine = sqlalchemy.create_engine(url, **options)
        stack.callback(engine.dispose)
        yield _Database(stack.enter_context(engine.connect()), left)


def _connect(path: Path, access: str) -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?{access}"
    return sqlite3.connect(uri, uri=True, timeout=LOCKED_SECONDS)


def _was_left_within_a_write(path: Path) -> bool:
    """Whether SQLite must first take back what a killed process had begun, for which it would write."""
    if _has_wal(path):
        return False
    with contextlib.closing(_connect(path, "mode=ro")) as connection:
        try:
            connection.execute("SELECT name FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY:
                return True
            raise
    return False


def _has_wal(path: Path) -> bool:
    """Whether a file is a SQLite database with a write-ahead log, by its header."""
    with path.open("rb") as file:
        header = file.read(20)
    return header.startswith(b"SQLite format 3\x00") and header[18:20] == b"\x02\x02"


def _copy(path: Path, folder: Path) -> Path:
    """Copies a database with its journal or log; anew if another process wrote to one of them meanwhile."""
    files = [path.with_name(path.name + ending) for ending in ("", "-journal", "-wal")]
    for _ in range(COPIES):
        before = _states(files)
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(file, folder / file.name)
        if _states(files) == before:
            return folder / path.name
    raise OSError(f"{path} is locked: it is written to all the time")


def _states(files: list[Path]) -> list[tuple[int, int] | None]:
    return [(file.stat().st_size, file.stat().st_mtime_ns) if file.exists() else None for file in files]


# ---- Running trials --------------------------------------------------------------------------------------

_RUNNING = """
SELECT studies.study_name, definition.value_json, trials.number, owner.value_json, stalled.value_json,
    (SELECT COUNT(*) FROM trial_intermediate_values AS report WHERE report.trial_id = trials.trial_id)
FROM trials
JOIN studies ON studies.study_id = trials.study_id
JOIN study_user_attributes AS definition
    ON definition.study_id = studies.study_id AND definition.key = :definition
LEFT JOIN trial_user_attributes AS owner ON owner.trial_id = trials.trial_id AND owner.key = :owner
LEFT JOIN trial_user_attributes AS stalled ON stalled.trial_id = trials.trial_id AND stalled.key = :stalled
WHERE trials.state = 'RUNNING'
ORDER BY studies.study_name, trials.number
"""


@dataclass(frozen=True)
class _Running:
    """A trial that the database says is running."""

    study: str
    definition: str
    number: int
    owner: dict[str, Any] | None
    stalled: dict[str, int]
    epochs: int

    @property
    def fails_next(self) -> bool:
        """Whether its owner's death is one too many without a new epoch."""
        times = self.stalled["times"] + 1 if self.stalled["epochs"] == self.epochs else 1
        return times >= MAX_STALLED


def check_trials(storage: str) -> list[Check]:
    """Whether running trials have an owner that lives; a result for each study that has running trials."""
    path = sqlite_path(storage_url(storage))
    none = [Check("trials", "ok", "no trial is running")]
    if path is not None and not path.exists():
        return none
    try:
        with _reading(storage) as database:
            running = _running_trials(database.connection)
    except (SQLAlchemyError, sqlite3.Error, OSError, ImportError):
        return [Check("trials", "warning", "unknown, because the database cannot be read")]
    studies = groupby(running, key=lambda trial: trial.study)
    return [_check_study(list(trials), storage) for _, trials in studies] or none


def _running_trials(connection: sqlalchemy.Connection) -> list[_Running]:
    rows = connection.execute(
        sqlalchemy.text(_RUNNING),
        {"definition": records.STUDY_DEFINITION, "owner": records.OWNER, "stalled": records.STALLED},
    )
    return [
        _Running(
            study=study,
            definition=json.loads(definition),
            number=number,
            owner=json.loads(owner) if owner is not None else None,
            stalled=json.loads(stalled) if stalled is not None else {"times": 0, "epochs": 0},
            epochs=epochs,
        )
        for study, definition, number, owner, stalled, epochs in rows
    ]


def _check_study(trials: list[_Running], storage: str) -> Check:
    """What there is to say of a study's running trials."""
    dead = [trial for trial in trials if is_dead(trial.owner)]
    unseen = [trial for trial in trials if is_dead(trial.owner) is None]
    alive = [trial for trial in trials if is_dead(trial.owner) is False]
    found = [
        f"{_numbers(group)} {what}"
        for group, what in (
            (alive, "in training"),
            (unseen, f"in training on {', '.join(_hosts(unseen))}, which cannot be seen from here"),
            (dead, "interrupted: the process is gone"),
        )
        if group
    ]
    command = f"`{_run_command(trials[0], storage)}`"
    failing = [trial for trial in dead if trial.fails_next]
    going_on = [trial for trial in dead if not trial.fails_next]
    what_to_do = []
    if going_on:
        what_to_do.append(f"The next {command} goes on with {_numbers(going_on)}.")
    if failing:
        what_to_do.append(
            f"The next {command} ends {_numbers(failing)} as failed: the process died {MAX_STALLED} times "
            "without a new epoch."
        )
    if unseen:
        what_to_do.append(
            f"A running search takes over {_numbers(unseen)} when it has not heard of it for "
            f"{duration(GRACE_SECONDS)}."
        )
    status: Status = "warning" if dead else "ok"
    return Check("trials", status, f"study {trials[0].study}: {'; '.join(found)}", "\n".join(what_to_do))


def _numbers(trials: list[_Running]) -> str:
    return ", ".join(f"#{trial.number}" for trial in trials)


def _hosts(trials: list[_Running]) -> list[str]:
    return sorted({trial.owner["host"] for trial in trials if trial.owner is not None})


def _run_command(trial: _Running, storage: str) -> str:
    """The command that goes on with a trial's study, but for options that it may have been given besides."""
    command = ["mc1opt", "run", "--study", trial.definition]
    if trial.study != trial.definition:
        command += ["--name", trial.study]
    if storage_url(storage) != storage_url(DEFAULT_STORAGE):
        command += ["--storage", shown_storage(storage)]
    return shlex.join(command)


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
    place = _existing(folder)
    if not place.is_dir() or not os.access(place, os.W_OK):
        what_to_do = "Name a folder that you may write to with the environment variable MC1OPT_DATA."
        return Check("data", "problem", f"{found}, which cannot be written", what_to_do)
    free = shutil.disk_usage(place).free
    if free < CACHE_DISK:
        what_to_do = f"Free {megabytes(CACHE_DISK)}, or name another folder with MC1OPT_DATA."
        return Check("data", "problem", f"{found}, where {megabytes(free)} are free", what_to_do)
    return Check("data", "warning", found, "`mc1opt data` fetches it now; else the first search does.")


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
