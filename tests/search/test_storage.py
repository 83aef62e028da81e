"""Opening the study database. What a search needs of an open one: tests/contracts/test_storages.py."""

import contextlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError

from mc1opt.errors import StorageError, UsageError
from mc1opt.search import storage as storage_module
from mc1opt.search.storage import StudyStorage, open_storage, sqlite_path, storage_url

ME = {"host": "here", "boot": "b", "pid": 1, "started": 2}


def new_storage(owner: dict[str, object] | None = ME, name: str = "s.db") -> StudyStorage:
    return open_storage(name, create=True, owner=owner, threads=4)


def new_study(storage: StudyStorage) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name="s", direction="maximize", load_if_exists=True)


def test_a_path_is_a_sqlite_file_and_a_url_is_a_url() -> None:
    assert storage_url("a/b.db") == "sqlite:///a/b.db"
    for path in ("a?b#c.db", "100%.db", "a%20b.db", "'quote\".db", "🐈.db"):
        assert sqlite_path(storage_url(path)) == Path(path)
    assert storage_url("sqlite:////tmp/x.db") == "sqlite:////tmp/x.db"


@pytest.mark.parametrize("text", ["nothing://host/x", "://"])
def test_an_unknown_url_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no database that SQLAlchemy knows"):
        open_storage(text, create=True)


def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(UsageError, match="lost with the process"):
        open_storage("sqlite://", create=True)


def test_reading_never_creates_a_database() -> None:
    with pytest.raises(StorageError, match="there is no study database"):
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
        (lambda path: path.write_bytes(b"GIF89a" + b"x" * 5000), "no SQLite database"),
        (write_foreign, r"database of another program \(its tables: recipes\)"),
        (write_truncated, "damaged|cannot be read"),
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


def test_a_folder_is_refused() -> None:
    Path("folder").mkdir()
    with pytest.raises(StorageError, match="is a folder"):
        open_storage("folder", create=True)


def test_a_place_that_cannot_be_written_is_named() -> None:
    Path("file").write_text("not a folder")
    with pytest.raises(StorageError, match="cannot be made"):
        open_storage("file/s.db", create=True)


@contextlib.contextmanager
def locked(seconds: float) -> Iterator[None]:
    """Another connection holds SQLite's write lock for so long."""
    connection = sqlite3.connect("s.db", timeout=30, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(seconds, connection.rollback)
    timer.start()
    try:
        yield
    finally:
        timer.join()
        connection.close()


def write_everything(storage: StudyStorage, study: optuna.Study) -> None:
    """Every write of a search, each while the database is locked longer than a write waits for it."""
    study_id = study._study_id
    trial = study.ask()
    writes: list[Callable[[], object]] = [
        study.ask,
        lambda: draw(storage, trial),
        lambda: trial.report(0.5, 0),
        lambda: storage.record_heartbeat(trial._trial_id),
        lambda: storage.set_own_attributes(trial._trial_id, {"a": 1}),
        lambda: trial.set_constraint("c", 1.0),
        lambda: storage.set_user_attributes(trial._trial_id, {"b": 1}),
        lambda: study.set_user_attr("u", 1),
        lambda: study.tell(trial, 0.5),
        lambda: storage.set_back_to_waiting(study_id + 1, ME, {}),
    ]
    for write in writes:
        with locked(0.15):
            write()


def draw(storage: StudyStorage, trial: optuna.Trial) -> None:
    with storage.writing_parameters_together():
        trial.suggest_float("x", 0, 1)


def test_a_write_that_finds_the_database_locked_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # Shorter than the lock is held; all tries together wait for more than three times as long.
    monkeypatch.setattr(storage_module, "BUSY_TIMEOUT_SECONDS", 0.1)
    storage = new_storage()
    study = new_study(storage)
    write_everything(storage, study)
    trial = study.trials[0]
    assert (trial.value, trial.intermediate_values, trial.constraints) == (0.5, {0: 0.5}, {"c": 1.0})
    assert trial.params.keys() == {"x"}
    assert {key: trial.user_attrs[key] for key in "ab"} == {"a": 1, "b": 1}
    assert study.user_attrs == {"u": 1}
    assert len(study.trials) == 2


def test_tries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "BUSY_TIMEOUT_SECONDS", 0.01)
    monkeypatch.setattr(storage_module, "LOCKED_PAUSE_SECONDS", 0.01)
    storage = new_storage()
    trial = new_study(storage).ask()
    with locked(1.0), pytest.raises(StorageInternalError) as caught:
        trial.report(0.5, 0)
    assert "database is locked" in str(caught.value.__cause__)


def test_an_error_that_waiting_does_not_help_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "LOCKED_PAUSE_SECONDS", 60.0)
    storage = new_storage()
    trial = new_study(storage).ask()
    with contextlib.closing(sqlite3.connect("s.db")) as connection:
        connection.execute("DROP TABLE trial_intermediate_values")
    with pytest.raises(StorageInternalError):
        trial.report(0.5, 0)


def test_many_processes_may_open_a_new_database_at_once() -> None:
    code = (
        "from mc1opt.search.storage import open_storage\n"
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
