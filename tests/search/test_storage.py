"""Opening the study database. What a search needs of an open one: tests/contracts/test_storages.py."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from mc1opt.errors import StorageError, UsageError
from mc1opt.search.storage import StudyStorage, open_storage, storage_url

ME = {"host": "here", "boot": "b", "pid": 1, "started": 2}


def new_storage(owner: dict[str, object] | None = ME, name: str = "s.db") -> StudyStorage:
    return open_storage(name, create=True, owner=owner, threads=4)


def new_study(storage: StudyStorage) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name="s", direction="maximize", load_if_exists=True)


def test_a_path_is_a_sqlite_file_and_a_url_is_a_url() -> None:
    assert storage_url("a/b.db") == "sqlite:///a/b.db"
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


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"GIF89a" + b"x" * 5000), "no SQLite database"),
        (write_foreign, r"database of another program \(its tables: recipes\)"),
        (write_truncated, "damaged|cannot be read"),
    ],
    ids=["empty", "no database", "foreign", "truncated"],
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
