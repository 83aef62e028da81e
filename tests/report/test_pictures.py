"""The pictures of a page: the right pixels, in the right order."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mc1opt.data.sources import find_data
from mc1opt.report.pictures import A_CLASS, MISTAKES, mistakes, sample
from tests.support.retraining import small_images


def pixels(address: str) -> NDArray[Any]:
    """C x H x W."""
    kind, _, content = address.partition(";base64,")
    assert kind == "data:image/png"
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def test_the_sample_has_training_images_of_each_class() -> None:
    data = small_images()
    images = np.load(Path(data.folder) / "train_images.npy")
    labels = np.load(Path(data.folder) / "train_labels.npy")
    found = sample(data)
    assert tuple(found) == data.class_names
    for label, pictures in enumerate(found.values()):
        assert len(pictures) == min(A_CLASS, int((labels == label).sum()))
        first = images[np.flatnonzero(labels == label)[0]]
        assert (pixels(pictures[0]) == first).all()
    assert find_data(Path("images")) == data  # nothing was written


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sure", [True, False])
def test_the_surest_mistakes_come_first(channels: int, sure: bool) -> None:
    count = MISTAKES + 3
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, channels, 8, 8), dtype=np.uint8)
    confidences = generator.permutation(count) / count
    labels = np.arange(count) % 3
    more = {"confidences": confidences} if sure else {}
    np.savez("kept.npz", images=images, labels=labels, decisions=(labels + 1) % 3, indices=labels, **more)
    found = mistakes(Path("kept.npz"), ("a", "b", "c"))
    order = np.argsort(-confidences) if sure else np.arange(count)
    assert len(found) == MISTAKES
    for mistake, index in zip(found, order, strict=False):
        assert (pixels(mistake.picture) == images[index]).all()
        assert mistake.truth == "abc"[labels[index]]
        assert mistake.decision == "bca"[labels[index]]
        assert mistake.confidence == (pytest.approx(confidences[index]) if sure else None)


def test_without_the_file_there_are_none() -> None:
    assert mistakes(Path("missing.npz"), ()) == []
