"""The one look at the test images, at the very end: of a retraining, of a preset's training; it is stored.

A look that was taken is not taken again: the same trainings have their stored results.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, NonNegativeInt, ValidationError, field_validator

from mc1opt.config import CLASS_NAMES, Config
from mc1opt.data.openings import OPENINGS, past_openings
from mc1opt.errors import ModelError, StorageError, describe_validation_error
from mc1opt.files import append_line, read_lines
from mc1opt.measurement.store import StoredTraining
from mc1opt.spec import INFERENCE_BATCH, DataSet, Device
from mc1opt.training.model_folder import weights_model
from mc1opt.uncertainty import Spread, spread

if TYPE_CHECKING:
    from torch import Tensor

RESULTS = "test_results.jsonl"
"""A line for each model: its training, weights, confusions, and [index, decision] of each wrong image."""

Confusion = list[list[int]]
"""Images by true class (row) and decision (column)."""
Decisions = NDArray[np.int64]
"""What a network takes each of N images for."""
Measure = Callable[[Path, Config, "Tensor", "Tensor"], Decisions]
"""Weights, config, test images, labels -> decisions."""
KEPT_A_CLASS = 8
"""Wrongly classified images of each class that are kept for people to look at."""


@dataclass(frozen=True)
class Final:
    """A training on all images, with its weights."""

    stored: StoredTraining
    weights: Path
    config: Config


@dataclass(frozen=True)
class FinalTest:
    """What the test images said."""

    confusions: dict[int, Confusion]
    """By seed, in their order: the first is that of the kept model."""
    opened_before: list[str]
    """Openings for the study before that of the measurement: time and reason."""
    opened_now: bool
    """False where all results were stored, so that the images stayed closed."""
    time: str
    """When it was measured, in UTC."""

    @property
    def by_seed(self) -> dict[int, float]:
        """Accuracy by seed."""
        return {seed: _diagonal(c) / _all(c) for seed, c in self.confusions.items()}

    @property
    def spread(self) -> Spread:
        """Mean, standard deviation and interval over the seeds."""
        return spread(list(self.by_seed.values()))

    @property
    def kept(self) -> Confusion:
        """Of the kept model."""
        return next(iter(self.confusions.values()))

    @property
    def by_class(self) -> dict[str, float | None]:
        """Accuracy by class, over all seeds; None for a class without test images."""
        shares: dict[str, float | None] = {}
        for index, name in enumerate(CLASS_NAMES):
            rows = [confusion[index] for confusion in self.confusions.values()]
            count = sum(sum(row) for row in rows)
            shares[name] = sum(row[index] for row in rows) / count if count else None
        return shares

    def to_json(self) -> dict[str, Any]:
        """As `retrain --json` prints it."""
        return {
            "by_seed": {str(seed): accuracy for seed, accuracy in self.by_seed.items()},
            **self.spread.to_json(),
            "by_class": self.by_class,
            "confusion": self.kept,
            "images": _all(self.kept),
            "time": self.time,
            "opened_before": self.opened_before,
        }


def run_final_test(
    finals: Sequence[Final],
    *,
    data: DataSet,
    reason: str,
    folder: Path,
    device: Device,
    write: Callable[[str], None],
    measure: Measure | None = None,
) -> FinalTest:
    """Measures the final models on the test images, once and for all.

    Args:
        finals: in the order of their seeds.
        data: the images.
        reason: who looks and why, for the record of the opening.
        folder: the study's models, or the preset's; the records are in it.
        device: where.
        write: takes a line that says what is opened, before it is.
        measure: how; tests put another one in its place. The default runs the networks in float32, as they
            are shipped.

    Raises:
        DataError: the test images are missing or damaged.
        ModelError: weights are missing or damaged.
        StorageError: the stored results cannot be read, or no result can be stored.
    """
    from mc1opt.data.images import open_test_images
    from mc1opt.training.evaluate import confusion_matrix

    results = folder / RESULTS
    known = _known(folder)
    keys = [_key_of(final.stored) for final in finals]
    before = past_openings(folder / OPENINGS, data)
    opened_now = not all(key in known for key in keys)
    if opened_now:
        write(_opening_line(before))
        images, labels = open_test_images(data, reason, folder / OPENINGS, device)
        for final, key in zip(finals, keys, strict=True):
            if key not in known:
                decisions = (measure or decide)(final.weights, final.config, images, labels)
                truth = labels.cpu().numpy()
                wrong = np.flatnonzero(decisions != truth)
                known[key] = {
                    "training": final.stored.key.model_dump(mode="json"),
                    "weights_sha256": final.stored.weights_sha256,
                    "confusion": confusion_matrix(truth, decisions).tolist(),
                    "wrong": np.stack([wrong, decisions[wrong]], axis=1).tolist(),
                    "opened_before": before,
                    "time": datetime.now(UTC).isoformat(timespec="seconds"),
                }
                append_line(results, known[key])
                if final is finals[0]:  # whose model is kept
                    path = misclassified_path(folder, final.stored.weights_sha256)
                    _keep_misclassified(path, images, truth, decisions)
    else:
        write(
            "These models were tested before: the test images stay closed, and the result is the stored one."
        )
    latest = max((known[key] for key in keys), key=lambda line: line["time"])
    return FinalTest(
        confusions={
            final.stored.key.seed: known[key]["confusion"] for final, key in zip(finals, keys, strict=True)
        },
        opened_before=latest["opened_before"],
        opened_now=opened_now,
        time=latest["time"],
    )


def stored_accuracies(folder: Path) -> Callable[[StoredTraining], float | None]:
    """A function that gives a training's accuracy on the test images; None where it was not tested.

    Args:
        folder: where the records of `run_final_test` are. They are read once, now.

    Raises:
        StorageError: the records cannot be read, or are damaged.
    """
    known = _known(folder)

    def accuracy(stored: StoredTraining) -> float | None:
        line = known.get(_key_of(stored))
        return None if line is None else _diagonal(line["confusion"]) / _all(line["confusion"])

    return accuracy


def decide(weights: Path, config: Config, images: "Tensor", _labels: "Tensor") -> Decisions:
    """Runs a network on images, on their device and in float32.

    Raises:
        ModelError: a logit is not finite, so that it decides nothing.
    """
    import torch

    model = weights_model(weights, config).to(images.device)
    decisions = []
    # cuDNN would round convolutions to TF32.
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for first in range(0, len(images), INFERENCE_BATCH):
            logits = model(images[first : first + INFERENCE_BATCH])
            if not logits.isfinite().all():
                raise ModelError(f"{weights} cannot be tested: its logits are not finite.")
            decisions.append(logits.argmax(1).cpu())
    found: Decisions = torch.cat(decisions).numpy()
    return found


def misclassified_path(folder: Path, weights_sha256: str | None) -> Path:
    """Where the wrongly classified images of a tested model are, in the folder of its study's models."""
    return folder / f"misclassified-{(weights_sha256 or '')[:12]}.npz"


