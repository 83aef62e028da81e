"""The one look at the test images, at the end of a retraining or of a preset's training.

Results are stored: the same weights are not tested again.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, NonNegativeInt, ValidationError, field_validator

from mc1opt.calibration import Bin, Probabilities, probabilities, reliability
from mc1opt.config import Config
from mc1opt.data.test_log import OPENINGS, past_openings
from mc1opt.dataset import DataSet, DataShape
from mc1opt.errors import ModelError, StorageError, describe_validation_error
from mc1opt.files import append_line, read_lines
from mc1opt.measurement.plan import Job
from mc1opt.measurement.store import StoredTraining
from mc1opt.metric import ACCURACY, Metric
from mc1opt.metric_functions import NAMED, Logits, metric_function
from mc1opt.spec import INFERENCE_BATCH, Device
from mc1opt.text import plural
from mc1opt.training.model_folder import weights_model
from mc1opt.uncertainty import Spread, spread

if TYPE_CHECKING:
    from torch import Tensor

RESULTS = "test_results.jsonl"
"""A line for each model: its training, weights, confusions, and [index, decision] of each wrong image."""

Confusion = list[list[int]]
"""Images by true class (row) and decision (column)."""
Decisions = NDArray[np.int64]
"""The class that a network decides on, for each of N images."""
Measure = Callable[[Path, Config, DataShape, "Tensor", "Tensor"], Logits]
"""Weights, config, the images' shape, test images, labels -> logits, N x classes."""
KEPT_A_CLASS = 8
"""Misclassified images of each class that are kept for people to look at, at most."""
KEPT_CLASSES = 20
"""Of so many classes at most: those with the most misclassified images."""


@dataclass(frozen=True)
class FinalTest:
    """The results on the test images."""

    confusions: dict[int, Confusion]
    """By seed, in their order: the first one is that of the kept model."""
    opened_before: list[str]
    """Openings for the study before that of this test: time and reason."""
    time: str
    """Of the test, in UTC."""
    class_names: tuple[str, ...]
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    """By seed: the known metrics, and the study's own, by name; older results have none."""
    calibration: list[Bin] = field(default_factory=list)
    """Of the kept model, see `mc1opt.calibration.reliability`; older results have none."""

    @property
    def by_seed(self) -> dict[int, float]:
        """Accuracy by seed."""
        return {seed: _diagonal(c) / _all(c) for seed, c in self.confusions.items()}

    @property
    def spread(self) -> Spread:
        """Mean, standard deviation and interval over the seeds."""
        return spread(list(self.by_seed.values()))

    def spread_of(self, metric: Metric) -> Spread:
        """The same of another metric; that of the accuracy if it was not measured."""
        values = [known[metric.name] for known in self.metrics.values() if metric.name in known]
        return spread(values) if len(values) == len(self.confusions) else self.spread

    @property
    def kept(self) -> Confusion:
        """Of the kept model."""
        return next(iter(self.confusions.values()))

    @property
    def by_class(self) -> dict[str, float | None]:
        """Accuracy by class, over all seeds; None for a class without test images."""
        shares: dict[str, float | None] = {}
        for index, name in enumerate(self.class_names):
            rows = [confusion[index] for confusion in self.confusions.values()]
            count = sum(sum(row) for row in rows)
            shares[name] = sum(row[index] for row in rows) / count if count else None
        return shares

    def to_json(self) -> dict[str, Any]:
        """As `retrain --json` prints it."""
        return {
            "by_seed": {str(seed): accuracy for seed, accuracy in self.by_seed.items()},
            **self.spread.to_json(),
            "metrics": {str(seed): known for seed, known in self.metrics.items()},
            "by_class": self.by_class,
            "confusion": self.kept,
            "calibration": [list(each) for each in self.calibration],
            "images": _all(self.kept),
            "time": self.time,
            "opened_before": self.opened_before,
        }


