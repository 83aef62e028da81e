"""Doctor's checks of the study database: whole, ours, and who trains."""

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import alembic.command
import optuna
import pytest

from mc1opt.database import opening, records
from mc1opt.database.interrupted import MAX_STALLED
from mc1opt.database.location import DEFAULT_STORAGE
from mc1opt.database.opening import load_study, open_storage
from mc1opt.database.ownership import this_owner
from mc1opt.doctor.database import NONE_RUNNING, check_database
from mc1opt.doctor.diagnosis import Check
from tests.database.test_interrupted import take_up
from tests.search.test_study import kill_within_a_write, opened
from tests.support.studies import dead_owner, new_storage

STORAGE = "s.db"
ELSEWHERE = {**dead_owner(), "host": "elsewhere.example"}


def states(folder: Path) -> dict[str, Any]:
    """Names, contents and times of all files and folders."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in (folder, *folder.rglob("*"))
    }


@contextlib.contextmanager
def nothing_changes() -> Iterator[None]:
    before = states(Path())
    yield
    assert states(Path()) == before


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database with a study of ours, "s" of the definition "small", whose two trials wait."""
    path = tmp_path_factory.mktemp("template") / "s.db"
    opened(storage=new_storage(str(path)))
    return path.read_bytes()


@pytest.fixture
def study(template: bytes) -> None:
    """That database, as s.db."""
    Path(STORAGE).write_bytes(template)


def execute(statement: str, *values: object, path: str = STORAGE) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def set_running(number: int, owner: dict[str, Any], path: str = STORAGE) -> None:
    """Has the process of `owner` run a trial."""
    execute("UPDATE trials SET state = 'RUNNING' WHERE number = ?", number, path=path)
    set_attribute(number, records.OWNER, owner, path)


def set_attribute(number: int, key: str, value: Any, path: str = STORAGE) -> None:
    """Gives a trial a user attribute."""
    execute(
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
        "SELECT trial_id, ?, ? FROM trials WHERE number = ?",
        key,
        json.dumps(value),
        number,
        path=path,
    )


def database() -> Check:
    with nothing_changes():
        return check_database(STORAGE)[0]


def trials() -> list[Check]:
    with nothing_changes():
        return check_database(STORAGE)[1:]


# ---- The database ----------------------------------------------------------------------------------------


def test_a_database_that_does_not_exist_is_none_yet_and_is_not_made() -> None:
    assert database().status == "ok"
    assert trials() == [NONE_RUNNING]


def test_a_whole_database_is_counted(study: None) -> None:
    assert database().found.endswith("1 study, 2 trials")
    optuna.create_study(storage=new_storage(), study_name="other").ask()
    assert database().found.endswith("2 studies, 3 trials")


