"""Reads and deletes stored studies."""

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from mc1opt.database import records, study_attributes
from mc1opt.database.artifacts import artifacts_folder, remove_artifacts
from mc1opt.database.identity import keep_folder, make_own, sharing_studies
from mc1opt.database.location import checkpoints_folder
from mc1opt.database.opening import load_study, open_storage
from mc1opt.database.ownership import is_dead
from mc1opt.database.records import StudyRecord, study_record
from mc1opt.database.storage import StudyStorage
from mc1opt.errors import StorageError


def read_study(storage: str, name: str, trial: int | None = None) -> StudyRecord:
    """The record of a stored study, with all trials or only one.

    Raises:
        StorageError: there is no such database or study, or the study has several objectives.
        UsageError: the study has no such trial.
    """
    study = load_study(open_storage(storage, create=False), name)
    if len(study.directions) > 1:
        raise StorageError(
            f"study {name!r} is not one of mc1opt's: it has {len(study.directions)} objectives."
        )
    record = study_record(study)
    if trial is None:
        return record
    return dataclasses.replace(record, trials=[record.trial(trial)])


def claim_study(storage: str, name: str) -> None:
    """Prepares a stored study for new files: gives it a folder of its own, which survives a renaming.

    Raises:
        StorageError: there is no such database or study, or files cannot be copied.
    """
    database = open_storage(storage, create=False)
    try:
        study = load_study(database, name)
        if study_attributes.STUDY_DEFINITION in study.user_attrs:  # else another program's study
            make_own(study, database)
            keep_folder(study)
    finally:
        database.remove_session()
        database.engine.dispose()


@dataclass(frozen=True)
class StudyToDelete:
    """A stored study to delete."""

    database: StudyStorage
    storage: str
    name: str
    trials: int
    folder: str
    """See `mc1opt.database.study_attributes.study_folder_name`."""


def open_for_deletion(storage: str, name: str) -> StudyToDelete:
    """Checks that a stored study can be deleted.

    Raises:
        StorageError: there is no such study, or a process is training its trials.
    """
    database = open_storage(storage, create=False)
    study = load_study(database, name)
    trials = study.get_trials(deepcopy=False)
    _refuse_if_running(name, trials)
    folder = study_attributes.study_folder_name(name, study.user_attrs)
    return StudyToDelete(database, storage, name, len(trials), folder)


def _refuse_if_running(name: str, trials: Sequence[FrozenTrial]) -> None:
    """Raises StorageError if a process of this machine trains or confirms trials."""
    own = [trial for trial in trials if not records.foreign(trial)]
    owners = [trial.user_attrs[records.OWNER] for trial in own if trial.state == TrialState.RUNNING]
    owners += [claim["owner"] for trial in own for claim in trial.user_attrs.get(records.CONFIRMING, [])]
    for owner in owners:
        if owner is not None and is_dead(owner) is False:
            raise StorageError(
                f"study {name!r} is being run by process {owner['pid']} on {owner['host']}; stop it first."
            )


def delete_study(victim: StudyToDelete) -> list[str]:
    """Deletes a study with its trials, their files and kept weights.

    Returns:
        The names of studies that share its weights, copies or its original, for which the weights are kept.

    Raises:
        StorageError: a process has meanwhile begun to train its trials.
    """
    study = load_study(victim.database, victim.name)
    _refuse_if_running(victim.name, study.get_trials(deepcopy=False))
    with victim.database.writing_study_attributes_together():
        remove_artifacts(study, artifacts_folder(victim.storage))
    sharing = [each.study_name for each in sharing_studies(study, victim.database)]
    optuna.delete_study(study_name=victim.name, storage=victim.database)
    if not sharing:
        shutil.rmtree(checkpoints_folder(victim.storage) / victim.folder, ignore_errors=True)
    return sharing
