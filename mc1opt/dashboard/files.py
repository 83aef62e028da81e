"""The files that the dashboard shows with a trial: making them and keeping them up to date.

Each of the best trials has its learning curve, history and config; a retrained one also has its results on
the test images. A trial that leaves the best loses its files, which can be made again from the database.
"""

import csv
import io
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from mc1opt import __version__
from mc1opt.database.artifacts import artifact_names, put_artifact, remove_artifact
from mc1opt.database.records import TrialRecord
from mc1opt.display.pictures import confusion_picture, learning_curve_picture, misclassified_picture
from mc1opt.metric import ACCURACY, Metric

NAMESPACE = uuid.UUID("6d633170-7400-5000-8000-6172746966cc")
"""Namespace of the artifacts' ids."""


@dataclass(frozen=True)
class TrialFile:
    """A file that belongs to a trial."""

    name: str
    source: Any
    """What it is made from, as JSON; the file is made again only when this changes."""
    make: Callable[[], bytes]


def trial_files(trial: TrialRecord, metric: Metric = ACCURACY) -> list[TrialFile]:
    """Learning curve, history and config of a complete trial, whose values are of this metric."""
    curve = [trial.values_by_epoch, trial.losses]
    if not metric.is_accuracy:
        curve.append(trial.accuracies)
    title = f"Trial #{trial.number}" + ("" if trial.value is None else f": {trial.value:.4f}")
    files = [
        TrialFile(
            "learning_curve.png",
            [title, curve],
            lambda: learning_curve_picture(title, trial.values_by_epoch, trial.losses, metric.label),
        ),
        TrialFile("history.csv", curve, lambda: history_csv(trial)),
    ]
    if trial.config is not None:
        content = json.dumps(trial.config, indent=2) + "\n"
        files.append(TrialFile("config.json", content, content.encode))
    return files


def retraining_files(metrics: Mapping[str, Any], misclassified: Path) -> list[TrialFile]:
    """Results of a retrained trial on the test images: confusion matrix and misclassified images.

    Args:
        metrics: of the model folder.
        misclassified: the file of misclassified images; need not exist.
    """
    confusion, names = metrics["test"]["confusion"], list(metrics["test"]["by_class"])
    accuracy = sum(row[index] for index, row in enumerate(confusion)) / sum(map(sum, confusion))
    title = f"Test images, retrained model: accuracy {accuracy:.4f}"
    files = [
        TrialFile(
            "confusion_matrix.png", [title, confusion], lambda: confusion_picture(title, confusion, names)
        )
    ]
    if misclassified.is_file():
        # The file's name contains the hash of the weights.
        files.append(
            TrialFile("misclassified.png", misclassified.name, lambda: _misclassified(misclassified, names))
        )
    return files


def _misclassified(path: Path, names: Sequence[str]) -> bytes:
    with np.load(path, allow_pickle=False) as kept:
        return misclassified_picture(
            "Test images that the retrained model misclassifies",
            kept["images"],
            kept["labels"],
            kept["decisions"],
            names,
        )


def history_csv(trial: TrialRecord) -> bytes:
    """Epoch (from 1), training loss (empty if not stored), value, and accuracy if that is another one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    beside = trial.metric != ACCURACY.name
    names = ["epoch", "training_loss", f"validation_{trial.metric}"]
    writer.writerow([*names, "validation_accuracy"] if beside else names)
    for epoch, value in enumerate(trial.values_by_epoch):
        loss, accuracy = (
            each[epoch] if epoch < len(each) else "" for each in (trial.losses, trial.accuracies)
        )
        writer.writerow([epoch + 1, loss, value, accuracy] if beside else [epoch + 1, loss, value])
    return text.getvalue().encode()


def keep_files(study: optuna.Study, folder: Path, wanted: Mapping[int, Sequence[TrialFile]]) -> None:
    """Makes the wanted files of a study's trials that are missing, and removes all others.

    Args:
        study: the study.
        folder: see `mc1opt.database.artifacts.artifacts_folder`.
        wanted: files by the trial's id in the database.
    """
    stored = artifact_names(study)
    for trial_id, files in wanted.items():
        for file in files:
            artifact = _artifact_id(study.study_name, trial_id, file)
            known = stored.get(trial_id, {}).pop(artifact, None)
            if known is None or not (folder / artifact).is_file():
                put_artifact(study, folder, trial_id, artifact, file.name, file.make())
    for trial_id, others in stored.items():
        for artifact in others:
            remove_artifact(study, folder, trial_id, artifact)


def _artifact_id(study: str, trial_id: int, file: TrialFile) -> str:
    """The same id for the same source: an update recognises existing files without drawing them."""
    source = json.dumps([study, trial_id, file.name, file.source, __version__])
    return str(uuid.uuid5(NAMESPACE, source))
