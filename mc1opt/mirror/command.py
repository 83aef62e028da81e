"""Mirroring a stored study: what, where to, and what people are told of it.

Not here: when a search or a retraining mirrors (`mc1opt.mirror.observer`).
"""

import contextlib
import secrets
import shlex
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mc1opt.database import records
from mc1opt.database.identity import make_own
from mc1opt.database.location import checkpoints_folder, files_folder, models_folder, storage_option
from mc1opt.database.opening import load_study, open_storage
from mc1opt.database.records import StudyRecord
from mc1opt.database.studies import read_study
from mc1opt.database.trial_files import kept_weights
from mc1opt.display.progress import passed_over_lines
from mc1opt.errors import StorageError
from mc1opt.measurement.final_test import stored_accuracies
from mc1opt.measurement.store import TRAININGS, StoredTraining, TrainingStore
from mc1opt.mirror.ledger import (
    Ledger,
    is_uploaded,
    locked,
    read_ledger,
    remove_unfinished,
    short_identity,
)
from mc1opt.mirror.messages import AttachedFile, MirroredRun, MirrorTask, Mode
from mc1opt.mirror.process import Limits, MirrorOutcome, MirrorProcess
from mc1opt.mirror.runs import Retrained, Selection, mirrored_runs
from mc1opt.program import program
from mc1opt.text import plural
from mc1opt.training.model_folder import CARD, METRICS, WEIGHTS, file_sha256

TOP = 5
"""Trials, if nobody says how many."""
PROJECT = "mc1opt"
STEP_SECONDS = 60.0
"""What each step of a mirroring may take, a run or an upload, where nobody waits or somebody asked for it."""


@dataclass(frozen=True)
class MirrorOptions:
    """What is mirrored, and where to."""

    study: str
    storage: str
    mode: Mode
    project: str | None = None
    """None is where the study was mirrored last, or PROJECT."""
    top: int = TOP
    everything: bool = False
    """Pruned and failed trials as well."""
    artifacts: bool = False
    """Curves and models, too."""


@dataclass(frozen=True)
class MirrorReport:
    """What came of a mirroring."""

    study: str
    project: str
    mode: Mode
    folder: str
    runs: int
    """That the study has in the mirror."""
    written: list[str]
    """Ids of the runs that were written now."""
    uploaded: list[str]
    """Ids of those that were uploaded now."""
    missing: list[str]
    """Ids of those that are not there as they shall be."""
    waiting: list[str]
    """Ids of those that are there, and not uploaded."""
    no_login: bool
    """Whether it stayed offline for want of a login."""
    error: str | None
    """Why something is missing, or waits; None if all went well."""
    passed_over: list[str] = field(default_factory=list)
    """Lines that say which trials are not mc1opt's, and are not mirrored."""

    @property
    def upload_command(self) -> str:
        """What uploads the runs that wait, to copy."""
        return f"{_wandb_program()} sync {shlex.quote(self.folder)}"

    def to_json(self) -> dict[str, Any]:
        """As `mirror --json` prints it."""
        return asdict(self) | {"upload_command": self.upload_command if self.waiting else None}


def wandb_folder(storage: str) -> Path:
    """Where mirrored runs are."""
    return files_folder(storage) / "wandb"


def study_identity(storage: str, study: str) -> str:
    """A random id, stored with the study when it is first mirrored, and the same ever after.

    Optuna stores nothing of the kind, not even the time at which a study was made; and its name may be given
    in another database, whose mirror must not overwrite this one. A copy of a study gets another one.

    Raises:
        StorageError: there is no such study.
    """
    database = open_storage(storage, create=False)
    try:
        stored = load_study(database, study)
        make_own(stored, database)
        if records.STUDY_IDENTITY not in stored.user_attrs:
            with database.exclusive():
                if records.STUDY_IDENTITY not in stored.user_attrs:
                    stored.set_user_attr(records.STUDY_IDENTITY, secrets.token_hex(16))
        return str(stored.user_attrs[records.STUDY_IDENTITY])
    finally:
        database.remove_session()
        database.engine.dispose()


def mirror_study(options: MirrorOptions, limits: Limits) -> MirrorReport:
    """Mirrors a stored study, and waits for that, within limits.

    Raises:
        StorageError: there is no such database or study.
    """
    identity = study_identity(options.storage, options.study)
    record = read_study(options.storage, options.study)
    mirroring = Mirroring(options, record, identity, limits)
    try:
        return mirroring.finish()
    finally:
        mirroring.kill()


