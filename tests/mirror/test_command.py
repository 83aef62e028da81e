"""What is mirrored of a stored study, and what people are told."""

import shlex
from dataclasses import replace

import optuna
import pytest

from mc1opt.database.location import files_folder
from mc1opt.database.records import StudyRecord
from mc1opt.errors import StorageError
from mc1opt.mirror.command import (
    MirrorOptions,
    MirrorReport,
    mirror_study,
    report_lines,
    study_identity,
    wandb_folder,
)
from mc1opt.mirror.process import Limits
from tests.support.pages import Pages
from tests.support.retraining import STORAGE, STUDY, retrain_curves, retrainable, retrainable_folder
from tests.support.studies import run_study, small_definition, stored
from tests.support.wandb_runs import SECONDS, no_account, read_runs

__all__ = ["no_account", "retrainable", "retrainable_folder"]

OPTIONS = MirrorOptions(study=STUDY, storage=STORAGE, mode="offline")
REPORT = MirrorReport(
    study="cnn",
    project="mc1opt",
    mode="offline",
    folder="storage/wandb",
    runs=3,
    written=["a"],
    uploaded=[],
    missing=[],
    waiting=["a", "b", "c"],
    no_login=False,
    error=None,
)


# ---- Identity --------------------------------------------------------------------------------------------


def test_a_study_keeps_its_identity(retrainable: StudyRecord) -> None:
    first = study_identity(STORAGE, STUDY)
    assert len(first) == 32
    assert study_identity(STORAGE, STUDY) == first
    assert stored(STORAGE, STUDY) == retrainable


def test_studies_of_the_same_name_in_two_databases_differ() -> None:
    for path in ("a.db", "b.db"):
        run_study(1, small_definition(), path=path)
    assert study_identity("a.db", "s") != study_identity("b.db", "s")


def test_a_copy_is_another_study_in_the_mirror_from_when_it_is_mirrored(retrainable: StudyRecord) -> None:
    first = study_identity(STORAGE, STUDY)
    url = f"sqlite:///{STORAGE}"
    optuna.copy_study(from_study_name=STUDY, from_storage=url, to_storage=url, to_study_name="copy")
    second = study_identity(STORAGE, "copy")
    assert len({first, second}) == 2
    assert study_identity(STORAGE, "copy") == second
    assert study_identity(STORAGE, STUDY) == first


@pytest.mark.slow
def test_a_study_that_was_renamed_keeps_its_runs(retrainable: StudyRecord) -> None:
    first = mirror_study(replace(OPTIONS, top=1), Limits(step=SECONDS))
    Pages(STORAGE).rename(STUDY, "final")
    second = mirror_study(replace(OPTIONS, top=1, study="final"), Limits(step=SECONDS))
    assert second.error is None
    assert sorted(second.written) == sorted(first.written)
    found = read_runs(wandb_folder(STORAGE)).values()
    assert {read.run["run_group"] for read in found} == {"final"}


def test_there_is_no_identity_of_a_study_that_is_not_there(retrainable: StudyRecord) -> None:
    with pytest.raises(StorageError, match="no study 'other'"):
        study_identity(STORAGE, "other")
    with pytest.raises(StorageError, match="no study database"):
        study_identity("nowhere.db", STUDY)


def test_runs_lie_with_the_files_of_the_database() -> None:
    assert wandb_folder("some/where.db") == files_folder("some/where.db") / "wandb"


# ---- A stored study --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_study_and_its_retraining_are_mirrored(retrainable: StudyRecord) -> None:
    retrain_curves(top=1, seeds=1, folds=2)
    report = mirror_study(replace(OPTIONS, top=2), Limits(step=SECONDS))
    assert (report.error, report.missing, report.no_login) == (None, [], False)
    found = read_runs(wandb_folder(STORAGE))
    assert set(report.written) == set(report.waiting) == set(found)
    names: dict[str, list[str]] = {}
    for read in found.values():
        names.setdefault(read.run["job_type"], []).append(read.run["display_name"])
    best = sorted(retrainable.trials, key=lambda entry: -(entry.value or 0.0))[:2]
    assert names["study"] == ["s"]
    assert sorted(names["trial"]) == sorted(f"s #{entry.number}" for entry in best)
    assert sorted(names["retraining"]) == [
        f"s #{best[0].number}, {part}, 3 epochs"
        for part in ("fold 1 of 2", "fold 2 of 2", "on all images, seed 1", "retrained, seed 1")
    ]
    (final,) = (read for read in found.values() if "on all images" in read.run["display_name"])
    assert final.summary["test_accuracy"] == pytest.approx(0.8)


# ---- What people read ------------------------------------------------------------------------------------


def test_lines_say_what_was_done_and_what_to_do_next() -> None:
    (line,) = report_lines(REPORT, "storage/mc1opt.db")
    assert line == (
        f"W&B: 3 runs of study cnn mirrored offline, 1 written now. Upload them:  {REPORT.upload_command}"
    )
    assert shlex.split(REPORT.upload_command)[1:] == ["sync", "storage/wandb"]
    (line,) = report_lines(replace(REPORT, mode="online", no_login=True), "storage/mc1opt.db")
    assert "mirrored offline (no login: neither WANDB_API_KEY nor `wandb login`), 1 written now" in line
    (line,) = report_lines(replace(REPORT, waiting=[]), "storage/mc1opt.db")
    assert line.endswith("1 written now. All are uploaded.")
    (line,) = report_lines(replace(REPORT, mode="online", uploaded=["a", "b"], waiting=[]), "s.db")
    assert line == "W&B: 3 runs of study cnn mirrored to the project mc1opt, 2 uploaded now."


def test_what_was_not_mirrored_or_uploaded_is_one_line_with_the_reason() -> None:
    slow = replace(REPORT, mode="online", error="it took longer than 4.5 s")
    (line,) = report_lines(slow, "s.db")
    assert line.startswith("W&B: 3 of 3 runs of study cnn were not uploaded: it took longer than 4.5 s. ")
    assert line.endswith(REPORT.upload_command)
    (line,) = report_lines(replace(slow, missing=["b"]), "s.db")
    assert line == (
        "W&B: 1 of 3 runs of study cnn were not mirrored: it took longer than 4.5 s. The study is not "
        "affected. Try again with:  mc1opt mirror --study cnn --storage s.db"
    )


def test_the_command_that_uploads_is_only_given_where_something_waits() -> None:
    assert REPORT.to_json()["upload_command"] == REPORT.upload_command
    assert replace(REPORT, waiting=[]).to_json()["upload_command"] is None