def run_final_test(
    trained: Sequence[tuple[Job, StoredTraining]],
    *,
    data: DataSet,
    reason: str,
    folder: Path,
    device: Device,
    write: Callable[[str], None],
    measure: Measure | None = None,
    metric: Metric = ACCURACY,
) -> FinalTest:
    """Tests models, once and for all.

    Args:
        trained: final trainings with their weights, in the order of their seeds.
        data: the images.
        reason: who looks and why, for the record of the opening.
        folder: the study's models, or the preset's; the records are in it.
        device: where.
        write: takes a line that announces the opening.
        measure: how. The default runs the networks in float32, as they are shipped.
        metric: what the study's values are, measured beside the known metrics where it is its own.

    Raises:
        DataError: the test images are missing or damaged.
        ModelError: weights are missing or damaged.
        StorageError: the stored results cannot be read, or no result can be stored.
        StudyFileError: the study's own metric cannot be computed.
    """
    from mc1opt.data.images import open_test_images

    functions = {**NAMED, metric.name: metric_function(metric, data.classes)}
    known = _known(folder)
    keys = [_key_of(stored) for _, stored in trained]
    before = past_openings(folder / OPENINGS, data)
    if all(key in known for key in keys):
        write("These models were tested before; the test images stay closed, and the stored results count.")
    else:
        write(_opening_line(before))
        images, labels = open_test_images(data, reason, folder / OPENINGS, device)
        truth = labels.cpu().numpy()
        for (job, stored), key in zip(trained, keys, strict=True):
            if key in known:
                continue
            weights = Path(job.training.weights or "")
            logits = (measure or infer)(weights, job.training.config, data.shape, images, labels)
            shares = probabilities(logits)
            decisions = logits.argmax(1)
            values = {name: function(logits, truth) for name, function in functions.items()}
            measured = {"metrics": values, "calibration": reliability(shares, truth)}
            known[key] = _result(stored, truth, decisions, data.classes, before) | measured
            append_line(folder / RESULTS, known[key])
            if stored is trained[0][1]:  # whose model is kept
                path = misclassified_path(folder, stored.weights_sha256)
                _keep_misclassified(path, images, truth, shares)
    lines = [known[key] for key in keys]
    latest = max(lines, key=lambda line: line["time"])
    return FinalTest(
        confusions={
            stored.key.seed: line["confusion"] for (_, stored), line in zip(trained, lines, strict=True)
        },
        opened_before=latest["opened_before"],
        time=latest["time"],
        class_names=data.class_names,
        metrics={
            stored.key.seed: line["metrics"]
            for (_, stored), line in zip(trained, lines, strict=True)
            if "metrics" in line
        },
        calibration=[Bin(*each) for each in lines[0].get("calibration", [])],
    )


