"""A model on the test images: accuracy with its interval, by class, calibration, confusions.

The opening of the test images is recorded beside the study's models.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from mc1opt.calibration import BINS, expected_calibration_error
from mc1opt.data.model_images import check_same_task, model_data
from mc1opt.data.test_log import OPENINGS, past_openings
from mc1opt.database.location import files_folder, folder_name
from mc1opt.inference.export_record import EXPORTS, RECORD, export_record, recorded_hashes
from mc1opt.inference.open_model import OpenModel, open_model
from mc1opt.metric import LABELS
from mc1opt.metric_functions import NAMED
from mc1opt.text import plural
from mc1opt.training.model_folder import file_sha256

MOST_COLUMNS = 20
"""Of a confusion matrix as text; of more classes only the worst are listed."""
NORMAL_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Evaluation:
    """A model's results on test images."""

    model: str
    data: str
    images: int
    accuracy: float
    interval: tuple[float, float]
    """95 %, by Wilson's method: over the choice of test images, not over seeds."""
    by_class: dict[str, float | None]
    """Accuracy by class; None for a class without images."""
    calibration_error: float
    confusion: list[list[int]]
    """Images by true class (row) and decision (column)."""
    opened_before: int
    """Openings of the test images that were recorded before this one."""
    labels: tuple[str, ...]
    """The names of the classes, in the order of rows and columns."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The other known metrics by name."""

    def to_json(self) -> dict[str, Any]:
        """As `evaluate --json` prints it."""
        return {**self.__dict__, "interval": list(self.interval), "labels": list(self.labels)}


def evaluate(path: Path, data_path: Path | None, *, storage: str, output: TextIO | None) -> Evaluation:
    """Evaluates a model on the test images.

    Args:
        path: a model folder or an exported file.
        data_path: files of images; None for the data set that it was trained on, or CIFAR-10 if unknown.
        storage: the study database, beside which models and exports lie.
        output: where a download is shown; None for nowhere.

    Raises:
        ModelError: the model cannot be opened, or its probabilities are not finite.
        DataError: the images are missing or damaged.
    """
    from mc1opt.data.images import open_test_images
    from mc1opt.training.accuracy import confusion_matrix

    opened = open_model(path, export_record(storage))
    data = model_data(f"model {path}", opened.data, data_path, output)
    check_same_task(f"model {path}", opened.task, opened.data, data)
    record = openings_record(opened, storage)
    before = len(past_openings(record, data))
    images, labels = open_test_images(data, f"evaluate model {path}", record, "cpu")
    probabilities = opened.probabilities(images.numpy())
    truth = labels.numpy()
    decisions = probabilities.argmax(axis=1)
    # Logarithms of probabilities are logits; those that float32 has rounded to 0 are not infinite.
    logits = np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny))
    confusion = confusion_matrix(truth, decisions, data.classes)
    correct = int(confusion.trace())
    counts = confusion.sum(axis=1)
    return Evaluation(
        model=str(path),
        data=data.name,
        images=len(truth),
        accuracy=correct / len(truth),
        interval=wilson_interval(correct, len(truth)),
        by_class={
            name: float(confusion[i, i] / counts[i]) if counts[i] else None
            for i, name in enumerate(opened.task.class_names)
        },
        calibration_error=expected_calibration_error(probabilities, truth),
        confusion=confusion.tolist(),
        opened_before=before,
        labels=opened.task.class_names,
        metrics={name: metric(logits, truth) for name, metric in NAMED.items() if name != "accuracy"},
    )


def openings_record(model: OpenModel, storage: str) -> Path:
    """Where openings of the test images for this model are recorded.

    For a model folder, in it. For an exported file, in the folder of its study's models, so that all openings
    for a study are counted together; the study is that of the database whose record of exports has the file:
    `storage`, or the one in whose folder of exports the file lies. For a file in neither record, beside it,
    because another database may have a study of that name.
    """
    if model.format == "folder":
        return model.path / OPENINGS
    sha256 = file_sha256(model.path)
    for files in (files_folder(storage), model.path.resolve().parent.parent.parent):
        known = recorded_hashes(files / EXPORTS / RECORD, model.format)
        if model.study and sha256 in known:
            folder = known[sha256] or folder_name(model.study, "study")
            return files / "models" / folder / OPENINGS
    return model.path.parent / OPENINGS


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927), which is right also near 0 and 1.

    Raises:
        ValueError: there are no images.
    """
    if not 0 <= correct <= count or count == 0:
        raise ValueError(f"{correct} of {count} is no share")
    share, z2 = correct / count, NORMAL_95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = NORMAL_95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def evaluation_lines(result: Evaluation) -> list[str]:
    """The evaluation as text."""
    low, high = result.interval
    before = result.opened_before
    times = f"opened {plural(before, 'time')} before" if before else "opened for the first time"
    return [
        f"{result.model} on the {result.images:,} test images of {result.data} ({times})",
        f"accuracy           {result.accuracy:.4f}, 95 % interval {low:.4f} to {high:.4f}",
        *(f"{LABELS[name]:<17}  {value:.4f}" for name, value in result.metrics.items()),
        f"calibration error  {result.calibration_error:.4f} ({BINS} bins)",
        "",
        *confusion_lines(result.confusion, result.labels),
    ]


def confusion_lines(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> list[str]:
    """A confusion matrix as text: rows are true classes, each with its accuracy, columns decisions.

    Of more than `MOST_COLUMNS` classes, the least accurate ones and the most frequent confusions instead.
    """
    shares = [row[index] / sum(row) if sum(row) else None for index, row in enumerate(confusion)]
    if len(names) > MOST_COLUMNS:
        return _worst_lines(confusion, names, shares)
    first = max(10, *map(len, names))
    width = max(5, *(len(str(count)) for row in confusion for count in row))
    columns = " ".join(f"{name[:width]:>{width}}" for name in names)
    lines = ["accuracy by class; images by true class (row) and decision (column):"]
    lines.append(f"{'':<{first}}  accuracy  {columns}")
    for name, row, share in zip(names, confusion, shares, strict=True):
        counts = " ".join(f"{count:>{width}}" for count in row)
        lines.append(f"{name:<{first}}  {'-' if share is None else f'{share:.4f}':>8}  {counts}")
    return lines


def _worst_lines(
    confusion: Sequence[Sequence[int]], names: Sequence[str], shares: Sequence[float | None]
) -> list[str]:
    known = sorted((share, name) for share, name in zip(shares, names, strict=True) if share is not None)
    mistakes = sorted(
        (-count, names[true], names[decision])
        for true, row in enumerate(confusion)
        for decision, count in enumerate(row)
        if count and true != decision
    )
    return [
        f"the least accurate of {len(names)} classes:",
        *(f"  {name}  {share:.4f}" for share, name in known[:MOST_COLUMNS]),
        "the most frequent confusions, as true class > decision:",
        *(f"  {true} > {decision}  {-count}" for count, true, decision in mistakes[:MOST_COLUMNS]),
    ]
