"""The model to export: a trial with kept weights, or a model folder; and its known accuracy."""

import contextlib
import json
import shlex
import statistics
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mc1opt.config import Config, config_from_json, config_id
from mc1opt.data.model_images import known_data
from mc1opt.database.location import checkpoints_folder, storage_option
from mc1opt.database.ranking import by_expected_accuracy
from mc1opt.database.records import StudyRecord, TrialRecord
from mc1opt.database.studies import read_study
from mc1opt.database.trial_files import kept_weights, weights_path
from mc1opt.dataset import Task
from mc1opt.display.progress import ending, passed_over_lines, shown_value
from mc1opt.errors import ConfigError, ModelError, UsageError
from mc1opt.metric import ACCURACY
from mc1opt.program import program
from mc1opt.spec import Fidelity
from mc1opt.text import plural
from mc1opt.training.model_folder import read_model_folder


@dataclass(frozen=True)
class ExportSource:
    """A trained model that can be exported."""

    title: str
    """For people, such as "trial 7 of study cnn"."""
    quality: str
    """Its known accuracy, such as "validation 0.8012, one seed, not tested"."""
    stem: str
    """Name of the exported files, without their endings."""
    folder: str
    """Name of the folder of the exported files."""
    study: str
    """The study's name; empty if unknown."""
    study_folder: str
    """Name of the folder of the study's files; empty if unknown."""
    weights: Path
    config: Config
    task: Task
    """The images that it takes, and their classes."""
    data: dict[str, str] | None
    """Name and SHA-256 of the training data; None if unknown."""
    fidelity: Fidelity | None
    """Training images and epochs; None if unknown."""
    seed: int | None
    device: str | None = None
    """Where it was trained; None if unknown."""
    precision: str | None = None
    """What it was trained in; None if unknown."""
    accumulation: int = 1
    """Micro-batches per batch, more than 1 where memory was short."""
    class_weights: str | None = None
    """See `mc1opt.spec.Training`."""


def trial_source(
    storage: str, study: str, number: int | None, write: Callable[[str], None] = lambda _line: None
) -> ExportSource:
    """A trial with kept weights.

    Args:
        storage: the study database.
        study: the study's name.
        number: the trial; None for the best of those with kept weights
            (`mc1opt.database.ranking.by_expected_accuracy`).
        write: takes the lines about trials that are passed over.

    Raises:
        UsageError: the study has no finished trial or no such trial, or the trial's weights are not kept.
        StorageError: there is no such study or database.
        ConfigError: a newer mc1opt stored the config.
        ModelError: the kept weights are damaged, or of another training.
    """
    record = read_study(storage, study)
    for line in passed_over_lines(record.trials):
        write(line)
    weights = checkpoints_folder(storage) / record.folder
    kept = kept_weights(weights)
    trial = _best(record, kept.keys()) if number is None else record.own_trial(number)
    finished = {entry.number for entry in record.trials if entry.outcome == "complete"}
    there = sorted(finished & kept.keys())
    others = f"Trials with kept weights: {', '.join(map(str, there))}." if there else "No trial has."
    if trial.outcome != "complete":
        raise UsageError(
            f"trial {trial.number} of study {study!r} was not trained to its end ({ending(trial)}): it has "
            f"no kept weights. {others}"
        )
    if trial.number not in kept or trial.config is None:
        reason = f"a search keeps those of its best trials alone. {others}"
        if not kept and finished:
            reason = _where_weights_are(weights, record, trial, storage)
        raise UsageError(f"trial {trial.number} of study {study!r} has no kept weights: {reason}")
    config = config_from_json(trial.config)
    if _training_of(kept[trial.number]) != (config_id(config), trial.seed):  # whose accuracy is stated
        raise ModelError(
            f"{kept[trial.number]} does not hold the weights of trial {trial.number}: their config or seed "
            "is another. Nothing was exported."
        )
    return ExportSource(
        title=f"trial {trial.number} of study {study}",
        quality=_trial_quality(trial),
        stem=f"trial-{trial.number}",
        folder=record.folder,
        study=study,
        study_folder=record.folder,
        weights=kept[trial.number],
        config=config,
        task=record.task,
        data=record.data,
        fidelity=record.fidelity,
        seed=trial.seed,
        device=trial.device,
        precision=trial.versions.get("precision"),
        accumulation=trial.accumulation,
        class_weights=record.aim.class_weights,
    )


