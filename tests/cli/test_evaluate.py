"""`mc1opt evaluate`: the test images are opened by it, and that is recorded."""

import json
from pathlib import Path

import pytest

from mc1opt.config import CLASS_NAMES
from tests.support.command import files_below

FIELDS = {
    "model",
    "data",
    "images",
    "accuracy",
    "interval",
    "by_class",
    "calibration_error",
    "confusion",
    "opened_before",
    "labels",
}


@pytest.fixture
def model(finished: Path, mc1opt_here) -> str:
    mc1opt_here("export", "--study", "tiny", "--format", "safetensors", "--output", "out")
    (path,) = Path("out").iterdir()
    return str(path)


def test_json_says_everything_and_the_text_the_same(model: str, mc1opt_here) -> None:
    result = mc1opt_here("evaluate", model, "--data", "images", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    shown = json.loads(result.stdout)
    assert set(shown) == FIELDS
    assert (shown["model"], shown["images"], shown["opened_before"]) == (model, 50, 0)
    assert list(shown["by_class"]) == shown["labels"] == list(CLASS_NAMES)
    text = mc1opt_here("evaluate", model, "--data", "images").stdout
    assert f"accuracy           {shown['accuracy']:.4f}, 95 % interval" in text
    assert text.splitlines()[0].endswith("(opened 1 time before)")


def test_the_opening_is_recorded_with_the_models_of_the_study(model: str, mc1opt_here) -> None:
    mc1opt_here("evaluate", model, "--data", "images")
    (line,) = Path("storage/models/tiny/test_openings.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == f"evaluate model {model}"


def test_a_model_that_does_not_exist_opens_nothing(finished: Path, mc1opt_here) -> None:
    before = files_below(finished)
    result = mc1opt_here("evaluate", "none", "--data", "images")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: there is no model none")
    assert files_below(finished) == before
