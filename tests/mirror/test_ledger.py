"""The folder of mirrored runs: what is there as it shall be, and what is not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mc1opt.mirror.ledger import Ledger, Written
from mc1opt.mirror.runs import AttachedFile, MirroredRun

IDENTITY = "0123456789abcdef" * 2
FOLDER = Path("wandb")
RUN = MirroredRun(
    id="cnn-0123456789ab-trial-1",
    name="cnn #1",
    group="cnn",
    job_type="trial",
    tags=("best",),
    config={"batch_size": 32},
    axis="epoch",
    history=({"epoch": 1, "loss": 0.5},),
    summary={"value": 0.5},
    trial=1,
    is_best=True,
)
WITH_FILE = replace(RUN, files=(AttachedFile(path="/a", sha256="a"),))


def ledger_of(project: str = "mc1opt", **changes: object) -> Ledger:
    """A ledger in which `RUN` was written, as it is."""
    FOLDER.mkdir(exist_ok=True)
    ledger = Ledger.read(FOLDER, IDENTITY)
    fields: dict[str, Any] = {"fingerprint": RUN.fingerprint, "folder": "offline-run-1", "project": "mc1opt"}
    ledger.runs[RUN.id] = Written(**(fields | {"trial": 1, "was_best": True} | changes))
    ledger.project = project
    return ledger


def make_run_folder(name: str) -> Path:
    folder = FOLDER / name
    folder.mkdir(parents=True)
    return folder


def test_a_ledger_comes_back_as_it_was_saved() -> None:
    ledger_of().save()
    assert Ledger.read(FOLDER, IDENTITY).runs == ledger_of().runs
    assert Ledger.read(FOLDER, "f" * 32).runs == {}


def test_a_damaged_ledger_does_not_tell_what_is_finished() -> None:
    ledger_of().save()
    (file,) = FOLDER.iterdir()
    file.write_text(file.read_text()[:-20])
    damaged = Ledger.read(FOLDER, IDENTITY)
    assert damaged.runs == {}
    kept = make_run_folder("offline-run-20260101_000000-cnn-0123456789ab-trial-1")
    damaged.tidy()
    assert kept.exists()
    damaged.save()
    assert not Ledger.read(FOLDER, IDENTITY).whole  # what was lost stays lost


@pytest.mark.parametrize(
    ("ledger", "run", "is_current"),
    [
        ({}, RUN, True),
        ({"folder": "gone"}, RUN, False),
        ({"folder": "gone", "uploaded": True}, RUN, True),
        ({"uploaded": True}, replace(RUN, tags=("left-the-best",)), False),
        ({"uploaded": True}, replace(RUN, id="another"), False),
        ({"uploaded": True, "project": "other"}, RUN, False),
        ({}, WITH_FILE, False),
        ({"files": ["a"]}, WITH_FILE, True),
        ({"files": ["b"]}, WITH_FILE, False),
        ({"files": ["a"]}, RUN, True),
    ],
)
def test_a_run_is_current_if_it_is_there_or_uploaded_as_it_shall_be(
    ledger: dict[str, Any], run: MirroredRun, is_current: bool
) -> None:
    make_run_folder("offline-run-1")
    assert ledger_of(**ledger).is_current(run) == is_current


def test_what_was_uploaded_is_remembered_when_its_folder_is_gone() -> None:
    ledger = ledger_of()
    folder = make_run_folder("offline-run-1")
    assert (ledger.note_uploads(), ledger.waiting()) == ([], {RUN.id: folder})
    (folder / f"run-{RUN.id}.wandb.synced").touch()
    assert (ledger.note_uploads(), ledger.waiting()) == ([RUN.id], {})
    assert ledger.note_uploads() == []
    folder.rename("cleaned")
    assert ledger.is_current(RUN)


def test_what_was_begun_for_the_study_is_deleted_and_nothing_else() -> None:
    kept, begun, other = (
        make_run_folder(f"offline-run-2026010{day}_000000-cnn-{identity}-trial-1")
        for day, identity in ((1, IDENTITY[:12]), (2, IDENTITY[:12]), (3, "f" * 12))
    )
    ledger_of(folder=kept.name).tidy()
    assert set(FOLDER.iterdir()) == {kept, other}
    assert not begun.exists()


def test_trials_that_were_among_the_best_stay_known_and_so_does_the_name_in_the_ids() -> None:
    ledger = ledger_of()
    assert ledger.prefix == "cnn"
    ledger.runs["other"] = Written(fingerprint="", project="", folder="", trial=2)
    ledger.runs["study"] = Written(fingerprint="", project="", folder="", was_best=True)
    assert ledger.best_trials == {1}
