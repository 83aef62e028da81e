"""What searches in tests have in common: switches, one study to compare with, databases that don't sync."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy.event
from sqlalchemy.engine import Engine

from mc1opt.database import opening
from tests.support.curves import SWITCHES_VARIABLE, Switches
from tests.support.once import made_once
from tests.support.studies import WHOLE, fail_some, run_study, without_syncs


@pytest.fixture(autouse=True, scope="session")
def _no_syncs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Real files and locks, but not what would be most of the time: syncs, which only power cuts need, and
    making the tables of each database, which are copies of one."""
    sqlalchemy.event.listen(Engine, "connect", without_syncs)
    empty = tmp_path_factory.mktemp("empty") / "s.db"
    opening._create(empty)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "_create", lambda path: shutil.copyfile(empty, path))
        yield
    sqlalchemy.event.remove(Engine, "connect", without_syncs)


@pytest.fixture(scope="session")
def whole(_no_syncs: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study of WHOLE trials, trained in one go by one worker; not to be changed.

    In it: the database s.db, the weights, and the switches that made some of its trials fail.
    """
    return made_once(tmp_path_factory, "whole", _run_whole)


def _run_whole(folder: Path) -> None:
    (folder / "switches").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SWITCHES_VARIABLE, str(folder / "switches"))
        fail_some(Switches(folder / "switches"))
        run_study(WHOLE, keep=3)


@pytest.fixture
def switches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Switches:
    """Rules for the learning curves, in force for this test and the processes that it starts."""
    folder = tmp_path / "switches"
    folder.mkdir()
    monkeypatch.setenv(SWITCHES_VARIABLE, str(folder))
    return Switches(folder)
