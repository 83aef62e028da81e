"""How long a locked database is waited for. A server that is away: tests/contracts/test_outages.py."""

import contextlib
import sqlite3

import pytest
from optuna.exceptions import StorageInternalError

from mc1opt.database import retry as patience
from mc1opt.database import storage as storage_module
from tests.database.test_storage import locked, new_storage, new_study


def test_tries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "BUSY_TIMEOUT_SECONDS", 0.01)
    monkeypatch.setattr(patience, "LOCKED_PAUSE_SECONDS", 0.01)
    storage = new_storage()
    trial = new_study(storage).ask()
    with locked(1.0), pytest.raises(StorageInternalError) as caught:
        trial.report(0.5, 0)
    assert "database is locked" in str(caught.value.__cause__)


def test_an_error_that_waiting_does_not_help_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LOCKED_PAUSE_SECONDS", 60.0)
    storage = new_storage()
    trial = new_study(storage).ask()
    with contextlib.closing(sqlite3.connect("s.db")) as connection:
        connection.execute("DROP TABLE trial_intermediate_values")
    with pytest.raises(StorageInternalError):
        trial.report(0.5, 0)
