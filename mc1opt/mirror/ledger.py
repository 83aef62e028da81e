"""The folder of mirrored runs: which of them are there, and which W&B has.

W&B names a run's folder by the time at which it was written. So that mirroring again adds none, a file for
each study keeps what was written for it.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from mc1opt.errors import StorageError
from mc1opt.mirror.messages import MirroredRun

LOG = "mirror.log"
"""What W&B itself has said in the last mirroring."""
_LOCK = ".mc1opt.lock"
_LOCK_POLL_SECONDS = 0.1


class Written(BaseModel):
    """A run that was written."""

    fingerprint: str
    files: list[str] | None = None
    """SHA-256 of those in its artifact; None if it has none."""
    project: str
    folder: str
    """Its name."""
    trial: int | None = None
    was_best: bool = False
    """Whether its trial was among the best then, or at a mirroring before."""
    uploaded: bool = False


class Ledger(BaseModel):
    """The runs of a study that were written, by id."""

    runs: dict[str, Written] = Field(default_factory=dict)
    project: str | None = None
    """In which the study was mirrored last; None if it never was."""
    whole: bool = True
    """Whether all that was ever written is in here; not so once the file was found damaged."""

    @property
    def best_trials(self) -> frozenset[int]:
        """Trials that are or were among the best when they were mirrored."""
        entries = self.runs.values()
        return frozenset(entry.trial for entry in entries if entry.was_best and entry.trial is not None)

    def is_current(self, folder: Path, project: str, run: MirroredRun) -> bool:
        """Whether a run was written as it shall be, for this project, and is still there or uploaded.

        An artifact that is there and not asked for is no reason to write it again.
        """
        entry = self.runs.get(run.id)
        if entry is None or (entry.fingerprint, entry.project) != (run.fingerprint, project):
            return False
        if run.files and entry.files != [file.sha256 for file in run.files]:
            return False
        return entry.uploaded or (folder / entry.folder).is_dir()


def read_ledger(folder: Path, identity: str) -> Ledger:
    """What was written for a study; nothing where the file is missing or damaged: it is written anew then.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return Ledger.model_validate_json(_ledger_path(folder, identity).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return Ledger()
    except ValidationError:
        return Ledger(whole=False)


def write_ledger(folder: Path, identity: str, ledger: Ledger) -> None:
    """Stores what was written, as a whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    path = _ledger_path(folder, identity)
    new = path.with_suffix(".new")
    with new.open("w") as file:
        file.write(ledger.model_dump_json(indent=1))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _ledger_path(folder: Path, identity: str) -> Path:
    return folder / f".mc1opt-{identity}.json"


def run_folders(folder: Path, run_id: str) -> list[Path]:
    """All folders in which a run lies, offline ones."""
    return sorted(file.parent for file in folder.glob(f"offline-run-*/run-{run_id}.wandb"))


def is_uploaded(run_folder: Path) -> bool:
    """Whether `wandb sync` has left its mark there."""
    return any(run_folder.glob("*.wandb.synced"))


def note_uploads(folder: Path, ledger: Ledger) -> bool:
    """Notes what was uploaded, also by hand: `wandb clean` deletes those folders later.

    Returns:
        Whether there is any that was not noted before.
    """
    new = [
        entry for entry in ledger.runs.values() if not entry.uploaded and is_uploaded(folder / entry.folder)
    ]
    for entry in new:
        entry.uploaded = True
    return bool(new)


def remove_unfinished(folder: Path, identity: str, ledger: Ledger) -> None:
    """Deletes what a mirroring of the study began and did not finish; the folder must be locked.

    Nothing where the ledger is not whole: it does not tell what is finished.
    """
    if not ledger.whole:
        return
    finished = {entry.folder for entry in ledger.runs.values()}
    for path in folder.glob(f"offline-run-*-{short_identity(identity)}-*"):
        if path.name not in finished:
            shutil.rmtree(path, ignore_errors=True)


def short_identity(identity: str) -> str:
    """As much of a study's identity as stands in the ids of its runs."""
    return identity[:12]


@contextlib.contextmanager
def locked(folder: Path, seconds: float) -> Iterator[None]:
    """One process at a time writes to a folder.

    Raises:
        StorageError: another one has done so for longer than `seconds`.
        OSError: the folder cannot be written.
    """
    deadline = time.monotonic() + seconds
    with (folder / _LOCK).open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise StorageError(f"another process is writing to {folder}") from error
                time.sleep(_LOCK_POLL_SECONDS)
        yield
