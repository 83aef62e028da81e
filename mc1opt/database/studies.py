"""What there is: study definitions, stored studies; reading one and deleting one."""

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from mc1opt.database import records
from mc1opt.database.artifacts import artifacts_folder, remove_artifacts
from mc1opt.database.identity import make_own, sharing_studies
from mc1opt.database.location import checkpoints_folder, sqlite_path, storage_url
from mc1opt.database.opening import open_storage
from mc1opt.database.ownership import is_dead
from mc1opt.database.records import StudyRecord, study_record
from mc1opt.database.storage import StudyStorage
from mc1opt.display.progress import plural
from mc1opt.errors import StorageError, UsageError
from mc1opt.search.definition import list_definitions, load_definition
from mc1opt.search.study import load_study


@dataclass(frozen=True)
class DefinitionEntry:
    """A study definition."""

    name: str
    path: str
    description: str


@dataclass(frozen=True)
class StudyEntry:
    """A stored study."""

    name: str
    definition: str | None
    """None for a study of another program, which a database may hold besides."""
    trials: int
    complete: int
    best: float | None
    passed_over: int = 0
    """Trials that are not mc1opt's in a study that is (`mc1opt.database.records.foreign`)."""


@dataclass(frozen=True)
class Catalogue:
    """All definitions, and all stored studies of a database."""

    definitions: list[DefinitionEntry]
    studies: list[StudyEntry]

    def to_json(self) -> dict[str, Any]:
        """As `studies --json` prints it."""
        return asdict(self)


def catalogue(storage: str) -> Catalogue:
    """Lists definitions and stored studies; a database that does not exist holds no study."""
    definitions = []
    for name, path in list_definitions().items():
        try:
            description = load_definition(str(path)).description
        except UsageError as error:
            description = f"cannot be used: {error}"
        definitions.append(DefinitionEntry(name, str(path), description))
    file = sqlite_path(storage_url(storage))
    if file is not None and not file.exists():
        return Catalogue(definitions, [])
    database = open_storage(storage, create=False)
    studies = []
    for summary in database.get_all_studies():
        study = load_study(database, summary.study_name)
        trials = study.get_trials(deepcopy=False)
        definition = summary.user_attrs.get(records.STUDY_DEFINITION)
        own = trials if definition is None else records.own_trials(study)
        best = records.best_trial(own) if definition is not None else None
        studies.append(
            StudyEntry(
                summary.study_name,
                definition,
                len(trials),
                sum(trial.state == TrialState.COMPLETE for trial in own),
                best.value if best else None,
                len(trials) - len(own),
            )
        )
    return Catalogue(definitions, studies)


def catalogue_lines(found: Catalogue) -> list[str]:
    """The catalogue as text."""
    lines = ["Study definitions (mc1opt run --study NAME):"]
    width = max(len(entry.name) for entry in found.definitions)
    lines += [f"  {entry.name:<{width}}  {entry.description}  ({entry.path})" for entry in found.definitions]
    if not found.studies:
        return [*lines, "", "No stored studies yet."]
    lines += ["", "Stored studies (mc1opt show --study NAME):"]
    width = max(len(entry.name) for entry in found.studies)
    for entry in found.studies:
        best = f", best {entry.best:.3f}" if entry.best is not None else ""
        foreign = " (not one of mc1opt's)" if entry.definition is None else ""
        counts = f"{plural(entry.trials, 'trial')}, {entry.complete} complete"
        if entry.passed_over:
            counts += f", {entry.passed_over} passed over: not mc1opt's"
        lines.append(f"  {entry.name:<{width}}  {counts}{best}{foreign}")
    return lines


def read_study(storage: str, name: str, trial: int | None = None) -> StudyRecord:
    """The record of a stored study, with all trials or only one of them.

    Raises:
        StorageError: there is no such database or study, or it is another program's, with several objectives.
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
    """Prepares a stored study for new files of it; see `mc1opt.database.identity.make_own`.

    Raises:
        StorageError: there is no such database or study, or files cannot be copied.
    """
    database = open_storage(storage, create=False)
    try:
        study = load_study(database, name)
        if records.STUDY_DEFINITION in study.user_attrs:  # else it is another program's
            make_own(study, database)
    finally:
        database.remove_session()
        database.engine.dispose()


@dataclass(frozen=True)
class StudyToDelete:
    """A stored study that is about to be deleted."""

    database: StudyStorage
    storage: str
    name: str
    trials: int
    folder: str
    """The name of the folder of its files."""


def open_for_deletion(storage: str, name: str) -> StudyToDelete:
    """Looks whether a stored study can be deleted.

    Raises:
        StorageError: there is no such study, or a process is training its trials.
    """
    database = open_storage(storage, create=False)
    study = load_study(database, name)
    trials = study.get_trials(deepcopy=False)
    _refuse_if_running(name, trials)
    folder = records.study_folder_name(name, study.user_attrs)
    return StudyToDelete(database, storage, name, len(trials), folder)


def _refuse_if_running(name: str, trials: Sequence[FrozenTrial]) -> None:
    """Refuses where a process of this machine trains trials, or trains them again with new seeds."""
    own = [trial for trial in trials if not records.foreign(trial)]
    owners = [trial.user_attrs[records.OWNER] for trial in own if trial.state == TrialState.RUNNING]
    owners += [claim["owner"] for trial in own for claim in trial.user_attrs.get(records.CONFIRMING, [])]
    for owner in owners:
        if owner is not None and is_dead(owner) is False:
            raise StorageError(
                f"study {name!r} is being run by process {owner['pid']} on {owner['host']}; stop it first."
            )


def delete_study(victim: StudyToDelete) -> list[str]:
    """Deletes a study's trials, their files and kept weights.

    Returns:
        The studies that share its weights, a copy or its original: for them these stay.

    Raises:
        StorageError: a process has begun to train its trials meanwhile.
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
