"""The kept weights of the best trials: where they lie, and which ones go."""

import contextlib
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

_NAME = re.compile(r"trial-(\d+)\.safetensors")


def study_folder(parent: Path, study: str) -> Path:
    """The folder of a study below `parent`, whatever characters the study's name has."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", study).strip(".-")[:60]
    if plain and plain == study:
        return parent / study
    return parent / f"{plain or 'study'}-{hashlib.sha256(study.encode()).hexdigest()[:8]}"


def weights_path(folder: Path, number: int) -> Path:
    """Where the weights of a trial lie."""
    return folder / f"trial-{number:05d}.safetensors"


def keep_best_weights(folder: Path, trials: Iterable[FrozenTrial], keep: int) -> None:
    """Deletes the weights of completed trials but for the `keep` best; those of running trials stay."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    complete.sort(key=lambda trial: (-(trial.value or 0.0), trial.number))
    for trial in complete[keep:]:
        # A file that cannot be deleted costs disk, not results.
        with contextlib.suppress(OSError):
            weights_path(folder, trial.number).unlink(missing_ok=True)


def kept_weights(folder: Path) -> dict[int, Path]:
    """The kept weights by trial number."""
    found = {}
    for path in sorted(folder.glob("trial-*.safetensors")):
        match = _NAME.fullmatch(path.name)
        if match:
            found[int(match.group(1))] = path
    return found
