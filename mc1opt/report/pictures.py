"""Pictures of a page, as `data:` addresses: a sample of each class, and mistakes on the test images."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mc1opt.data.examine import training_arrays
from mc1opt.dataset import DataSet

A_CLASS = 4
"""Images of a class in the sample."""
MOST_CLASSES = 20
MISTAKES = 32
"""Shown at most, the surest first."""


@dataclass(frozen=True)
class Mistake:
    """A test image that the model decides wrongly."""

    picture: str
    truth: str
    decision: str
    confidence: float | None
    """The probability that it gives its decision; None in results of older versions."""


def address(content: bytes, kind: str) -> str:
    """A `data:` address of some bytes of a MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def sample(data: DataSet) -> dict[str, list[str]]:
    """The first training images of each class, as addresses; of many classes the first ones."""
    images, labels = training_arrays(data)
    shown = enumerate(data.class_names[:MOST_CLASSES])
    return {
        name: [_picture(images[index]) for index in np.flatnonzero(labels == label)[:A_CLASS]]
        for label, name in shown
    }


def mistakes(path: Path, names: Sequence[str]) -> list[Mistake]:
    """The kept misclassified images, see `mc1opt.measurement.final_test`; none if there is no such file.

    Args:
        path: the file.
        names: of the classes.
    """
    if not path.is_file():
        return []
    with np.load(path, allow_pickle=False) as kept:
        sure = kept.get("confidences")
        order = range(len(kept["labels"])) if sure is None else np.argsort(-sure, kind="stable")
        images, labels, decisions = (kept[name] for name in ("images", "labels", "decisions"))
        return [
            Mistake(
                _picture(images[index]),
                names[labels[index]],
                names[decisions[index]],
                None if sure is None else float(sure[index]),
            )
            for index in list(order)[:MISTAKES]
        ]


def _picture(image: NDArray[Any]) -> str:
    """An image, uint8, C x H x W, RGB or grey, as PNG."""
    from PIL import Image

    pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG", optimize=True)
    return address(file.getvalue(), "image/png")