def write_foreign() -> None:
    Path(STORAGE).unlink()
    with contextlib.closing(sqlite3.connect(STORAGE)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")


def write_truncated() -> None:
    content = Path(STORAGE).read_bytes()
    Path(STORAGE).write_bytes(content[: len(content) // 2])


def write_with_a_damaged_page() -> None:
    content = bytearray(Path(STORAGE).read_bytes())
    page = int.from_bytes(content[16:18], "big")
    content[5 * page : 6 * page] = bytes(page)
    Path(STORAGE).write_bytes(content)


def write_with_a_stale_index() -> None:
    with contextlib.closing(sqlite3.connect(STORAGE)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        index = "CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_id)"
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'ix_studies_study_name'", (index,))


def write_folder() -> None:
    Path(STORAGE).unlink()
    Path(STORAGE).mkdir()


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda: Path(STORAGE).write_bytes(b""), "empty"),
        (lambda: Path(STORAGE).write_bytes(b"GIF89a" + b"x" * 5000), "no SQLite database"),
        (write_foreign, "recipes"),
        (write_truncated, "malformed"),
        (write_with_a_damaged_page, "damaged"),
        (write_with_a_stale_index, "damaged"),
        (write_folder, "folder"),
    ],
    ids=["empty", "no database", "foreign", "truncated", "a page of zeros", "a stale index", "folder"],
)
def test_what_is_no_study_database_is_a_problem_and_untouched(study: None, write: Any, found: str) -> None:
    write()
    check = database()
    assert check.status == "problem"
    assert found in check.found
    assert "--storage" in check.what_to_do
    assert [check.status for check in trials()] == ["warning"]


OLDER_SCHEMA = "v3.0.0.c"
"""The oldest one to which Optuna's own migrations lead back."""


def take_back_schema(path: str) -> None:
    """Makes the tables those of an older Optuna, by its own migrations."""
    storage = open_storage(path, create=False)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        # The migration that made this index is the first one that is taken back; new databases have another.
        connection.execute("CREATE INDEX trials_study_id_key ON trials (study_id)")
    alembic.command.downgrade(storage._version_manager._create_alembic_config(), OLDER_SCHEMA)
    storage.remove_session()
    storage.engine.dispose()


def test_tables_of_an_older_optuna_are_a_problem_with_the_command_that_brings_them_up(study: None) -> None:
    take_back_schema(STORAGE)
    check = database()
    assert check.status == "problem"
    assert check.what_to_do.endswith("optuna storage upgrade --storage sqlite:///s.db")


def test_tables_of_a_newer_optuna_ask_for_a_newer_optuna(study: None) -> None:
    execute("UPDATE alembic_version SET version_num = 'v99'")
    check = database()
    assert check.status == "problem"
    assert "pip install -U optuna" in check.what_to_do


def test_what_a_killed_writer_had_begun_is_taken_back(study: None) -> None:
    set_running(0, dead_owner())
    kill_within_a_write("INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (1, ?, '1')")
    found, running = check_database(STORAGE)
    assert (found.status, running.status) == ("ok", "warning")
    assert found.found.endswith("1 study, 2 trials")
    assert "#0 interrupted" in running.found


def test_a_database_that_another_process_holds_is_a_warning(
    study: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "BUSY_TIMEOUT_SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect(STORAGE, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        checks = check_database(STORAGE)
    assert [(check.name, check.status) for check in checks] == [
        ("database", "warning"),
        ("trials", "warning"),
    ]
    assert "locked" in checks[0].found


def test_a_database_that_is_being_written_is_read(study: None) -> None:
    with contextlib.closing(sqlite3.connect(STORAGE, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM trials")
        assert database().found.endswith("1 study, 2 trials")


# ---- Running trials --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "heartbeat", "status", "words"),
    [
        (this_owner(), None, "ok", ["in training"]),
        (dead_owner(), None, "warning", ["interrupted"]),
        (ELSEWHERE, "-10 seconds", "ok", ["elsewhere.example", r"1\d s ago"]),
        (ELSEWHERE, "-2 hours", "warning", ["elsewhere.example", "2 h 00 min ago"]),
        (ELSEWHERE, None, "warning", ["elsewhere.example", "never"]),
    ],
    ids=["living", "dead", "elsewhere", "silent for hours", "without a heartbeat"],
)
def test_a_running_trial_is_as_well_as_its_owner(
    study: None, owner: dict[str, Any], heartbeat: str | None, status: str, words: list[str]
) -> None:
    set_running(0, owner)
    beat = "INSERT OR REPLACE INTO trial_heartbeats (trial_id, heartbeat) VALUES (1, datetime('now', ?))"
    if heartbeat is not None:
        execute(beat, heartbeat)
    (check,) = trials()
    assert check.status == status
    for word in ("study s: #0", *words):
        assert re.search(word, check.found)
    assert ("#0" in check.what_to_do) == (status == "warning")


@pytest.mark.parametrize(
    ("path", "name", "command"),
    [
        (STORAGE, "s", "mc1opt run --study small --name s --storage s.db"),
        (DEFAULT_STORAGE, "small", "mc1opt run --study small"),
    ],
)
def test_interrupted_trials_are_named_with_the_command_that_resumes_them(
    template: bytes, path: str, name: str, command: str
) -> None:
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_bytes(template)
    set_running(0, dead_owner(), path)
    set_running(1, this_owner(), path)
    execute("UPDATE studies SET study_name = ?", name, path=path)
    (check,) = check_database(path)[1:]
    assert f"`{command}`" in check.what_to_do
    assert "#0" in check.what_to_do
    assert "#1" not in check.what_to_do


def test_a_trial_that_died_once_too_often_is_said_to_fail(study: None) -> None:
    set_running(0, dead_owner())
    set_attribute(0, records.STALLED, {"times": MAX_STALLED - 1, "epochs": 0})
    (check,) = trials()
    assert "#0" in check.what_to_do
    assert "failed" in check.what_to_do
    assert take_up() == 0
    assert trials() == [NONE_RUNNING]
    assert load_study(new_storage(), "s").trials[0].state == optuna.trial.TrialState.FAIL


def test_studies_of_other_programs_are_let_alone() -> None:
    optuna.create_study(storage=new_storage(owner=dead_owner()), study_name="theirs").ask()
    assert trials() == [NONE_RUNNING]
