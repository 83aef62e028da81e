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

from mc1opt.database import records
from mc1opt.database.interrupted import MAX_STALLED
from mc1opt.database.location import DEFAULT_STORAGE
from mc1opt.database.opening import load_study, open_storage
from mc1opt.database.ownership import this_owner
from mc1opt.doctor import database as doctor_database
from mc1opt.doctor.database import check_database, check_trials
from mc1opt.doctor.diagnosis import Check
from tests.database.test_interrupted import take_up
from tests.search.test_study import kill_within_a_write, opened
from tests.support.studies import dead_owner, new_storage

STORAGE = "s.db"


def states(folder: Path) -> dict[str, Any]:
    """Names, contents and times of all files and folders."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in (folder, *folder.rglob("*"))
    }


@pytest.fixture(autouse=True)
def _nothing_is_left_elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    yield
    assert list(temporary.iterdir()) == []


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


def set_running(number: int, owner: dict[str, Any], path: str = STORAGE) -> None:
    """Has the process of `owner` run a trial."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE trials SET state = 'RUNNING' WHERE number = ?", (number,))
    set_attribute(number, records.OWNER, owner, path)


def set_attribute(number: int, key: str, value: Any, path: str = STORAGE) -> None:
    """Gives a trial a user attribute."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
            "SELECT trial_id, ?, ? FROM trials WHERE number = ?",
            (key, json.dumps(value), number),
        )


def database() -> Check:
    with nothing_changes():
        return check_database(STORAGE)


def trials() -> list[Check]:
    with nothing_changes():
        return check_trials(STORAGE)


def use_wal() -> None:
    with contextlib.closing(sqlite3.connect(STORAGE)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


# ---- The database ----------------------------------------------------------------------------------------


def test_a_database_that_does_not_exist_is_none_yet_and_is_not_made() -> None:
    assert database() == Check("database", "ok", "s.db does not exist yet", "`mc1opt run` makes it.")
    assert trials() == [Check("trials", "ok", "no trial is running")]


def test_a_whole_database_is_counted(study: None) -> None:
    assert database() == Check("database", "ok", "s.db is whole: 1 study, 2 trials")
    optuna.create_study(storage=new_storage(), study_name="other").ask()
    assert database() == Check("database", "ok", "s.db is whole: 2 studies, 3 trials")


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


def write_folder() -> None:
    Path(STORAGE).unlink()
    Path(STORAGE).mkdir()


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda: Path(STORAGE).write_bytes(b""), "s.db is empty"),
        (lambda: Path(STORAGE).write_bytes(b"GIF89a" + b"x" * 5000), "no SQLite database"),
        (write_foreign, "database of another program (tables: recipes)"),
        (write_truncated, "damaged"),
        (write_with_a_damaged_page, "damaged"),
        (write_folder, "no SQLite database"),
    ],
    ids=["empty", "no database", "foreign", "truncated", "a page of zeros", "folder"],
)
def test_what_is_no_study_database_is_a_problem_and_untouched(study: None, write: Any, found: str) -> None:
    write()
    check = database()
    assert check.status == "problem"
    assert found in check.found
    assert "left as it is" in check.what_to_do
    assert len(trials()) == 1


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


def set_schema(version: str) -> None:
    with contextlib.closing(sqlite3.connect(STORAGE)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))


def test_tables_of_an_older_optuna_are_a_problem_with_the_command_that_brings_them_up(study: None) -> None:
    take_back_schema(STORAGE)
    check = database()
    assert check.status == "problem"
    assert f"(schema {OLDER_SCHEMA})" in check.found
    assert check.what_to_do.endswith("optuna storage upgrade --storage sqlite:///s.db")


def test_tables_of_a_newer_optuna_ask_for_a_newer_optuna(study: None) -> None:
    set_schema("v99")
    check = database()
    assert (check.status, check.what_to_do) == ("problem", "Update Optuna: pip install -U optuna")


def test_a_killed_writer_is_said_and_its_journal_stays_for_the_next_command(study: None) -> None:
    set_running(0, dead_owner())
    kill_within_a_write("INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (1, ?, '1')")
    check = database()
    assert (check.status, check.found) == ("warning", "s.db is whole: 1 study, 2 trials")
    assert "the next command takes back" in check.what_to_do
    assert "#0 interrupted" in trials()[0].found
    take_up()
    assert database() == Check("database", "ok", "s.db is whole: 1 study, 2 trials")


def test_what_is_only_in_the_write_ahead_log_is_seen(study: None) -> None:
    """A reader beside would make or change the log's index."""
    set_running(0, this_owner())
    use_wal()
    with contextlib.closing(sqlite3.connect(STORAGE)) as writer, writer:
        writer.execute("DELETE FROM trials")
        writer.commit()
        assert database().found == "s.db is whole: 1 study, 0 trials"
        assert trials()[0].found == "no trial is running"


