"""Files attached to trials: stored in a folder, and listed in the study database.

The folder is Optuna's `FileSystemArtifactStore`. Optuna's `upload_artifact` writes to the trial, which is
refused after its end, when there is something to show. optuna-dashboard also reads system attributes of the
study, under the name that it used before Optuna had artifacts; they can be written at any time.

Not here: the content of the files (`mc1opt.dashboard.files`).
"""

import contextlib
import io
import json
import mimetypes
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from mc1opt.database.location import files_folder

_PREFIX = "dashboard:artifacts:"


def artifacts_folder(storage: str) -> Path:
    """The folder of the files of trials."""
    return files_folder(storage) / "artifacts"


def artifact_names(study: optuna.Study) -> dict[int, dict[str, str]]:
    """The names of the files of a study's trials: trial id -> artifact id -> name.

    A copied study also lists the original's files; they are left out.
    """
    names: dict[int, dict[str, str]] = {}
    own = {trial._trial_id for trial in study.get_trials(deepcopy=False)}
    for key, value in study._storage.get_study_system_attrs(study._study_id).items():
        if not key.startswith(_PREFIX):
            continue
        trial_id, _, artifact = key.removeprefix(_PREFIX).partition(":")
        meta = json.loads(value)
        if meta is not None and int(trial_id) in own:  # None: removed
            names.setdefault(int(trial_id), {})[artifact] = meta["filename"]
    return names


def put_artifact(
    study: optuna.Study, folder: Path, trial_id: int, artifact: str, name: str, content: bytes
) -> None:
    """Attaches a file to a trial in any state.

    Args:
        study: the trial's study.
        folder: see `artifacts_folder`.
        trial_id: the trial's id in the database, not its number.
        artifact: the file's id, a UUID; a file with this id is replaced.
        name: the file's name for people; its extension gives the type.
        content: the file's bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    FileSystemArtifactStore(folder).write(artifact, io.BytesIO(content))
    mimetype, encoding = mimetypes.guess_type(name)
    meta = {
        "artifact_id": artifact,
        "filename": name,
        "mimetype": mimetype or "application/octet-stream",
        "encoding": encoding,
    }
    _write(study, trial_id, artifact, meta)


def remove_artifact(study: optuna.Study, folder: Path, trial_id: int, artifact: str) -> None:
    """Removes a file from a trial; it is no error if the file is missing or cannot be deleted."""
    _write(study, trial_id, artifact, None)
    with contextlib.suppress(ArtifactNotFound, OSError):
        FileSystemArtifactStore(folder).remove(artifact)


def remove_artifacts(study: optuna.Study, folder: Path) -> None:
    """Removes all files of a study's trials."""
    for trial_id, artifacts in artifact_names(study).items():
        for artifact in artifacts:
            remove_artifact(study, folder, trial_id, artifact)


def _write(study: optuna.Study, trial_id: int, artifact: str, meta: dict[str, str | None] | None) -> None:
    key = f"{_PREFIX}{trial_id}:{artifact}"
    study._storage.set_study_system_attr(study._study_id, key, json.dumps(meta))
