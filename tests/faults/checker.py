"""After a fault, and after the same command has gone on: what must hold whatever happened, in one place."""

import math
import os
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mc1opt.config import config_from_json
from mc1opt.database.location import files_folder
from mc1opt.database.records import StudyRecord, TrialRecord
from mc1opt.database.studies import read_study
from mc1opt.database.trial_files import kept_weights, study_folder
from mc1opt.display.tables import study_lines, trial_lines
from mc1opt.spec import Training
from mc1opt.training.tensor_file import read_tensors
from tests.support.curves import curve
from tests.support.studies import DATA, counted

STORAGE = "storage/mc1opt.db"
END_SECONDS = 15.0
"""Within so long a killed command's processes must be gone; threefold what it takes."""

TEMPORARY = ("*.tmp", "*.new", "*-journal", "*-wal", "*-shm", ".fetching-*", "*.checkpoint")
"""Names of what is only there while something is written or trained."""


def processes_of(folder: Path) -> list[int]:
    """The processes that a test has started, and all that those have: by the cache that it gave them.

    A zombie has no environment any more; it is as good as gone. Needs /proc.
    """
    mark = f"MC1OPT_DATA={folder / 'cache'}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile, or is somebody else's
            continue
        if mark in environment and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def wait_for_processes(folder: Path, seconds: float = END_SECONDS) -> list[int]:
    """Waits until no process of the test is left; those that are left nevertheless."""
    deadline = time.monotonic() + seconds
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


@dataclass(frozen=True)
class Expected:
    """What a study must have in the end."""

    trials: int
    """Its total: so many trials count, however many processes trained."""
    on_curves: bool = True
    """Whether the workers trained learning curves, so that every value is known."""
    keep: int = 5


def check(folder: Path, name: str, expected: Expected, storage: str = STORAGE) -> StudyRecord:
    """Holds all invariants against a study that has ended; its record."""
    assert wait_for_processes(folder) == []
    _check_database(Path(storage))
    record = read_study(storage, name)
    _check_trials(record)
    assert len(counted(record)) == expected.trials
    if expected.on_curves:
        for trial in record.trials:
            assert trial.values_by_epoch == true_curve(trial, record)[: len(trial.values_by_epoch)]
    _check_files(record, files_folder(storage), expected)
    assert study_lines(record)
    assert all(trial_lines(trial) for trial in record.trials)
    return record


def _check_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def _check_trials(record: StudyRecord) -> None:
    assert [trial.number for trial in record.trials] == list(range(len(record.trials)))
    # The command has ended: nobody trains any more, and nothing waits.
    ends = Counter(trial.outcome for trial in record.trials)
    assert not ends.keys() & {"running", "waiting"}
    assert record.fidelity is not None
    for trial in record.trials:
        assert all(math.isfinite(value) for value in trial.values_by_epoch)
        if trial.outcome == "complete":
            assert len(trial.values_by_epoch) == record.fidelity.all_epochs
            assert trial.value == trial.values_by_epoch[-1]
        elif trial.outcome == "pruned":
            assert 0 < len(trial.values_by_epoch) < record.fidelity.epochs
        elif trial.outcome == "failed":
            assert trial.failure is not None
        else:
            assert trial.values_by_epoch == []


def true_curve(trial: TrialRecord, record: StudyRecord) -> list[float]:
    """The accuracies that the learning curves give for a trial's config and seed."""
    if trial.config is None or trial.seed is None:
        return []
    assert record.fidelity is not None
    training = Training(
        config=config_from_json(trial.config), fidelity=record.fidelity, seed=trial.seed, data=DATA
    )
    return [result.accuracy for result in curve(training)]


def _check_files(record: StudyRecord, folder: Path, expected: Expected) -> None:
    left = [str(path) for pattern in TEMPORARY for path in folder.rglob(pattern)]
    assert left == []
    complete = [trial for trial in record.trials if trial.outcome == "complete"]
    complete.sort(key=lambda trial: (-(trial.value or 0.0), trial.number))
    kept = kept_weights(study_folder(folder / "checkpoints", record.study))
    assert set(kept) == {trial.number for trial in complete[: expected.keep]}
    for path in kept.values():
        # Reading compares the checksum; the curves' stand-ins for weights have none.
        assert read_tensors(path, checksum_required=not expected.on_curves).tensors
