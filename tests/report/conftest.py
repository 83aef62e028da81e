"""A study whose best trial was retrained."""

import shutil
from pathlib import Path

import pytest

from mc1opt.database.records import StudyRecord
from tests.support.once import made_once
from tests.support.retraining import (
    STORAGE,
    STUDY,
    retrain_curves,
    retrainable,
    retrainable_folder,
)
from tests.support.studies import stored

__all__ = ["retrainable", "retrainable_folder", "retrained", "retrained_once"]


@pytest.fixture(scope="session")
def retrained_once(retrainable_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder, not to be changed."""

    def fill(folder: Path) -> None:
        shutil.copytree(retrainable_folder, folder, dirs_exist_ok=True)
        retrain_curves()

    return made_once(tmp_path_factory, "reported", fill)


@pytest.fixture
def retrained(retrained_once: Path, tmp_path: Path) -> StudyRecord:
    """It in the test's own folder, and its record."""
    shutil.copytree(retrained_once, tmp_path, dirs_exist_ok=True)
    return stored(STORAGE, STUDY)
