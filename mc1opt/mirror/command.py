"""`mc1opt mirror`: a stored study mirrored in W&B by this process, within limits, and what people are told.

Not here: when a search or a retraining is mirrored (`mc1opt.mirror.observer`).
"""

import os
import secrets
import shlex
import shutil
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from mc1opt.database import study_attributes
from mc1opt.database.identity import keep_folder, make_own
from mc1opt.database.location import checkpoints_folder, files_folder, models_folder, storage_option
from mc1opt.database.opening import load_study, open_storage
from mc1opt.database.records import StudyRecord
from mc1opt.database.studies import read_study
from mc1opt.database.trial_files import kept_weights
from mc1opt.display.progress import passed_over_lines
from mc1opt.errors import StorageError, UsageError
from mc1opt.files import exclusive
from mc1opt.measurement.final_test import stored_accuracies
from mc1opt.measurement.store import TRAININGS, StoredTraining, TrainingStore
from mc1opt.mirror.ledger import Ledger
from mc1opt.mirror.runs import TOP, AttachedFile, MirroredRun, Retrained, mirrored_runs
from mc1opt.mirror.writer import Mirroring, Mode, surroundings
from mc1opt.program import program
from mc1opt.text import plural
from mc1opt.training.model_folder import CARD, METRICS, WEIGHTS, file_sha256

PROJECT = "mc1opt"
"""Where a study is mirrored first, unless another project is given."""
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class MirrorCommand:
    """What is mirrored, and where to."""

    study: str
    storage: str
    mode: Mode
    project: str | None = None
    """None for the project that the study was mirrored to last, or `PROJECT`."""
    top: int = TOP
    everything: bool = False
    """Pruned and failed trials as well."""
    artifacts: bool = False
    """Curves and models as well."""
    step_seconds: float = 60.0
    """Seconds without progress, a run written or uploaded, until it gives up."""
    parent: int | None = None
    """The id of the parent process with which it ends; None where it goes on without one."""


@dataclass(frozen=True)
class MirrorReport:
    """What a mirroring has done, as `mirror --json` prints it."""

    study: str
    project: str
    mode: Mode
    folder: str
    runs: int
    """How many runs W&B shall hold."""
    written: list[str]
    """Ids of the runs that were written now."""
    uploaded: list[str]
    """Ids of those that were uploaded now."""
    missing: list[str]
    """Ids of those that are not written as they shall be."""
    waiting: list[str]
    """Ids of those that are written and not uploaded."""
    no_login: bool
    """Whether it stayed offline for want of a login."""
    error: str | None
    """Why runs are missing or waiting; None if all went well."""
    passed_over: list[str]
    """Lines that say which trials are not mc1opt's, and are not mirrored."""
    upload_command: str | None
    """Uploads the runs that wait, to copy; None where none waits."""

    def lines(self, storage: str) -> list[str]:
        """The report for people; the last line says what was done, and what to do next."""
        return [*self.passed_over, f"W&B: {self._line(storage)}"]

    def _line(self, storage: str) -> str:
        runs = f"{plural(self.runs, 'run')} of study {self.study}"
        upload = f"Upload them:  {self.upload_command}"
        if self.missing:
            failed = f"{len(self.missing)} of {runs} were not mirrored: {self.error}"
            return f"{failed}. {try_again(self.study, storage)}"
        if self.error is not None:
            failed = f"{len(self.waiting)} of {runs} were not uploaded: {self.error}"
            return f"{failed}. They are kept. {upload}"
        if self.mode == "online" and not self.no_login:
            return f"{runs} mirrored to the project {self.project}, {len(self.uploaded)} uploaded now."
        why = " (no login: neither WANDB_API_KEY nor `wandb login`)" if self.no_login else ""
        next_step = upload if self.waiting else "All are uploaded."
        return f"{runs} mirrored offline{why}, {len(self.written)} written now. {next_step}"


def try_again(study: str, storage: str) -> str:
    """What is said where something was not mirrored."""
    command = f"{program()} mirror --study {shlex.quote(study)}{storage_option(storage)}"
    return f"The study is not affected. Try again with:  {command}"


def mirror_study(command: MirrorCommand) -> MirrorReport:
    """Mirrors a stored study, in this process, which must end with `kill_children` and `os._exit`.

    Raises:
        StorageError: there is no such database or study, what retrainings have stored cannot be read, or the
            folder cannot be written.
        UsageError: another process is writing to the folder, for longer than `step_seconds`.
    """
    identity = study_identity(command.storage, command.study)
    record = read_study(command.storage, command.study)
    folder = wandb_folder(command.storage).absolute()
    with ExitStack() as stack:
        _lock(stack, folder, command.step_seconds)
        try:
            ledger = Ledger.read(folder, identity)
            ledger.note_uploads()
            ledger.project = command.project or ledger.project or PROJECT
            mirroring = Mirroring(study_runs(command, record, identity, ledger), ledger, command.mode)
            with surroundings(folder):
                uploaded, reason = _carry_out(mirroring, command)
        except OSError as error:
            raise StorageError(f"{error.filename or folder} cannot be used: {error.strerror}.") from error
        ledger.tidy()
        with suppress(OSError):  # uploads are marked in their folders as well
            ledger.save()
        waiting = list(ledger.waiting())
        return MirrorReport(
            study=command.study,
            project=ledger.project,
            mode=command.mode,
            folder=str(wandb_folder(command.storage)),
            runs=len(mirroring.runs),
            written=mirroring.written,
            uploaded=uploaded,
            missing=[run.id for run in mirroring.runs if not ledger.is_current(run)],
            waiting=waiting,
            no_login=mirroring.no_login,
            error=reason,
            passed_over=passed_over_lines(record.trials),
            upload_command=_upload_command(command.storage) if waiting else None,
        )


