"""The checks of `mc1opt doctor` that look into the study database: is it whole, and who trains?

It is read, never written. SQLite would write where a process was killed within a write, and where the
database has a write-ahead log; then a copy is looked at. Not here: the other checks (`doctor.py`,
`doctor_storage.py`).
"""

import contextlib
import errno
import json
import math
import shlex
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from mc1opt.database import records
from mc1opt.database.heartbeat import GRACE_SECONDS
from mc1opt.database.interrupted import MAX_STALLED
from mc1opt.database.location import DEFAULT_STORAGE, shown_storage, sqlite_path, storage_url
from mc1opt.database.opening import STUDY_TABLES, other_schema
from mc1opt.database.ownership import is_dead
from mc1opt.doctor.diagnosis import Check, Status
from mc1opt.text import duration, plural

LOCKED_SECONDS = 5.0
"""How long another process's lock on the database is waited for."""
NUMBERS = 10
"""Numbers of trials that are named at once."""
COPIES = 3
"""So often a database that is written meanwhile is copied until that counts as locked."""


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
        return _unreadable(error, path, shown, leave)


def _unreadable(error: BaseException, path: Path | None, shown: str, leave: str) -> Check:
    """Why a database cannot be read."""
    reason = _reason(error)
    if "locked" in reason:
        what_to_do = f"End the process that holds the lock; find it with: fuser {shlex.quote(str(path))}"
        return Check("database", "warning", f"{shown} is locked by another process", what_to_do)
    if path is None:
        what_to_do = "Check the URL, that the server answers, and: pip install 'mc1opt[postgres]'"
        return Check("database", "problem", f"{shown} cannot be read: {reason}", what_to_do)
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.ENOSPC:
        what_to_do = f"Free some disk, or give yourself the right to read {shlex.quote(str(path))}."
        return Check("database", "problem", f"{shown} cannot be looked at: {reason}", what_to_do)
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
    if not tables >= STUDY_TABLES:
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
            if left or has_wal(path):
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
    if has_wal(path):
        return False
    with contextlib.closing(_connect(path, "mode=ro")) as connection:
        try:
            connection.execute("SELECT name FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY:
                return True
            raise
    return False


def has_wal(path: Path) -> bool:
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
    (SELECT COUNT(*) FROM trial_intermediate_values AS report WHERE report.trial_id = trials.trial_id),
    (SELECT heartbeat FROM trial_heartbeats AS beat WHERE beat.trial_id = trials.trial_id)
FROM trials
JOIN studies ON studies.study_id = trials.study_id
JOIN study_user_attributes AS definition
    ON definition.study_id = studies.study_id AND definition.key = :definition
LEFT JOIN trial_user_attributes AS owner ON owner.trial_id = trials.trial_id AND owner.key = :owner
LEFT JOIN trial_user_attributes AS stalled ON stalled.trial_id = trials.trial_id AND stalled.key = :stalled
WHERE trials.state = 'RUNNING' OR (trials.state != 'WAITING' AND COALESCE(owner.value_json, 'null') = 'null')
ORDER BY studies.study_name, trials.number
"""


@dataclass(frozen=True)
class _Running:
    """A trial that the database says is running, or one without an owner: another program's."""

    study: str
    definition: str
    number: int
    owner: dict[str, Any] | None
    stalled: dict[str, int]
    epochs: int
    silent: float
    """Seconds since its last heartbeat, by the database's clock; infinite where there was none."""

    @property
    def fails_next(self) -> bool:
        """Whether its owner's death is one too many without a new epoch."""
        times = self.stalled["times"] + 1 if self.stalled["epochs"] == self.epochs else 1
        return times >= MAX_STALLED


def check_trials(storage: str) -> list[Check]:
    """Whether running trials have an owner that lives; a result for each study with such or foreign ones."""
    path = sqlite_path(storage_url(storage))
    none = [Check("trials", "ok", "no trial is running")]
    if path is not None and not path.exists():
        return none
    try:
        with _reading(storage) as database:
            running = _running_trials(database.connection)
    except (SQLAlchemyError, sqlite3.Error, OSError, ImportError):
        found = "unknown, because the database cannot be read"
        return [Check("trials", "warning", found, "See the line database.")]
    studies = groupby(running, key=lambda trial: trial.study)
    return [_check_study(list(trials), storage) for _, trials in studies] or none


def _running_trials(connection: sqlalchemy.Connection) -> list[_Running]:
    now = _moment(connection.execute(sqlalchemy.select(sqlalchemy.func.now())).scalar_one())
    rows = connection.execute(
        sqlalchemy.text(_RUNNING),
        {"definition": records.STUDY_DEFINITION, "owner": records.OWNER, "stalled": records.STALLED},
    )
    return [
        _Running(
            study=study,
            definition=json.loads(definition),
            number=number,
            owner=_object(owner),
            stalled=_object(stalled) or {"times": 0, "epochs": 0},
            epochs=epochs,
            silent=math.inf if heartbeat is None else max(0.0, (now - _moment(heartbeat)).total_seconds()),
        )
        for study, definition, number, owner, stalled, epochs, heartbeat in rows
    ]


def _object(stored: str | None) -> dict[str, Any] | None:
    """JSON as it is stored, where it is an object."""
    found = None if stored is None else json.loads(stored)
    return found if isinstance(found, dict) else None


def _moment(value: str | datetime) -> datetime:
    """A time of the database's clock; SQLite has it as text."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=None)


def _check_study(trials: list[_Running], storage: str) -> Check:
    """What there is to say of a study's running trials, and of those of other programs."""
    foreign = [trial for trial in trials if trial.owner is None]
    own = [trial for trial in trials if trial.owner is not None]
    dead = [trial for trial in own if is_dead(trial.owner)]
    unseen = [trial for trial in own if is_dead(trial.owner) is None]
    silent = [trial for trial in unseen if trial.silent > GRACE_SECONDS]
    alive = [trial for trial in own if is_dead(trial.owner) is False]
    found = [
        f"{_numbers(group)} {what}"
        for group, what in (
            (alive, "in training"),
            (
                unseen,
                f"in training on {', '.join(_hosts(unseen))}, which cannot be seen from here{_heard(unseen)}",
            ),
            (dead, "interrupted: the process is gone"),
            (foreign, "passed over: written by another program"),
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
    if silent:
        what_to_do.append(
            f"A running search takes over {_numbers(silent)} when it has not heard of it for "
            f"{duration(GRACE_SECONDS)}. A study that has its total needs none: give {command} a higher "
            "--trials, or leave it as it is."
        )
    status: Status = "warning" if dead or silent else "ok"
    return Check("trials", status, f"study {trials[0].study}: {'; '.join(found)}", "\n".join(what_to_do))


def _numbers(trials: list[_Running]) -> str:
    more = f" and {len(trials) - NUMBERS} more" if len(trials) > NUMBERS else ""
    return ", ".join(f"#{trial.number}" for trial in trials[:NUMBERS]) + more


def _heard(trials: list[_Running]) -> str:
    """When the trial that has been silent for longest gave its last sign of life."""
    longest = max((trial.silent for trial in trials), default=0.0)
    return ", and never heard of" if math.isinf(longest) else f"; heard of {duration(longest)} ago"


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