def _result(
    stored: StoredTraining, truth: Decisions, decisions: Decisions, classes: int, before: list[str]
) -> dict[str, Any]:
    """A line of `RESULTS`."""
    from mc1opt.training.accuracy import confusion_matrix

    wrong = np.flatnonzero(decisions != truth)
    return {
        "training": stored.key.model_dump(mode="json"),
        "weights_sha256": stored.weights_sha256,
        "confusion": confusion_matrix(truth, decisions, classes).tolist(),
        "wrong": np.stack([wrong, decisions[wrong]], axis=1).tolist(),
        "opened_before": before,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def stored_accuracies(folder: Path) -> Callable[[StoredTraining], float | None]:
    """A function from a training to its accuracy on the test images; None where it was not tested.

    Args:
        folder: of `run_final_test`, whose records are read once, now.

    Raises:
        StorageError: the records cannot be read, or are damaged.
    """
    known = _known(folder)

    def accuracy(stored: StoredTraining) -> float | None:
        line = known.get(_key_of(stored))
        return None if line is None else _diagonal(line["confusion"]) / _all(line["confusion"])

    return accuracy


def infer(weights: Path, config: Config, shape: DataShape, images: "Tensor", _labels: "Tensor") -> Logits:
    """Runs a network on images, on their device and in float32.

    Raises:
        ModelError: the weights cannot be read, or a logit is not finite.
    """
    import torch

    model = weights_model(weights, config, shape).to(images.device)
    parts = []
    # cuDNN would round convolutions to TF32.
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for first in range(0, len(images), INFERENCE_BATCH):
            logits = model(images[first : first + INFERENCE_BATCH])
            if not logits.isfinite().all():
                raise ModelError(f"{weights} cannot be tested: its logits are not finite.")
            parts.append(logits.cpu())
    found: Logits = torch.cat(parts).numpy()
    return found


def misclassified_path(folder: Path, weights_sha256: str | None) -> Path:
    """Where the misclassified images of a tested model are, in the folder of its study's models."""
    return folder / f"misclassified-{(weights_sha256 or '')[:12]}.npz"


def _keep_misclassified(path: Path, images: "Tensor", truth: Decisions, shares: Probabilities) -> None:
    """Keeps the surest of each class, so that the test images need not be opened again to look at them.

    Arrays `images` (uint8, K x C x H x W), `labels`, `decisions`, `confidences` and `indices` (K). A file
    that cannot be written costs a picture, not a result.
    """
    decisions, confidences = shares.argmax(1), shares.max(1)
    wrong = decisions != truth
    surest = np.argsort(-confidences, kind="stable")
    often = np.bincount(truth[wrong], minlength=1).argsort(kind="stable")[::-1][:KEPT_CLASSES]
    kept = np.concatenate(
        [surest[(wrong & (truth == label))[surest]][:KEPT_A_CLASS] for label in sorted(often)]
    )
    new = path.with_name(f".{path.name}.new")
    with contextlib.suppress(OSError), new.open("wb") as file:
        np.savez_compressed(
            file,
            images=images[kept.tolist()].cpu().numpy(),
            labels=truth[kept],
            decisions=decisions[kept],
            confidences=confidences[kept],
            indices=kept,
        )
        file.flush()
        new.replace(path)


def _opening_line(before: list[str]) -> str:
    if not before:
        return "The test images are opened, for the first time for this study."
    return (
        f"The test images are opened; for this study they were opened {plural(len(before), 'time')} before: "
        f"{'; '.join(before)}. They are no independent test of what was chosen after a look at them."
    )


def _known(folder: Path) -> dict[str, dict[str, Any]]:
    """The stored results by their trainings and weights."""
    lines = read_lines(folder / RESULTS)
    for number, line in enumerate(lines, start=1):
        try:
            _ResultLine.model_validate(line)
        except ValidationError as error:
            raise StorageError(
                f"{folder / RESULTS}, line {number} is no test result: {describe_validation_error(error)}. "
                "Delete the line, or the file: its models are tested again then."
            ) from error
    return {_key(line["training"], line["weights_sha256"]): line for line in lines}


class _ResultLine(BaseModel):
    """What is read from a line of `RESULTS`."""

    training: dict[str, Any]
    weights_sha256: str | None
    confusion: list[list[NonNegativeInt]]
    opened_before: list[str]
    time: str
    metrics: dict[str, float] = {}
    calibration: list[tuple[int, float, float]] = []

    @field_validator("confusion")
    @classmethod
    def _counts_images(cls, confusion: Confusion) -> Confusion:
        if any(len(row) != len(confusion) for row in confusion) or _all(confusion) < 1:
            raise ValueError("it is not square, or counts no images")
        return confusion


def _key_of(stored: StoredTraining) -> str:
    return _key(stored.key.model_dump(mode="json"), stored.weights_sha256)


def _key(training: dict[str, Any], weights_sha256: str | None) -> str:
    return json.dumps([training, weights_sha256], sort_keys=True)


def _diagonal(confusion: Confusion) -> int:
    return sum(row[index] for index, row in enumerate(confusion))


def _all(confusion: Confusion) -> int:
    return sum(map(sum, confusion))
