"""A study database that is locked. What a search needs of it else: tests/contracts/test_storages.py."""

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator

import optuna
import pytest

from mc1opt.database import storage as storage_module
from mc1opt.database.opening import open_storage
from mc1opt.database.storage import StudyStorage

ME = {"host": "here", "boot": "b", "pid": 1, "started": 2}


def new_storage(owner: dict[str, object] | None = ME, name: str = "s.db") -> StudyStorage:
    return open_storage(name, create=True, owner=owner, threads=4)


def new_study(storage: StudyStorage) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name="s", direction="maximize", load_if_exists=True)


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
