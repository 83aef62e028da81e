"""A database of two small studies, made once a module."""

import shutil
from pathlib import Path

import optuna
import pytest

from mc1opt.database.opening import load_study
from tests.support.studies import new_storage, run_study


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The studies s, with two finished trials whose ids are 1 and 2, and other: not to be changed."""
    path = tmp_path_factory.mktemp("studies") / "s.db"
    run_study(2, path=str(path))
    run_study(1, path=str(path), study="other")
    return path


@pytest.fixture
def study(database: Path) -> optuna.Study:
    """The study s, in the test's own folder."""
    shutil.copy(database, "s.db")
    return load_study(new_storage(), "s")
