"""Predictions of a trained network from real image files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mc1opt.dataset import CIFAR10_CLASS_NAMES as CLASS_NAMES
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.errors import DataError, ModelError
from mc1opt.inference.predict import predict
from mc1opt.training.model_folder import weights_model
from tests.support.trained import STORAGE, Trained, logits_of, random_images, write_model

EXPORTS = Path("storage/exports/s")
IMAGES = random_images(300)


def write_images(folder: Path, count: int) -> None:
    folder.mkdir()
    for i, image in enumerate(IMAGES[:count]):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:03}.png", compress_level=0)


@pytest.mark.parametrize("name", ["model", "trial-1.onnx", "trial-1.pt2"])
def test_predictions_are_the_most_probable_classes_of_each_image(
    exported: Path, trained: Trained, name: str
) -> None:
    write_model(EXPORTS / "model", trained)
    write_images(Path("images"), 300)  # more than one batch
    network = weights_model(trained.weights, trained.config, CIFAR10_SHAPE)
    expected = torch.softmax(torch.from_numpy(logits_of(network, IMAGES)), 1).numpy()
    predictions = predict(EXPORTS / name, [Path("images")], top=3, storage=STORAGE).images
    assert [prediction.image for prediction in predictions] == [f"images/{i:03}.png" for i in range(300)]
    for prediction, row in zip(predictions, expected, strict=True):
        best = np.argsort(-row)[:3]
        shown = [entry.probability for entry in prediction.classes]
        np.testing.assert_allclose(shown, row[best], atol=1e-5)
        assert prediction.classes[0].label == CLASS_NAMES[best[0]]


def test_as_many_classes_as_wanted_and_at_most_all(exported: Path, trained: Trained) -> None:
    write_images(Path("images"), 1)
    for top, count in ((1, 1), (10, 10), (99, 10)):
        found = predict(EXPORTS / "trial-1.onnx", [Path("images/000.png")], top=top, storage=STORAGE)
        (prediction,) = found.images
        assert len(prediction.classes) == count
    assert {entry.label for entry in prediction.classes} == set(CLASS_NAMES)
    assert sum(entry.probability for entry in prediction.classes) == pytest.approx(1.0, abs=1e-4)


def test_predictions_are_shown_a_line_each(exported: Path) -> None:
    write_images(Path("images"), 2)
    predictions = predict(EXPORTS / "trial-1.onnx", [Path("images")], top=2, storage=STORAGE)
    first, second = predictions.lines()
    best = predictions.images[0].classes[0]
    label, probability = best.label, best.probability
    assert first.startswith(f"images/000.png  {label} {probability:.3f}  ")
    assert second.startswith("images/001.png  ")
    assert set(predictions.to_json()[0]) == {"image", "classes"}


def test_an_image_that_is_found_and_cannot_be_read_stops_none_of_the_others(exported: Path) -> None:
    write_images(Path("images"), 3)
    every = predict(EXPORTS / "trial-1.onnx", [Path("images")], top=3, storage=STORAGE)
    every.raise_unreadable()
    Path("images/001.png").write_bytes(b"")
    predictions = predict(EXPORTS / "trial-1.onnx", [Path("images")], top=3, storage=STORAGE)
    assert predictions.images == [every.images[0], every.images[2]]
    with pytest.raises(DataError, match=r"^1 of 3 .*\n  images/001\.png"):
        predictions.raise_unreadable()


def test_an_image_that_is_named_and_cannot_be_read_is_an_error_at_once(exported: Path) -> None:
    write_images(Path("images"), 3)
    Path("images/001.png").write_bytes(b"")
    for images in ([Path("images"), Path("images/001.png")], [Path("images/001.png"), Path("images")]):
        with pytest.raises(DataError, match=r"^images/001\.png"):
            predict(EXPORTS / "trial-1.onnx", images, top=3, storage=STORAGE)


def test_an_image_is_shown_as_often_as_it_is_named(exported: Path) -> None:
    write_images(Path("images"), 2)
    named = [Path("images/001.png"), Path("images"), Path("images/001.png")]
    predictions = predict(EXPORTS / "trial-1.onnx", named, top=1, storage=STORAGE)
    assert [prediction.image[-5] for prediction in predictions.images] == ["1", "0", "1", "1"]


def test_a_pt2_file_is_opened_only_beside_the_storage_that_recorded_it(exported: Path) -> None:
    write_images(Path("images"), 1)
    with pytest.raises(ModelError, match="not in the record"):
        predict(EXPORTS / "trial-1.pt2", [Path("images")], top=3, storage="elsewhere/mc1opt.db")