def test_a_database_that_another_process_holds_is_said_to_be_locked(
    study: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_database, "LOCKED_SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect(STORAGE, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        check = check_database(STORAGE)
    assert (check.status, check.found) == ("warning", "s.db is locked by another process")
    assert check.what_to_do.endswith("fuser s.db")


def test_a_database_that_is_being_written_is_looked_at_beside(study: None) -> None:
    with contextlib.closing(sqlite3.connect(STORAGE, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM trials")
        assert database().found == "s.db is whole: 1 study, 2 trials"


# ---- Running trials --------------------------------------------------------------------------------------


def test_a_trial_in_training_is_well(study: None) -> None:
    set_running(0, this_owner())
    assert trials() == [Check("trials", "ok", "study s: #0 in training")]


def test_a_trial_whose_process_is_gone_is_gone_on_with_by_the_command_that_is_said(study: None) -> None:
    set_running(0, dead_owner())
    set_running(1, this_owner())
    (check,) = trials()
    assert check.status == "warning"
    assert check.found == "study s: #1 in training; #0 interrupted: the process is gone"
    assert check.what_to_do == "The next `mc1opt run --study small --name s --storage s.db` goes on with #0."


def test_the_default_database_and_the_definitions_own_name_need_no_options(template: bytes) -> None:
    Path(DEFAULT_STORAGE).parent.mkdir()
    Path(DEFAULT_STORAGE).write_bytes(template)
    set_running(1, dead_owner(), DEFAULT_STORAGE)
    with contextlib.closing(sqlite3.connect(DEFAULT_STORAGE)) as connection, connection:
        connection.execute("UPDATE studies SET study_name = 'small'")
    (check,) = check_trials(DEFAULT_STORAGE)
    assert check.what_to_do == "The next `mc1opt run --study small` goes on with #1."


def test_a_trial_of_another_host_may_live(study: None) -> None:
    set_running(0, {**dead_owner(), "host": "elsewhere.example"})
    beat = "INSERT OR REPLACE INTO trial_heartbeats (trial_id, heartbeat) VALUES (1, datetime('now', ?))"
    with contextlib.closing(sqlite3.connect("s.db")) as connection, connection:
        connection.execute(beat, ("-10 seconds",))
    (check,) = trials()
    assert check.status == "ok"
    where = "study s: #0 in training on elsewhere.example, which cannot be seen from here; heard of"
    assert re.fullmatch(f"{where} 1\\d s ago", check.found)
    assert check.what_to_do == ""


@pytest.mark.parametrize(
    ("ago", "heard"), [("-2 hours", "; heard of 2 h 00 min ago"), (None, ", and never heard of")]
)
def test_a_trial_of_another_host_that_is_silent_may_be_lost(study: None, ago: str | None, heard: str) -> None:
    set_running(0, {**dead_owner(), "host": "elsewhere.example"})
    if ago is not None:
        beat = "INSERT OR REPLACE INTO trial_heartbeats (trial_id, heartbeat) VALUES (1, datetime('now', ?))"
        with contextlib.closing(sqlite3.connect("s.db")) as connection, connection:
            connection.execute(beat, (ago,))
    (check,) = trials()
    assert check.status == "warning"
    assert check.found.endswith(f"elsewhere.example, which cannot be seen from here{heard}")
    assert "A running search takes over #0 when it has not heard of it for 3 min." in check.what_to_do


def test_a_trial_that_died_once_too_often_is_said_to_fail(study: None) -> None:
    set_running(0, dead_owner())
    set_attribute(0, records.STALLED, {"times": MAX_STALLED - 1, "epochs": 0})
    (check,) = trials()
    assert "ends #0 as failed: the process died 5 times without a new epoch" in check.what_to_do
    assert take_up() == 0
    assert trials() == [Check("trials", "ok", "no trial is running")]
    assert load_study(new_storage(), "s").trials[0].state == optuna.trial.TrialState.FAIL


def test_studies_of_other_programs_are_let_alone() -> None:
    optuna.create_study(storage=new_storage(owner=dead_owner()), study_name="theirs").ask()
    assert trials() == [Check("trials", "ok", "no trial is running")]
