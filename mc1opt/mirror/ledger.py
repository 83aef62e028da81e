"""The folder of mirrored runs: which of them are there, and which W&B has.

W&B names a run's folder by the time at which it was written. So that mirroring again adds none, a file for
each study lists what was written for it.
"""

import shutil
from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, PrivateAttr, ValidationError

from mc1opt.files import write_whole
from mc1opt.mirror.runs import MirroredRun, short_identity


class Written(BaseModel):
    """A run that was written."""

    fingerprint: str
    files: list[str] | None = None
    """SHA-256 of the files in its artifact; None for no artifact."""
    project: str
    folder: str
    """The folder's name."""
    trial: int | None = None
    was_best: bool = False
    """Whether its trial was among the best, then or at an earlier mirroring."""
    uploaded: bool = False


class Ledger(BaseModel):
    """The runs of a study that were written, by id. Only the process that holds the folder's lock has one."""

    runs: dict[str, Written] = Field(default_factory=dict)
    project: str | None = None
    """In which the study was mirrored last; None if it never was."""
    whole: bool = True
    """False once the file was found damaged: it may lack runs that were written."""
    _path: Path = PrivateAttr()
    _identity: str = PrivateAttr()

    @classmethod
    def read(cls, folder: Path, identity: str) -> Self:
        """The ledger of a study; empty if the file is missing or damaged.

        Raises:
            OSError: it cannot be read.
        """
        path = folder / f".mc1opt-{identity}.json"
        try:
            ledger = cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            ledger = cls()
        except ValidationError:
            ledger = cls(whole=False)
        ledger._path, ledger._identity = path, identity
        return ledger

    def save(self) -> None:
        """Stores the ledger, as a whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        write_whole(self._path, self.model_dump_json(indent=1).encode())

    @property
    def folder(self) -> Path:
        """Where the runs lie."""
        return self._path.parent

    @property
    def best_trials(self) -> frozenset[int]:
        """Trials that were among the best when they were mirrored."""
        entries = self.runs.values()
        return frozenset(entry.trial for entry in entries if entry.was_best and entry.trial is not None)

    @property
    def prefix(self) -> str | None:
        """What the ids of the runs begin with: the study's name at its first mirroring; None for no runs."""
        return next(
            (run_id.partition(f"-{short_identity(self._identity)}-")[0] for run_id in self.runs), None
        )

    def is_current(self, run: MirroredRun) -> bool:
        """Whether a run was written as it is, for the ledger's project, and is still there or uploaded.

        An artifact that is there and not asked for is no reason to write it again.
        """
        entry = self.runs.get(run.id)
        if entry is None or (entry.fingerprint, entry.project) != (run.fingerprint, self.project):
            return False
        if run.files and entry.files != [file.sha256 for file in run.files]:
            return False
        return entry.uploaded or (self.folder / entry.folder).is_dir()

    def waiting(self) -> dict[str, Path]:
        """The folders of the runs that are there and not uploaded, by id."""
        places = {
            run_id: self.folder / entry.folder for run_id, entry in self.runs.items() if not entry.uploaded
        }
        return {run_id: place for run_id, place in places.items() if place.is_dir()}

    def note_uploads(self) -> list[str]:
        """Notes which runs `wandb sync` has uploaded, since `wandb clean` deletes their folders later.

        Returns:
            The ids of those that were not noted before.
        """
        new = [run_id for run_id, place in self.waiting().items() if any(place.glob("*.wandb.synced"))]
        for run_id in new:
            self.runs[run_id].uploaded = True
        return new

    def tidy(self) -> None:
        """Deletes what a mirroring of the study left unfinished: `wandb sync` would upload it as it is.

        Keeps all runs where the ledger is not whole, as it does not tell which are finished.
        """
        finished = {entry.folder for entry in self.runs.values()}
        for path in self.folder.glob(f"offline-run-*-{short_identity(self._identity)}-*"):
            if self.whole and path.name not in finished:
                shutil.rmtree(path, ignore_errors=True)
