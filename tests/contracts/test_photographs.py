"""A folder of photographs goes in, and a model that knows its classes comes out: every command, by name."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from mc1opt.training.model_folder import read_model_folder
from tests.support.command import output_of
from tests.support.photographs import picture, write_images

CARS, ZEBRA, FRUIT = NAMES = ("red.cars", "zebra", "Äpfel & Birnen")
MODEL = "storage/models/photos"


@pytest.fixture
def photographs() -> Path:
    """Unbalanced classes, all kinds of files and sizes, four of them damaged."""
    folder = Path("my photos")
    write_images(folder / FRUIT, 60, ending="jpg", size=(200, 120))
    write_images(folder / CARS, 30, first=40, ending="png", mode="RGBA", size=(40, 64))
    write_images(folder / ZEBRA, 12, first=90, ending="png", mode="L", size=(90, 90))
    write_images(folder / ZEBRA / "more", 12, first=110, ending="gif", mode="P", size=(70, 50))
    for number in range(4):
        path = folder / FRUIT / f"{number}.jpg"
        path.write_bytes(path.read_bytes()[:200])
    return folder


@pytest.mark.slow
def test_every_command_takes_photographs_and_calls_the_classes_by_their_names(
    photographs: Path, mc1opt_here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MC1OPT_DATA", str(Path("cache").absolute()))
    given = ("--data", str(photographs))
    seen = json.loads(mc1opt_here("data", *given, "--json").stdout)
    assert seen["train_images"] + seen["test_images"] == 110  # without the damaged ones

    search = ("run", "--study", "cnn", "--name", "photos", "--trials", "3", "--epochs", "2", "--workers", "1")
    ended = mc1opt_here(*search, *given, "--confirm", "1")
    assert ended.returncode == 0, ended.stderr
    assert "3 classes" in ended.stdout

    retrained = mc1opt_here("retrain", "--study", "photos", "--epochs", "2", "--seeds", "2", "--top", "1")
    assert retrained.returncode == 0, retrained.stderr
    folder = read_model_folder(Path(MODEL))
    assert folder.task.class_names == NAMES
    assert 60 <= folder.task.size <= 64  # as the median photograph
    for text in (retrained.stdout, (Path(MODEL) / "model_card.md").read_text()):
        assert all(name in text for name in NAMES)
        assert "airplane" not in text

    exported = mc1opt_here("export", "--study", "photos", "--model", MODEL, "--output", "out")
    assert exported.returncode == 0, exported.stderr
    session = onnxruntime.InferenceSession("out/model.onnx", providers=["CPUExecutionProvider"])
    assert tuple(json.loads(session.get_modelmeta().custom_metadata_map["labels"])) == NAMES
    images = np.zeros((1, 3, folder.task.size, folder.task.size), dtype=np.uint8)
    assert session.run(["logits"], {"images": images})[0].shape == (1, 3)

    picture(7).save("one.png")
    for model in (MODEL, "out/model.onnx"):
        (predicted,) = json.loads(output_of(mc1opt_here("predict", model, "one.png", "--json")))
        assert {entry["label"] for entry in predicted["classes"]} == set(NAMES)
    evaluated = json.loads(output_of(mc1opt_here("evaluate", MODEL, "--json")))
    assert tuple(evaluated["labels"]) == NAMES
    assert np.sum(evaluated["confusion"]) == seen["test_images"]
