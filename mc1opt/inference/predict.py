"""The most probable classes of image files."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mc1opt.data.image_files import find_images, read_image
from mc1opt.errors import DataError
from mc1opt.inference.export_record import export_record
from mc1opt.inference.open_model import open_model


@dataclass(frozen=True)
class ClassProbability:
    """A class and its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image, by falling probability."""

    image: str
    classes: tuple[ClassProbability, ...]


@dataclass(frozen=True)
class Predictions:
    """Predictions of the images that were read."""

    images: list[Prediction]
    unreadable: list[DataError]
    """Of images in folders that could not be read."""

    def to_json(self) -> list[dict[str, Any]]:
        """As `predict --json` prints it."""
        return [asdict(prediction) for prediction in self.images]

    def lines(self) -> list[str]:
        """A line for each image."""
        width = max((len(prediction.image) for prediction in self.images), default=0)
        return [
            f"{prediction.image:<{width}}  "
            + "  ".join(f"{entry.label} {entry.probability:.3f}" for entry in prediction.classes)
            for prediction in self.images
        ]

    def raise_unreadable(self) -> None:
        """Reports the images that could not be read, after the others were shown.

        Raises:
            DataError: there are any; with a line for each.
        """
        if self.unreadable:
            count = len(self.images) + len(self.unreadable)
            raise DataError(
                f"{len(self.unreadable)} of {count} images could not be read:\n"
                + "\n".join(f"  {error}" for error in self.unreadable)
            )


def predict(model: Path, images: Sequence[Path], *, top: int, storage: str) -> Predictions:
    """Predicts the classes of image files.

    Args:
        model: a model folder or an exported file.
        images: image files, and folders of them.
        top: classes of each image, at most.
        storage: the study database, beside which the record of exports lies.

    Raises:
        ModelError: the model cannot be opened, or its probabilities are not finite.
        DataError: an image that is named itself cannot be read, or a folder has none.
    """
    opened = open_model(model, export_record(storage))
    read: list[tuple[Path, NDArray[np.uint8]]] = []
    unreadable = []
    for named in images:
        for path in find_images(named):
            try:
                read.append((path, read_image(path, opened.task.channels, opened.task.size)))
            except DataError as error:
                if path == named:
                    raise
                unreadable.append(error)
    probabilities = opened.probabilities(np.stack([image for _, image in read])) if read else ()
    predictions = []
    for (path, _), row in zip(read, probabilities, strict=True):
        # Of equal ones, the class with the lower number first.
        best = np.argsort(-row, kind="stable")[:top]
        classes = tuple(ClassProbability(opened.task.class_names[i], round(float(row[i]), 6)) for i in best)
        predictions.append(Prediction(str(path), classes))
    return Predictions(predictions, unreadable)
