"""What is mirrored of a stored study, how long wandb may take for it, and what people are told."""

import json
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from mc1opt.database.location import files_folder
from mc1opt.database.records import StudyRecord
from mc1opt.errors import StorageError
from mc1opt.mirror.command import MirrorReport, study_identity, wandb_folder
from mc1opt.mirror.writer import LOG
from tests.support.command import mc1opt
from tests.support.pages import Pages
from tests.support.retraining import STORAGE, STUDY, retrainable, retrainable_folder
from tests.support.studies import run_study, small_definition, stored
from tests.support.wandb_runs import FOLDER, fake_wandb, mirror, no_account, read_runs, small

__all__ = ["no_account", "retrainable", "retrainable_folder", "small"]

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
    passed_over=["Passed over: 1 trial."],
    upload_command="wandb sync storage/wandb",
)
HANGS_IN_A_RUN = """
import time, pathlib
def Settings(**_): pass
def setup(_): pass
def init(*, dir, id, **_):
    pathlib.Path(dir, "wandb", f"offline-run-1-{id}").mkdir()
    time.sleep(600)
"""


# ---- Identity --------------------------------------------------------------------------------------------


def test_a_study_keeps_its_identity_and_a_copy_gets_another_one(retrainable: StudyRecord) -> None:
    first = study_identity(STORAGE, STUDY)
    assert len(first) == 32
    url = f"sqlite:///{STORAGE}"
    optuna.copy_study(from_study_name=STUDY, from_storage=url, to_storage=url, to_study_name="copy")
    second = study_identity(STORAGE, "copy")
    assert second != first
    assert [study_identity(STORAGE, name) for name in (STUDY, "copy")] == [first, second]
    assert stored(STORAGE, STUDY) == retrainable


def test_studies_of_the_same_name_in_two_databases_differ() -> None:
    for path in ("a.db", "b.db"):
        run_study(1, small_definition(), path=path)
    assert study_identity("a.db", "s") != study_identity("b.db", "s")


def test_there_is_no_identity_of_a_study_that_is_not_there(retrainable: StudyRecord) -> None:
    for storage, study in ((STORAGE, "other"), ("nowhere.db", "any")):
        with pytest.raises(StorageError, match=rf"{study}|nowhere"):
            study_identity(storage, study)


def test_runs_lie_with_the_files_of_the_database() -> None:
    assert wandb_folder("some/where.db") == files_folder("some/where.db") / "wandb"


# ---- A stored study --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_study_that_was_renamed_keeps_its_runs(small: Path) -> None:
    first = mirror("--wandb", "offline")
    Pages("storage/mc1opt.db").rename("small", "final")
    second = mirror("--study", "final", "--wandb", "offline")
    assert sorted(second["written"]) == sorted(first["written"])
    assert {read.run["run_group"] for read in read_runs().values()} == {"final"}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise ImportError('no such library')", "ImportError: no such library"),
        (HANGS_IN_A_RUN, "no progress for 1 s"),
    ],
    ids=["is broken", "hangs in a run"],
)
def test_a_wandb_that_does_not_work_costs_its_limit_and_nothing_else(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, error: str
) -> None:
    fake_wandb(tmp_path, monkeypatch, code)
    report = mirror("--wandb", "offline", "--timeout", "1s", code=1)
    assert error in report["error"]
    assert (len(report["missing"]), report["written"]) == (report["runs"], [])
    assert {path.name for path in FOLDER.iterdir() if path.suffix != ".json"} == {".lock", LOG}


def test_wandb_finds_an_empty_folder_account_and_server_and_prints_to_a_log(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = {"WANDB_API_KEY": "k" * 40, "WANDB_BASE_URL": "http://localhost:1", "WANDB_ENTITY": "us"}
    others = {"WANDB_DIR": "/elsewhere", "WANDB_RUN_ID": "x", "WANDB_MODE": "online", "WANDB_SERVICE": "y"}
    for name, value in (ours | others).items():
        monkeypatch.setenv(name, value)
    (FOLDER / ".mc1opt-scratch/left").mkdir(parents=True)  # by a mirroring that was killed
    seen = "json.dumps({**os.environ, 'files': os.listdir(), 'temporary': tempfile.gettempdir()})"
    fake_wandb(tmp_path, monkeypatch, f"import json, os, tempfile; print({seen}); raise ImportError")
    done = mc1opt("mirror", "--study", "small", "--wandb", "offline")
    assert (done.returncode, done.stdout) == (1, "")
    found = json.loads((FOLDER / LOG).read_text())
    assert ours.items() <= found.items()
    assert not {"WANDB_RUN_ID", "WANDB_MODE", "WANDB_SERVICE"} & found.keys()
    assert found["files"] == []
    assert Path(found["temporary"]) == Path(found["WANDB_DIR"]) != tmp_path
    assert Path(found["temporary"]).parent == FOLDER.absolute()


@pytest.mark.parametrize("place", ["storage/wandb", "storage/wandb/mirror.log"])
def test_a_folder_that_cannot_be_written_is_said(
    small: Path, mc1opt_here, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))  # a mirroring changes both
    monkeypatch.setattr(tempfile, "tempdir", None)
    shutil.rmtree(FOLDER)
    path = Path(place)
    path.parent.mkdir(exist_ok=True)
    path.touch() if path == FOLDER else path.mkdir()
    done = mc1opt_here("mirror", "--study", "small", "--wandb", "offline")
    assert (done.returncode, done.stdout) == (1, "")
    assert str(path.absolute()) in done.stderr
    assert "unexpected" not in done.stderr


# ---- What people read ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ["3 runs", "cnn", "offline", "1 written", "wandb sync storage/wandb"]),
        ({"mode": "online", "no_login": True}, ["offline", "WANDB_API_KEY", "wandb sync storage/wandb"]),
        ({"waiting": [], "upload_command": None}, ["1 written", "uploaded"]),
        ({"mode": "online", "uploaded": ["a", "b"], "waiting": []}, ["project mc1opt", "2 uploaded"]),
        ({"mode": "online", "error": "too slow"}, ["3 of 3 runs", "too slow", "wandb sync storage/wandb"]),
        (
            {"error": "too slow", "missing": ["b"]},
            ["1 of 3 runs", "too slow", "mirror --study cnn --storage s"],
        ),
    ],
)
def test_the_last_line_says_what_was_done_and_what_to_do_next(changes: dict, said: list[str]) -> None:
    passed_over, line = replace(REPORT, **changes).lines("s.db")
    assert passed_over == REPORT.passed_over[0]
    assert line.startswith("W&B: ")
    assert [part for part in said if part not in line] == []
