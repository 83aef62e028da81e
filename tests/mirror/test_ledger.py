"""The folder of mirrored runs: what is there as it shall be, what is not, and who may write."""

import multiprocessing
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from mc1opt.errors import StorageError
from mc1opt.mirror.ledger import (
    Ledger,
    Written,
    is_uploaded,
    locked,
    note_uploads,
    read_ledger,
    remove_unfinished,
    run_folders,
    write_ledger,
)
from mc1opt.mirror.messages import AttachedFile, MirroredRun

IDENTITY = "0123456789abcdef" * 2
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


def written(**changes: object) -> Ledger:
    """A ledger in which `RUN` was written, as it is."""
    fields = {"fingerprint": RUN.fingerprint, "folder": "offline-run-1", "project": "mc1opt"}
    fields |= {"trial": 1, "was_best": True}
    return Ledger(runs={RUN.id: Written(**(fields | changes))})


def make_run_folder(name: str, run_id: str = RUN.id, *, uploaded: bool = False) -> Path:
    folder = Path("wandb") / name
    folder.mkdir(parents=True)
    (folder / f"run-{run_id}.wandb").touch()
    if uploaded:
        (folder / f"run-{run_id}.wandb.synced").touch()
    return folder


def test_a_ledger_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_ledger(tmp_path, IDENTITY, written())
    assert read_ledger(tmp_path, IDENTITY) == written()
    assert read_ledger(tmp_path, "f" * 32) == Ledger()


def test_without_a_ledger_nothing_was_written(tmp_path: Path) -> None:
    assert read_ledger(tmp_path / "nowhere", IDENTITY) == Ledger()


def test_a_damaged_ledger_does_not_tell_what_is_finished(tmp_path: Path) -> None:
    write_ledger(tmp_path, IDENTITY, written())
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text()[:-20])
    damaged = read_ledger(tmp_path, IDENTITY)
    assert damaged.runs == {}
    kept = make_run_folder("offline-run-20260101_000000-cnn-0123456789ab-trial-1")
    remove_unfinished(kept.parent, IDENTITY, damaged)
    assert kept.exists()
    write_ledger(tmp_path, IDENTITY, damaged)
    assert not read_ledger(tmp_path, IDENTITY).whole  # what was lost stays lost


def test_a_ledger_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    write_ledger(tmp_path, IDENTITY, written())
    (file,) = tmp_path.iterdir()
    file.unlink()
    file.mkdir()
    with pytest.raises(OSError, match="directory"):
        read_ledger(tmp_path, IDENTITY)


def test_a_run_is_current_while_it_is_there_or_uploaded() -> None:
    folder = make_run_folder("offline-run-1").parent
    assert written().is_current(folder, "mc1opt", RUN)
    assert not written(folder="offline-run-2").is_current(folder, "mc1opt", RUN)
    assert written(folder="offline-run-2", uploaded=True).is_current(folder, "mc1opt", RUN)
    assert not Ledger().is_current(folder, "mc1opt", RUN)


def test_a_run_that_shall_hold_something_else_is_not_current() -> None:
    folder = make_run_folder("offline-run-1", uploaded=True).parent
    changed = RUN.model_copy(update={"tags": ("left-the-best",)})
    assert not written(uploaded=True).is_current(folder, "mc1opt", changed)


def test_a_run_is_not_current_in_another_project() -> None:
    folder = make_run_folder("offline-run-1", uploaded=True).parent
    assert not written(uploaded=True).is_current(folder, "other", RUN)


def test_an_artifact_that_is_asked_for_must_have_the_files() -> None:
    folder = make_run_folder("offline-run-1").parent
    with_file = RUN.model_copy(update={"files": (AttachedFile(path="/a", sha256="a"),)})
    assert not written().is_current(folder, "mc1opt", with_file)
    assert written(files=["a"]).is_current(folder, "mc1opt", with_file)
    assert written(files=["a"]).is_current(folder, "mc1opt", RUN)
    assert not written(files=["b"]).is_current(folder, "mc1opt", with_file)


def test_the_folders_of_a_run_are_those_with_its_id_alone() -> None:
    first, second = make_run_folder("offline-run-1"), make_run_folder("offline-run-2")
    make_run_folder("offline-run-3", RUN.id + "0")
    assert run_folders(Path("wandb"), RUN.id) == [first, second]
    assert run_folders(Path("nowhere"), RUN.id) == []


def test_what_was_uploaded_is_remembered_when_its_folder_is_gone() -> None:
    ledger = written()
    folder = make_run_folder("offline-run-1")
    note_uploads(folder.parent, ledger)
    assert not is_uploaded(folder)
    assert not ledger.runs[RUN.id].uploaded
    (folder / f"run-{RUN.id}.wandb.synced").touch()
    note_uploads(folder.parent, ledger)
    assert is_uploaded(folder)
    assert ledger.runs[RUN.id].uploaded
    assert ledger.is_current(Path("cleaned"), "mc1opt", RUN)


def test_what_was_begun_for_the_study_is_deleted_and_nothing_else() -> None:
    kept = make_run_folder("offline-run-20260101_000000-cnn-0123456789ab-trial-1")
    begun = make_run_folder("offline-run-20260101_000001-cnn-0123456789ab-trial-1")
    other = make_run_folder("offline-run-20260101_000001-cnn-ffffffffffff-trial-1")
    remove_unfinished(kept.parent, IDENTITY, written(folder=kept.name))
    assert kept.exists()
    assert other.exists()
    assert not begun.exists()


def test_trials_that_were_among_the_best_stay_known() -> None:
    ledger = written()
    ledger.runs["other"] = Written(fingerprint="", project="", folder="", trial=2)
    ledger.runs["study"] = Written(fingerprint="", project="", folder="", was_best=True)
    assert ledger.best_trials == {1}


def hold(folder: Path, begun: Event, end: Event) -> None:
    with locked(folder, 0.0):
        begun.set()
        end.wait(30.0)


def test_one_process_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    begun, end = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, begun, end))
    other.start()
    try:
        assert begun.wait(30.0)
        with pytest.raises(StorageError, match="another process is writing to"), locked(tmp_path, 0.2):
            pass
        end.set()
        with locked(tmp_path, 30.0):
            pass
    finally:
        end.set()
        other.join()


def test_a_folder_that_cannot_be_written_is_said() -> None:
    with pytest.raises(OSError, match="nowhere"), locked(Path("nowhere"), 0.0):
        pass
