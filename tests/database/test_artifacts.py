"""Files of trials: kept whatever its state, listed, replaced, taken away, deleted with their study."""

import uuid
from pathlib import Path

import optuna

from mc1opt.database.artifacts import (
    artifact_names,
    artifacts_folder,
    put_artifact,
    remove_artifact,
    remove_artifacts,
)
from mc1opt.database.opening import load_study
from mc1opt.database.studies import delete_study, open_for_deletion
from tests.support.studies import new_storage
from tests.support.two_studies import database, study

FIRST, SECOND = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
__all__ = ["database", "study"]

FOLDER = Path("artifacts")


def test_a_finished_trial_gets_files_and_another_process_lists_them(study: optuna.Study) -> None:
    put_artifact(study, FOLDER, 1, FIRST, "a.csv", b"replaced")
    put_artifact(study, FOLDER, 1, FIRST, "history.csv", b"1,2\n")
    put_artifact(study, FOLDER, 2, SECOND, "curve.png", b"png")
    assert artifact_names(load_study(new_storage(), "s")) == {
        1: {FIRST: "history.csv"},
        2: {SECOND: "curve.png"},
    }
    assert (FOLDER / FIRST).read_bytes() == b"1,2\n"


def test_a_file_is_taken_away_also_where_it_is_gone_already(study: optuna.Study) -> None:
    for artifact in (FIRST, SECOND):
        put_artifact(study, FOLDER, 1, artifact, "a.csv", b"")
    (FOLDER / SECOND).unlink()
    remove_artifact(study, FOLDER, 1, FIRST)
    remove_artifact(study, FOLDER, 1, SECOND)
    assert artifact_names(study) == {}
    assert list(FOLDER.iterdir()) == []


def test_all_files_of_a_study_are_taken_away_and_those_of_others_stay(study: optuna.Study) -> None:
    put_artifact(study, FOLDER, 1, FIRST, "a.csv", b"")
    other = load_study(new_storage(), "other")
    put_artifact(other, FOLDER, 3, SECOND, "b.csv", b"")
    remove_artifacts(study, FOLDER)
    assert artifact_names(study) == {}
    assert artifact_names(other) == {3: {SECOND: "b.csv"}}
    assert [path.name for path in FOLDER.iterdir()] == [SECOND]


def test_a_copy_of_a_study_has_nothing_to_do_with_the_originals_files(study: optuna.Study) -> None:
    folder = artifacts_folder("s.db")
    put_artifact(study, folder, 1, FIRST, "a.csv", b"")
    url = "sqlite:///s.db"
    optuna.copy_study(from_study_name="s", from_storage=url, to_storage=url, to_study_name="copy")
    copy = load_study(new_storage(), "copy")
    assert artifact_names(copy) == {}
    remove_artifacts(copy, folder)
    delete_study(open_for_deletion("s.db", "copy"))
    assert artifact_names(study) == {1: {FIRST: "a.csv"}}
    assert (folder / FIRST).exists()
    delete_study(open_for_deletion("s.db", "s"))
    assert list(folder.iterdir()) == []