def _keep_misclassified(path: Path, images: "Tensor", truth: Decisions, decisions: Decisions) -> None:
    """Keeps a few of them while the test images are open: to be looked at, they need not be opened again.

    Arrays `images` (uint8, K x 3 x 32 x 32), `labels`, `decisions` and `indices` (K). A file that cannot be
    written costs a picture, not a result.
    """
    wrong = decisions != truth
    kept = np.concatenate(
        [np.flatnonzero(wrong & (truth == label))[:KEPT_A_CLASS] for label in range(len(CLASS_NAMES))]
    )
    new = path.with_name(f".{path.name}.new")
    with contextlib.suppress(OSError), new.open("wb") as file:
        np.savez_compressed(
            file,
            images=images[kept.tolist()].cpu().numpy(),
            labels=truth[kept],
            decisions=decisions[kept],
            indices=kept,
        )
        file.flush()
        new.replace(path)


def _opening_line(before: list[str]) -> str:
    if not before:
        return "The test images are opened now, for the first time for this study."
    times = "once" if len(before) == 1 else f"{len(before)} times"
    return (
        f"The test images are opened now; for this study they were opened {times} before: "
        f"{'; '.join(before)}. What is chosen after a look at them is no longer tested by them."
    )


def _known(folder: Path) -> dict[str, dict[str, Any]]:
    """The stored results, by the trainings and weights that they are of."""
    lines = read_lines(folder / RESULTS)
    for number, line in enumerate(lines, start=1):
        try:
            _Result.model_validate(line)
        except ValidationError as error:
            raise StorageError(
                f"{folder / RESULTS}, line {number} is no test result: {describe_validation_error(error)}. "
                "Delete the line, or the file: what it is of is tested again then."
            ) from error
    return {_key(line["training"], line["weights_sha256"]): line for line in lines}


class _Result(BaseModel):
    """What is taken from a line of `RESULTS`."""

    training: dict[str, Any]
    weights_sha256: str | None
    confusion: list[list[NonNegativeInt]]
    opened_before: list[str]
    time: str

    @field_validator("confusion")
    @classmethod
    def _counts_images(cls, confusion: Confusion) -> Confusion:
        if any(len(row) != len(confusion) for row in confusion) or _all(confusion) < 1:
            raise ValueError("its rows and columns are not those of one or more images")
        return confusion


def _key_of(stored: StoredTraining) -> str:
    return _key(stored.key.model_dump(mode="json"), stored.weights_sha256)


def _key(training: dict[str, Any], weights_sha256: str | None) -> str:
    return json.dumps([training, weights_sha256], sort_keys=True)


def _diagonal(confusion: Confusion) -> int:
    return sum(row[index] for index, row in enumerate(confusion))


def _all(confusion: Confusion) -> int:
    return sum(map(sum, confusion))
