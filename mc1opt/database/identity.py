"""A study's files after it was renamed or copied: each study that trains has its own folder.

optuna-dashboard renames a study by copying it and deleting the original; `optuna.copy_study` copies. Both
copy the user attributes, and the folder's name is one of them: a renamed study keeps its files, and a copy
reads the original's until it is resumed.
"""

import itertools
import secrets
import shutil
from typing import TYPE_CHECKING

import optuna

from mc1opt.database import study_attributes
from mc1opt.database.location import STUDY_FOLDERS, files_folder, folder_name
from mc1opt.database.storage import StudyStorage
from mc1opt.database.study_attributes import study_folder_name
from mc1opt.database.trial_files import copy_files
from mc1opt.errors import StorageError

if TYPE_CHECKING:
    from optuna.study._frozen import FrozenStudy


def name_folder(study: optuna.Study, database: StudyStorage) -> None:
    """Gives a new study a folder, with the study's name if that folder is free.

    The caller keeps other processes from creating studies; see `StudyStorage.exclusive`.
    """
    if study_attributes.STUDY_FOLDER not in study.user_attrs:
        study.set_user_attr(study_attributes.STUDY_FOLDER, _free_name(study, database))


def keep_folder(study: optuna.Study) -> None:
    """Stores the folder's name on an older study that lacks it, so that the study can be renamed."""
    if study_attributes.STUDY_FOLDER not in study.user_attrs:
        study.set_user_attr(study_attributes.STUDY_FOLDER, _folder(study))


def make_own(study: optuna.Study, database: StudyStorage) -> None:
    """Gives a copied study its own files before it writes any, so that it does not overwrite the original's.

    Of two studies that share a folder, the older one keeps it. The copy gets the weights and checkpoints of
    its trials, and the records of retrainings and of uses of the test images, but not the retrained model. In
    the mirror it becomes a study of its own.

    Raises:
        StorageError: files cannot be copied.
    """
    if not _originals(study, database):
        return
    with database.exclusive():
        originals = _originals(study, database)
        identity = study.user_attrs.get(study_attributes.STUDY_IDENTITY)
        if identity in {each.user_attrs.get(study_attributes.STUDY_IDENTITY) for each in originals} - {None}:
            study.set_user_attr(study_attributes.STUDY_IDENTITY, secrets.token_hex(16))
        if _folder(study) in map(_folder, originals):
            own = _free_name(study, database)
            _copy(study, database, own)
            # Last: if this process dies earlier, the next start copies again.
            study.set_user_attr(study_attributes.STUDY_FOLDER, own)


def sharing_studies(study: optuna.Study, database: StudyStorage) -> "list[FrozenStudy]":
    """The other studies of the database with the same folder."""
    folder = _folder(study)
    return [each for each in _others(study, database) if _folder(each) == folder]


def _originals(study: optuna.Study, database: StudyStorage) -> "list[FrozenStudy]":
    """The older studies with the same folder, or the same identity in the mirror."""
    folder, identity = _folder(study), study.user_attrs.get(study_attributes.STUDY_IDENTITY)
    return [
        each
        for each in _others(study, database)
        if each._study_id < study._study_id
        and (_folder(each) == folder or each.user_attrs.get(study_attributes.STUDY_IDENTITY, ...) == identity)
    ]


def _others(study: optuna.Study, database: StudyStorage) -> "list[FrozenStudy]":
    return [each for each in database.get_all_studies() if each._study_id != study._study_id]


def _folder(study: "optuna.Study | FrozenStudy") -> str:
    return study_folder_name(study.study_name, study.user_attrs)


def _copy(study: optuna.Study, database: StudyStorage, own: str) -> None:
    files = files_folder(database.place)
    weights, models = files / "checkpoints" / _folder(study), files / "models" / _folder(study)
    try:
        copy_files(weights, files / "checkpoints" / own, len(study.get_trials(deepcopy=False)))
        for record in models.glob("*.jsonl"):
            (files / "models" / own).mkdir(parents=True, exist_ok=True)
            shutil.copy2(record, files / "models" / own)
    except OSError as error:
        raise StorageError(
            f"study {study.study_name!r} is a copy, and the files in {weights} cannot be copied for it: "
            f"{error.strerror or error}. Free disk space, and give the same command again."
        ) from error


def _free_name(study: optuna.Study, database: StudyStorage) -> str:
    """The name of a free folder: no study has it, and it does not exist, for example from a deleted study.

    If `cnn` is taken, `cnn-2`, and so on. Names that differ only in case are equal on some file systems.
    """
    files = files_folder(database.place)
    taken = {_folder(each).casefold() for each in _others(study, database)}
    plain = folder_name(study.study_name, "study")
    numbered = (f"{plain}-{number}" for number in itertools.count(2))
    return next(
        name
        for name in itertools.chain([plain], numbered)
        if name.casefold() not in taken and not any((files / kind / name).exists() for kind in STUDY_FOLDERS)
    )