def study_identity(storage: str, study: str) -> str:
    """A random id, stored with the study when it is first mirrored.

    Optuna stores nothing that tells a study from one of the same name in another database, whose mirror must
    not overwrite this one. A copy of a study gets another one.

    Raises:
        StorageError: there is no such study.
    """
    database = open_storage(storage, create=False)
    try:
        stored = load_study(database, study)
        make_own(stored, database)
        keep_folder(stored)  # its retrainings are found again when it is renamed
        if study_attributes.STUDY_IDENTITY not in stored.user_attrs:
            with database.exclusive():
                if study_attributes.STUDY_IDENTITY not in stored.user_attrs:
                    stored.set_user_attr(study_attributes.STUDY_IDENTITY, secrets.token_hex(16))
        return str(stored.user_attrs[study_attributes.STUDY_IDENTITY])
    finally:
        database.remove_session()
        database.engine.dispose()


def wandb_folder(storage: str) -> Path:
    """Where mirrored runs are."""
    return files_folder(storage) / "wandb"


def _lock(stack: ExitStack, folder: Path, seconds: float) -> None:
    """Holds the folder, waiting for another mirroring to end."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return stack.enter_context(exclusive(folder, f"another process is writing to {folder}."))
        except UsageError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(POLL_SECONDS)


def _carry_out(mirroring: Mirroring, command: MirrorCommand) -> tuple[list[str], str | None]:
    """Lets a mirroring run while it makes progress.

    Returns:
        The ids of the runs that were uploaded, and why not all was done.
    """
    thread = threading.Thread(target=mirroring.run, name="wandb", daemon=True)
    thread.start()
    uploaded: list[str] = []
    done, since = 0, time.monotonic()
    try:
        while True:
            thread.join(POLL_SECONDS)
            is_alive = thread.is_alive()  # before the look, or the last uploads would be missed
            uploaded += mirroring.ledger.note_uploads()
            if not is_alive:
                return uploaded, mirroring.error
            if len(mirroring.written) + len(uploaded) > done:
                done, since = len(mirroring.written) + len(uploaded), time.monotonic()
            elif time.monotonic() - since >= command.step_seconds:
                return uploaded, f"there was no progress for {command.step_seconds:g} s"
            if command.parent is not None and os.getppid() != command.parent:
                return uploaded, "its parent process has ended"
    except KeyboardInterrupt:
        return uploaded, "it was stopped"


def study_runs(
    command: MirrorCommand, record: StudyRecord, identity: str, ledger: Ledger
) -> list[MirroredRun]:
    """What W&B shall hold: from the study's record, and from what retrainings have stored.

    Raises:
        StorageError: the latter cannot be read.
    """
    folder = models_folder(command.storage, record.folder)
    tested = stored_accuracies(folder)
    model = _attached(folder, WEIGHTS, METRICS, CARD) if command.artifacts else ()

    def files(stored: StoredTraining) -> tuple[AttachedFile, ...] | None:
        if not command.artifacts:
            return None
        return model if model and model[0].sha256 == stored.weights_sha256 else ()

    kept = kept_weights(checkpoints_folder(command.storage) / record.folder) if command.artifacts else {}
    weights = {number: _attached(path.parent, path.name) for number, path in kept.items()}
    trainings = TrainingStore(folder / TRAININGS)
    return mirrored_runs(
        record,
        identity,
        top=command.top,
        everything=command.everything,
        best_before=ledger.best_trials,
        retrained=[Retrained(stored, tested(stored), files(stored)) for stored in trainings],
        weights=weights if command.artifacts else None,
        prefix=ledger.prefix,
    )


def _attached(folder: Path, *names: str) -> tuple[AttachedFile, ...]:
    """Those files of a folder that exist."""
    paths = [(folder / name).absolute() for name in names]
    return tuple(AttachedFile(path=str(path), sha256=file_sha256(path)) for path in paths if path.is_file())


def _upload_command(storage: str) -> str:
    """`wandb` by its bare name where a shell finds the one beside this Python."""
    ours = Path(sys.executable).with_name("wandb")
    found = shutil.which("wandb")
    is_found = found is not None and (not ours.exists() or Path(found).samefile(ours))
    wandb = str(ours) if ours.exists() and not is_found else "wandb"
    return shlex.join([wandb, "sync", str(wandb_folder(storage))])
