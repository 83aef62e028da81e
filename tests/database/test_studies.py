"""What studies there are; reading one and deleting one."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from mc1opt.database.location import checkpoints_folder
from mc1opt.database.opening import open_storage
from mc1opt.database.studies import StudyToDelete, delete_study, open_for_deletion, read_study
from mc1opt.database.trial_files import kept_weights, study_folder
from mc1opt.errors import StorageError, UsageError
from mc1opt.search.catalogue import catalogue, catalogue_lines
from tests.support.studies import SECONDS, run_study, stored


def new_foreign_study() -> None:
    """A study of another program, with two objectives, in the same database."""
    foreign = optuna.create_study(
        storage=open_storage("s.db", create=True), study_name="theirs", directions=["minimize", "maximize"]
    )
    foreign.tell(foreign.ask(), [1.0, 2.0])


# ---- Listing ---------------------------------------------------------------------------------------------


def test_a_study_of_another_program_is_listed_as_that_and_cannot_be_read() -> None:
    new_foreign_study()
    assert catalogue_lines(catalogue("s.db"))[-1] == "  theirs  1 trial, 1 complete (not one of mc1opt's)"
    with pytest.raises(StorageError, match=r"'theirs'.* 2 objectives"):
        read_study("s.db", "theirs")


# ---- Reading ---------------------------------------------------------------------------------------------


def test_a_study_is_read_with_all_trials_or_one() -> None:
    run_study(2)
    assert [trial.number for trial in read_study("s.db", "s").trials] == [0, 1]
    assert [trial.number for trial in read_study("s.db", "s", 1).trials] == [1]
    with pytest.raises(UsageError, match=r"'s'.* 2.* 0 to 1"):
        read_study("s.db", "s", 2)


@pytest.mark.parametrize("act", [read_study, open_for_deletion])
def test_an_unknown_study_names_the_known_ones_and_a_missing_database_is_not_made(act: Any) -> None:
    run_study(1)
    run_study(1, study="a")
    with pytest.raises(StorageError, match=r"'b'.*: a, s\."):
        act("s.db", "b")
    with pytest.raises(StorageError, match=r"missing/s\.db"):
        act("missing/s.db", "s")
    assert not Path("missing").exists()


# ---- Deleting --------------------------------------------------------------------------------------------


def test_deleting_takes_trials_and_weights_and_leaves_other_studies() -> None:
    run_study(3)
    run_study(2, study="other")
    folders = [study_folder(checkpoints_folder("s.db"), name) for name in ("s", "other")]
    assert all(kept_weights(folder) for folder in folders)
    victim = open_for_deletion("s.db", "s")
    assert victim.trials == len(stored().trials)
    delete_study(victim)
    assert [study.name for study in catalogue("s.db").studies] == ["other"]
    assert not folders[0].exists()
    assert kept_weights(folders[1])
    assert len(stored(name="other").trials) == 2


@pytest.fixture
def runner() -> Iterator[subprocess.Popen[str]]:
    """A process that owns a running trial of study "s"."""
    code = (
        "import optuna, sys, time\n"
        "from mc1opt.database.ownership import this_owner\n"
        "from mc1opt.database.opening import open_storage\n"
        "storage = open_storage('s.db', create=True, owner=this_owner())\n"
        "optuna.create_study(storage=storage, study_name='s').ask()\n"
        "print('running', flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        yield process
        process.kill()


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("again", [False, True], ids=["trained", "trained again with a new seed"])
def test_a_study_that_a_living_process_trains_is_not_deleted(
    runner: subprocess.Popen[str], again: bool
) -> None:
    storage = open_storage("s.db", create=False)
    (trial,) = storage.get_all_trials(1)
    owner = trial.user_attrs["owner"]
    victim = StudyToDelete(storage, "s.db", "s", 1, "s")
    if again:
        storage.set_user_attributes(trial._trial_id, {"confirming": [{"seed": 1, "owner": owner}]})
        storage.set_back_to_waiting(trial._trial_id, owner, {})
    for look in (lambda: open_for_deletion("s.db", "s"), lambda: delete_study(victim)):
        with pytest.raises(StorageError, match=f"process {runner.pid} "):
            look()
    runner.kill()
    runner.wait()
    delete_study(open_for_deletion("s.db", "s"))  # it has no weights, which is no error
    assert catalogue("s.db").studies == []
