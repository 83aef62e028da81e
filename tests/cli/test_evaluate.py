"""`mc1opt evaluate`: the test images are opened by it, and that is recorded."""

import json
from pathlib import Path

from tests.support.command import output_of

FIELDS = {
    "model",
    "metrics",
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


def test_json_says_everything_and_the_text_the_same(model: str, mc1opt_here) -> None:
    shown = json.loads(output_of(mc1opt_here("evaluate", model, "--data", "images", "--json")))
    assert set(shown) == FIELDS
    assert (shown["model"], shown["images"], shown["opened_before"]) == (model, 50, 0)
    assert list(shown["by_class"]) == shown["labels"] == list("0123456789")
    text = mc1opt_here("evaluate", model, "--data", "images").stdout
    assert f"{shown['accuracy']:.4f}" in text
    assert "1 time before" in text.splitlines()[0]


def test_the_opening_is_recorded_with_the_models_of_the_study(model: str, mc1opt_here) -> None:
    mc1opt_here("evaluate", model, "--data", "images")
    (line,) = Path("storage/models/tiny/test_openings.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == f"evaluate model {model}"