class Mirroring:
    """A mirroring of a study in progress.

    Args:
        options: what is mirrored.
        record: the study as it is now.
        identity: see `study_identity`.
        limits: when it is given up.

    Raises:
        StorageError: what retrainings have stored cannot be read.
        OSError: a process cannot be started.
    """

    def __init__(self, options: MirrorOptions, record: StudyRecord, identity: str, limits: Limits) -> None:
        self._options = options
        self._identity = identity
        self._folder = wandb_folder(options.storage)
        ledger = read_ledger(self._folder, identity)
        self._project = options.project or ledger.project or PROJECT
        self._passed_over = passed_over_lines(record.trials)
        self._runs = _runs(options, record, identity, ledger)
        task = MirrorTask(
            folder=str(self._folder.absolute()),
            identity=identity,
            project=self._project,
            mode=options.mode,
            runs=tuple(self._runs),
        )
        self._process = MirrorProcess(task, limits)

    def poll(self) -> MirrorReport | None:
        """What came of it, once it has ended; None while it works. Does not wait."""
        outcome = self._process.poll()
        return None if outcome is None else self._report(outcome)

    def finish(self) -> MirrorReport:
        """Waits for its end, which comes at its limit at the latest."""
        return self._report(self._process.finish())

    def kill(self) -> None:
        """Ends it at once. Safe to repeat."""
        self._process.kill()

    def _report(self, outcome: MirrorOutcome) -> MirrorReport:
        ledger = read_ledger(self._folder, self._identity)
        if outcome.error is not None:
            self._tidy(ledger)
        there = {run_id: self._folder / entry.folder for run_id, entry in ledger.runs.items()}
        project = self._project
        missing = [run.id for run in self._runs if not ledger.is_current(self._folder, project, run)]
        return MirrorReport(
            study=self._options.study,
            project=project,
            mode=self._options.mode,
            folder=str(self._folder),
            runs=len(self._runs),
            written=outcome.written,
            uploaded=outcome.uploaded,
            missing=missing,
            waiting=[name for name, place in there.items() if place.is_dir() and not is_uploaded(place)],
            no_login=outcome.no_login,
            error=outcome.error,
            passed_over=self._passed_over,
        )

    def _tidy(self, ledger: Ledger) -> None:
        """Deletes the run that a process was writing when it was ended: it would be uploaded as it is."""
        with contextlib.suppress(OSError, StorageError), locked(self._folder, 0.0):
            remove_unfinished(self._folder, self._identity, ledger)


def _runs(options: MirrorOptions, record: StudyRecord, identity: str, ledger: Ledger) -> list[MirroredRun]:
    """What W&B shall hold: from the study's record, and from what retrainings have stored."""
    selection = Selection(options.top, options.everything, ledger.best_trials)
    called = next((run_id.partition(f"-{short_identity(identity)}-")[0] for run_id in ledger.runs), None)
    trainings, weights = _retrained(options, record), _weights(options, record)
    return mirrored_runs(record, identity, selection, trainings, weights, called=called)


def _retrained(options: MirrorOptions, record: StudyRecord) -> list[Retrained]:
    folder = models_folder(options.storage, record.folder)
    tested = stored_accuracies(folder)
    model = _attached(folder, (WEIGHTS, METRICS, CARD)) if options.artifacts else ()

    def files(stored: StoredTraining) -> tuple[AttachedFile, ...] | None:
        if not options.artifacts:
            return None
        return model if model and model[0].sha256 == stored.weights_sha256 else ()

    trainings = TrainingStore(folder / TRAININGS)
    return [Retrained(stored, tested(stored), files(stored)) for stored in trainings]


def _weights(options: MirrorOptions, record: StudyRecord) -> dict[int, tuple[AttachedFile, ...]] | None:
    """The kept weights of trials, by number; None where they are not asked for."""
    if not options.artifacts:
        return None
    kept = kept_weights(checkpoints_folder(options.storage) / record.folder)
    return {number: _attached(path.parent, (path.name,)) for number, path in kept.items()}


def _attached(folder: Path, names: tuple[str, ...]) -> tuple[AttachedFile, ...]:
    """Files of a folder, as far as they are there."""
    paths = [(folder / name).absolute() for name in names]
    return tuple(AttachedFile(path=str(path), sha256=file_sha256(path)) for path in paths if path.is_file())


# ---- Lines -----------------------------------------------------------------------------------------------


def report_lines(report: MirrorReport, storage: str) -> list[str]:
    """What a mirroring has done, and what to do next: one line."""
    runs = f"{plural(report.runs, 'run')} of study {report.study}"
    upload = f"Upload them:  {report.upload_command}"
    if report.missing:
        again = f"{program()} mirror --study {shlex.quote(report.study)}{storage_option(storage)}"
        return [
            f"W&B: {len(report.missing)} of {runs} were not mirrored: {report.error}. The study is not "
            f"affected. Try again with:  {again}"
        ]
    if report.error is not None:
        left = f"{len(report.waiting)} of {runs} were not uploaded: {report.error}"
        return [f"W&B: {left}. They are kept. {upload}"]
    if report.mode == "online" and not report.no_login:
        uploaded = f"{len(report.uploaded)} uploaded now"
        return [f"W&B: {runs} mirrored to the project {report.project}, {uploaded}."]
    why = " (no login: neither WANDB_API_KEY nor `wandb login`)" if report.no_login else ""
    next_step = upload if report.waiting else "All are uploaded."
    return [f"W&B: {runs} mirrored offline{why}, {len(report.written)} written now. {next_step}"]


def warning_line(reason: str, options: MirrorOptions) -> str:
    """What is said where a mirroring could not begin."""
    command = f"{program()} mirror --study {shlex.quote(options.study)}{storage_option(options.storage)}"
    return (
        f"W&B: nothing was mirrored, because {reason.rstrip('.')}. The study is not affected. Try again "
        f"with:  {command}"
    )


def _wandb_program() -> str:
    """How `wandb` is called from a shell: by its bare name where that is the one beside this Python."""
    ours = Path(sys.executable).with_name("wandb")
    found = shutil.which("wandb")
    if found is not None and (not ours.exists() or Path(found).samefile(ours)):
        return "wandb"
    return shlex.quote(str(ours)) if ours.exists() else "wandb"
