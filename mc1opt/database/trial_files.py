"""Files of a study's trials: the kept weights of the best ones, and the checkpoints of those in training.

Where they lie, and which ones go. What is in them is the training's business.
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
"""What a killed process was writing: the file's name, and the process's number."""


def study_folder(parent: Path, study: str) -> Path:
    """The folder of a study below `parent`, whatever characters the study's name has."""
    return parent / folder_name(study, "study")


def weights_path(folder: Path, number: int) -> Path:
    """Where the weights of a trial lie."""
    return folder / f"trial-{number:05d}.safetensors"


def checkpoint_path(folder: Path, number: int) -> Path:
    """Where the checkpoint of a trial lies while it is in training, or waits to go on."""
    return folder / f"trial-{number:05d}.checkpoint"


def confirmation_checkpoint_path(folder: Path, number: int, seed: int) -> Path:
    """Where the checkpoint lies while a trial's config is trained again with a new seed."""
    return folder / f"trial-{number:05d}-again-{seed}.checkpoint"


def keep_best_weights(folder: Path, trials: Iterable[FrozenTrial], keep: int) -> None:
    """Deletes the weights of completed trials but for the best; those of running trials stay.

    The best are the `keep` with the highest values, and the `keep` that promise most: one that new trainings
    have confirmed is not to lose its weights to others that were lucky once.
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
    """Deletes what killed processes have left: files of trials that have ended, and files written by half.

    Files of trials that are passed over stay: a newer mc1opt may have written them.

    Args:
        folder: the study's; it need not exist.
        trials: all of the study, in the order of their numbers.
        keep: how many of the best completed trials keep their weights.
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
    """Gives a copy of a study what the folder of the original has of its trials.

    By links where the file system has them: these files are written as a whole under another name, and never
    changed. What another process deletes meanwhile is left out.

    Args:
        source: the original's folder; it need not exist.
        target: the copy's; it must not exist.
        trials: how many the copy has. What the original has trained since is not the copy's.

    Raises:
        OSError: they cannot be copied.
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
    """Whether a trial's file is of no use: for one that is being written, that is known if nobody trains."""
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
    """Whether a process that may live trains the trial's config again, with the seed of this checkpoint."""
    seed = name.group(2) if name.re is _CHECKPOINT else None
    return any(
        str(claim["seed"]) == seed and is_dead(claim["owner"]) is not True
        for claim in trial.user_attrs.get(records.CONFIRMING, [])
    )
