"""Opening the study database: what is refused, and what is waited for."""

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy.exc import DatabaseError

from mc1opt.database import opening
from mc1opt.database.opening import inspected, open_storage
from mc1opt.errors import StorageError
from tests.database.test_storage import locked, new_storage, new_study


def test_reading_never_creates_a_database() -> None:
    with pytest.raises(StorageError, match=r"missing/s\.db"):
        open_storage("missing/s.db", create=False)
    assert not Path("missing").exists()


def write_foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.commit()
    connection.close()


def write_truncated(path: Path) -> None:
    new_study(new_storage(name=str(path)))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_older_tables(path: Path) -> None:
    """Those of a time before the table of heartbeats, which RDBStorage would add."""
    new_study(new_storage(name=str(path)))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE trial_heartbeats")
        connection.execute("UPDATE alembic_version SET version_num = 'v2.4.0.a'")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"GIF89a" + b"x" * 5000), "SQLite"),
        (write_foreign, "recipes"),
        (write_truncated, "malformed"),
        (write_older_tables, r"optuna storage upgrade --storage sqlite:///s\.db"),
    ],
    ids=["empty", "no database", "foreign", "truncated", "older tables"],
)
@pytest.mark.parametrize("create", [True, False])
def test_what_is_no_study_database_is_refused_and_untouched(
    write: object, message: str, create: bool
) -> None:
    path = Path("s.db")
    write(path)  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(StorageError, match=message):
        open_storage("s.db", create=create)
    assert path.read_bytes() == before
    assert {p.name for p in Path().iterdir()} <= {"s.db", ".s.db.lock"}


@pytest.mark.parametrize(("path", "named"), [("folder", "folder"), ("file/s.db", "folder file ")])
def test_a_place_that_cannot_hold_a_database_is_named(path: str, named: str) -> None:
    Path("folder").mkdir()
    Path("file").write_text("not a folder")
    with pytest.raises(StorageError, match=f"{named}.*--storage"):
        open_storage(path, create=True)


@pytest.mark.parametrize("name", ["a?b#c.db", "100%.db", "a%20b.db", "'quote\".db", "🐈&uri=false.db"])
def test_a_file_of_any_name_is_opened_again(name: str) -> None:
    new_study(new_storage(name=name))
    assert [path.name for path in Path().glob("*.db")] == [name]
    with inspected(name) as connection:
        assert connection is not None
        assert connection.exec_driver_sql("SELECT study_name FROM studies").scalar_one() == "s"


def test_a_sqlite_file_without_tables_gets_those_of_studies_when_a_study_is_made() -> None:
    with contextlib.closing(sqlite3.connect("s.db")) as connection:
        connection.execute("VACUUM")
    with inspected("s.db") as found:
        assert found is None
    with pytest.raises(StorageError, match=r"no study database s\.db"):
        open_storage("s.db", create=False)
    new_study(new_storage())
    assert open_storage("s.db", create=False).get_all_studies()[0].study_name == "s"


def test_what_goes_wrong_while_it_is_read_is_an_error_for_people() -> None:
    new_study(new_storage())
    connection: Any
    with pytest.raises(StorageError, match=r"s\.db.*nothing"), inspected("s.db") as connection:
        connection.exec_driver_sql("SELECT * FROM nothing")


@pytest.mark.parametrize("create", [True, False])
def test_a_database_that_is_locked_is_waited_for(create: bool) -> None:
    new_study(new_storage())
    with locked(0.3):
        assert open_storage("s.db", create=create).get_all_studies()[0].study_name == "s"


@pytest.mark.parametrize("create", [True, False])
def test_a_database_that_stays_locked_is_called_locked(create: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    new_study(new_storage())
    monkeypatch.setattr(opening, "BUSY_TIMEOUT_SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect("s.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match=r"s\.db is locked"):
            open_storage("s.db", create=create)


@pytest.mark.slow
def test_many_processes_may_open_a_new_database_at_once() -> None:
    code = (
        "from mc1opt.database.opening import open_storage\n"
        "import optuna\n"
        "s = open_storage('new/s.db', create=True, threads=1)\n"
        "optuna.create_study(storage=s, study_name='s', load_if_exists=True).ask()\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in processes:
        _, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
    study = optuna.load_study(study_name="s", storage=open_storage("new/s.db", create=False))
    assert sorted(trial.number for trial in study.trials) == [0, 1, 2, 3]


@pytest.mark.parametrize("half_written", [1, opening.LOOKS])
def test_a_file_that_another_process_writes_is_looked_at_again(
    half_written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_storage("s.db", create=True)
    connected, looks = opening._connected, list[str]()

    def torn(url: str, access: str = "mode=rw") -> Any:
        looks.append(access)
        if len(looks) <= half_written:
            raise DatabaseError("", {}, sqlite3.DatabaseError("database disk image is malformed"))
        return connected(url, access)

    monkeypatch.setattr(opening, "_connected", torn)
    if half_written < opening.LOOKS:
        with opening.inspected("s.db") as connection:
            assert connection is not None
    else:
        with pytest.raises(StorageError, match="malformed"), opening.inspected("s.db"):
            pass
    assert set(looks[:half_written]) == {"immutable=1"}
