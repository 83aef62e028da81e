"""Files that belong to trials: they lie in a folder, and the study database says whose they are.

The folder is Optuna's `FileSystemArtifactStore`. Optuna's own `upload_artifact` writes to the trial, which it
refuses once the trial has ended, and only then there is something to show. optuna-dashboard also takes what
the study's system attributes say of a trial, under the name that it used itself before Optuna had artifacts;
they can be written at any time, and it reads them anew for each page.

Not here: what the files are (`mc1opt.dashboard.files`).
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
    """Where the files of trials are."""
    return files_folder(storage) / "artifacts"


def artifact_names(study: optuna.Study) -> dict[int, dict[str, str]]:
    """The names of the files of a study's trials: trial id -> id of the artifact -> name.

    A copy of a study says as well whose the original's files are: with those it has nothing to do.
    """
    names: dict[int, dict[str, str]] = {}
    own = {trial._trial_id for trial in study.get_trials(deepcopy=False)}
    for key, value in study._storage.get_study_system_attrs(study._study_id).items():
        if not key.startswith(_PREFIX):
            continue
        trial_id, _, artifact = key.removeprefix(_PREFIX).partition(":")
        meta = json.loads(value)
        if meta is not None and int(trial_id) in own:  # None is one that was taken away
            names.setdefault(int(trial_id), {})[artifact] = meta["filename"]
    return names


def put_artifact(
    study: optuna.Study, folder: Path, trial_id: int, artifact: str, name: str, content: bytes
) -> None:
    """Keeps a file of a trial, whatever state the trial is in.

    Args:
        study: the study.
        folder: see `artifacts_folder`.
        trial_id: of the database, not the trial's number.
        artifact: the file's id, a UUID; the same one again replaces it.
        name: what people see; its extension says what it is.
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
    """Takes a file away from a trial; one that is gone already, or cannot be deleted, is no error."""
    _write(study, trial_id, artifact, None)
    with contextlib.suppress(ArtifactNotFound, OSError):
        FileSystemArtifactStore(folder).remove(artifact)


def remove_artifacts(study: optuna.Study, folder: Path) -> None:
    """Takes away all files of a study's trials."""
    for trial_id, artifacts in artifact_names(study).items():
        for artifact in artifacts:
            remove_artifact(study, folder, trial_id, artifact)


def _write(study: optuna.Study, trial_id: int, artifact: str, meta: dict[str, str | None] | None) -> None:
    key = f"{_PREFIX}{trial_id}:{artifact}"
    study._storage.set_study_system_attr(study._study_id, key, json.dumps(meta))
