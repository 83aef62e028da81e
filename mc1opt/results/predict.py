"""What a model sees in image files."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mc1opt.results.export_record import export_record
from mc1opt.results.image_files import find_images, read_image
from mc1opt.results.runtime import open_model


@dataclass(frozen=True)
class ClassProbability:
    """A class, and how probable the model finds it."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image, the most probable one first."""

    image: str
    classes: tuple[ClassProbability, ...]

    def to_json(self) -> dict[str, Any]:
        """As `predict --json` prints it."""
        return asdict(self)


def predict(model: Path, images: Sequence[Path], *, top: int, storage: str) -> list[Prediction]:
    """Asks a model about image files; all of them are read before the first answer.

    Args:
        model: a model folder or an exported file.
        images: image files, and folders of them.
        top: how many classes an image gets.
        storage: the study database, beside which the record of exports lies.

    Raises:
        ModelError: the model cannot be opened, or gives something else than numbers.
        DataError: an image cannot be read.
    """
    opened = open_model(model, export_record(storage))
    paths = find_images(images)
    arrays = np.stack([read_image(path) for path in paths])
    predictions = []
    for path, row in zip(paths, opened.probabilities(arrays), strict=True):
        # Of equal ones, the class with the lower number first.
        best = np.argsort(-row, kind="stable")[:top]
        classes = tuple(ClassProbability(opened.labels[i], round(float(row[i]), 6)) for i in best)
        predictions.append(Prediction(str(path), classes))
    return predictions


def prediction_lines(predictions: Sequence[Prediction]) -> list[str]:
    """A line an image."""
    width = max(len(prediction.image) for prediction in predictions)
    return [
        f"{prediction.image:<{width}}  "
        + "  ".join(f"{entry.label} {entry.probability:.3f}" for entry in prediction.classes)
        for prediction in predictions
    ]