def _where_weights_are(folder: Path, record: StudyRecord, trial: TrialRecord, storage: str) -> str:
    """Why the study's folder holds no weights, and what to do."""
    missing = f"they would be in {folder}, which {'has none' if folder.is_dir() else 'is not there'}."
    for other in sorted(folder.parent.glob(f"*/{weights_path(folder, trial.number).name}")):
        with contextlib.suppress(ModelError):
            if _training_of(other) == (trial.config_id, trial.seed):
                return (
                    f"{missing} {other.parent} has weights of the same config and seed. If this study had "
                    "that name, or was copied from that one, bring them here:\n  "
                    f"cp -r {shlex.quote(str(other.parent))}/. {shlex.quote(str(folder))}"
                )
    study = f"--study {shlex.quote(record.study)} --trial {trial.number}{storage_option(storage)}"
    return (
        f"{missing} Weights lie beside the database that was searched, on the machine that searched it, "
        "unless that was with --keep 0. If this is another place, copy them into that folder. To train the "
        f"config again:\n  {program()} retrain {study}"
    )


def _training_of(path: Path) -> tuple[str, int] | None:
    """Config id and seed that weights were trained with; None if the file does not say.

    Raises:
        ModelError: the file cannot be read, or is damaged.
    """
    from mc1opt.training.tensor_file import TensorFileError, read_tensors

    try:
        metadata = read_tensors(path).metadata
    except OSError as error:
        raise ModelError(f"the kept weights {path} cannot be read: {error.strerror}.") from error
    except TensorFileError as error:
        raise ModelError(f"the kept weights {path} cannot be used: {error}.") from error
    try:
        return config_id(config_from_json(json.loads(metadata["config"]))), int(metadata["seed"])
    except (KeyError, ValueError, ConfigError):
        return None


def _best(record: StudyRecord, kept: Collection[int]) -> TrialRecord:
    ranked = by_expected_accuracy(record.trials)
    if not ranked:
        raise UsageError(
            f"study {record.study!r} has no finished trial, so there is nothing to export. `mc1opt run` goes "
            "on with it."
        )
    return next((trial for trial in ranked if trial.number in kept), ranked[0])


def _trial_quality(trial: TrialRecord) -> str:
    again = [entry["value"] for entry in trial.confirmations if entry["value"] is not None]
    quality = f"validation {shown_value(trial, 4)}, one seed"
    if trial.metric != ACCURACY.name:
        quality = f"validation {trial.metric} {shown_value(trial, 4)}, one seed"
    if again:
        quality += f" ({statistics.fmean(again):.4f} with {plural(len(again), 'other seed')})"
    return f"{quality}, not tested"


def folder_source(path: Path) -> ExportSource:
    """The model of a model folder; its metrics say how it was trained and how accurate it is.

    Raises:
        ModelError: the folder is missing or damaged.
    """
    folder = read_model_folder(path)
    metrics = folder.metrics
    study, seed, data, device, precision = (
        metrics.get(name) for name in ("study", "kept_seed", "data", "device", "precision")
    )
    accumulation = metrics.get("accumulation")
    fidelity = None
    with contextlib.suppress(KeyError, TypeError, ValidationError):
        fidelity = Fidelity(train_images=metrics["train_images"]["final"], epochs=metrics["epochs"])
    return ExportSource(
        title=f"model {path}",
        quality=_folder_quality(metrics),
        stem="model",
        folder=path.resolve().name,
        study=study if isinstance(study, str) else "",
        study_folder=path.resolve().name if path.resolve().parent.name == "models" else "",
        weights=folder.weights,
        config=folder.config,
        task=folder.task,
        data=known_data(data),
        fidelity=fidelity,
        seed=seed if type(seed) is int else None,
        device=device if isinstance(device, str) else None,
        precision=precision if isinstance(precision, str) else None,
        accumulation=accumulation if type(accumulation) is int else 1,
        class_weights="balanced" if metrics.get("class_weights") == "balanced" else None,
    )


def _folder_quality(metrics: dict[str, Any]) -> str:
    """The accuracy that `retrain` measured; a folder of other origin may have none."""
    try:
        test = metrics["test"]
        own = test["by_seed"][str(metrics["kept_seed"])]
        seeds = plural(len(test["by_seed"]), "seed")
        return f"test {own:.4f}, mean of {seeds} {test['mean']:.4f}"
    except (KeyError, TypeError, ValueError):
        return "not tested"
