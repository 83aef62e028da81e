"""Paths and deletion of trials' files: kept weights of the best, and checkpoints of running trials.

Not here: the content of the files (the training).
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from mc1opt.database import records
from mc1opt.database.location import folder_name
from mc1opt.database.ownership import is_dead
from mc1opt.database.ranking import by_expected_accuracy
from mc1opt.database.records import by_value
from mc1opt.files import delete

_WEIGHTS = re.compile(r"trial-(\d+)\.safetensors")
_CHECKPOINT = re.compile(r"trial-(\d+)(?:-again-(\d+))?\.checkpoint")
_UNFINISHED = re.compile(r"\.(.+)\.\d+\.tmp")
"""An unfinished file of a killed process: the file's name and the process id."""


def study_folder(parent: Path, study: str) -> Path:
    """The folder of a study below `parent`, for any study name."""
    return parent / folder_name(study, "study")


def weights_path(folder: Path, number: int) -> Path:
    """The path of a trial's weights."""
    return folder / f"trial-{number:05d}.safetensors"


def checkpoint_path(folder: Path, number: int) -> Path:
    """The path of the checkpoint of a running or interrupted trial."""
    return folder / f"trial-{number:05d}.checkpoint"


def confirmation_checkpoint_path(folder: Path, number: int, seed: int) -> Path:
    """The path of the checkpoint of a confirmation."""
    return folder / f"trial-{number:05d}-again-{seed}.checkpoint"


def keep_best_weights(folder: Path, trials: Iterable[FrozenTrial], keep: int) -> None:
    """Deletes the weights of complete trials except the best.

    The best are the `keep` first by value and the `keep` first by expected accuracy: a confirmed trial must
    not lose its weights to trials that were lucky once.
    """
    complete = [records.trial_record(trial) for trial in trials if records.outcome(trial) == "complete"]
    best = {
        trial.number
        for ranked in (by_value(complete), by_expected_accuracy(complete))
        for trial in ranked[:keep]
    }
    for trial in complete:
        if trial.number not in best:
            delete(weights_path(folder, trial.number))


def kept_weights(folder: Path) -> dict[int, Path]:
    """The kept weights by trial number."""
    found = {}
    for path in sorted(folder.glob("trial-*.safetensors")):
        match = _WEIGHTS.fullmatch(path.name)
        if match:
            found[int(match.group(1))] = path
    return found


def tidy(folder: Path, trials: Sequence[FrozenTrial], keep: int) -> None:
    """Deletes the leftovers of killed processes: files of ended trials, and partly written files.

    Files of foreign trials stay: a newer mc1opt may have written them.

    Args:
        folder: the study's folder; it need not exist.
        trials: all trials of the study, by number.
        keep: see `keep_best_weights`.
    """
    for path in folder.glob("*") if folder.is_dir() else ():
        unfinished = _UNFINISHED.fullmatch(path.name)
        name = unfinished.group(1) if unfinished else path.name
        if (match := _WEIGHTS.fullmatch(name) or _CHECKPOINT.fullmatch(name)) is None:
            continue
        number = int(match.group(1))
        if (
            number < len(trials)
            and not records.foreign(trials[number])
            and _is_left(trials[number], match, unfinished is not None)
        ):
            delete(path)
    keep_best_weights(folder, trials, keep)


def copy_files(source: Path, target: Path, trials: int) -> None:
    """Copies trials' files of a study to the folder of its copy.

    Uses hard links if the file system has them: these files are replaced as a whole, never changed. Files
    that another process deletes meanwhile are left out.

    Args:
        source: the original's folder; it need not exist.
        target: the copy's folder; it must not exist.
        trials: number of trials of the copy; files of later trials are left out.

    Raises:
        OSError: a file cannot be copied.
    """
    for path in source.glob("trial-*"):
        match = _WEIGHTS.fullmatch(path.name) or _CHECKPOINT.fullmatch(path.name)
        if match is None or int(match.group(1)) >= trials:
            continue
        target.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            try:
                os.link(path, target / path.name)
            except OSError:
                shutil.copy2(path, target / path.name)


def _is_left(trial: FrozenTrial, name: re.Match[str], unfinished: bool) -> bool:
    """Whether a trial's file is of no use; an unfinished file, if nobody trains the trial."""
    if unfinished:
        return trial.state != TrialState.RUNNING and not _is_claimed(trial, name)
    if not trial.state.is_finished():
        return False
    if name.re is _WEIGHTS:
        return trial.state != TrialState.COMPLETE
    seed = name.group(2)
    return seed is None or int(seed) in {
        confirmation["seed"] for confirmation in trial.user_attrs.get(records.CONFIRMATIONS, [])
    }


def _is_claimed(trial: FrozenTrial, name: re.Match[str]) -> bool:
    """Whether a process that may be alive trains the confirmation of this checkpoint."""
    seed = name.group(2) if name.re is _CHECKPOINT else None
    return any(
        str(claim["seed"]) == seed and is_dead(claim["owner"]) is not True
        for claim in trial.user_attrs.get(records.CONFIRMING, [])
    )
