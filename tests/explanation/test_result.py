"""An explanation as it is stored and shown."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from mc1opt.explanation.result import (
    FILE,
    Explanation,
    Step,
    explanation_folder,
    explanation_lines,
    read_explanation,
)
from tests.support.retraining import record_of, trial_record

SOURCE = Step("source", "mlp 64 | sgd 0.1", "a", 1000, 3, 0.5, (0.49, 0.51), None, None, 0, {})
STEP = Step(
    "widths", "mlp 64 -> mlp 128", "b", 2000, 2, 0.61, (0.6, 0.62), 0.11, (0.1, 0.12), 1, {"depth": 0.4}
)
EXPLANATION = Explanation(
    study="s",
    source="#1",
    target="#2",
    metric="accuracy",
    direction="maximize",
    is_share=True,
    fidelity="4 epochs of 1,000 images",
    seeds=3,
    steps=(SOURCE, STEP),
    total=0.11,
    total_interval=(0.1, 0.12),
    leave_one_out=(dataclasses.replace(SOURCE, group="widths", difference=-0.11),),
    inseparable=("kernels",),
    trainings=6,
    seconds=60.0,
)

RECORD = record_of(trial_record(2, config_id="b"))


def write(content: str) -> None:
    folder = explanation_folder("s.db", "s")
    folder.mkdir(parents=True)
    (folder / FILE).write_text(content)


def test_what_is_stored_is_read_as_it_was() -> None:
    write(json.dumps(EXPLANATION.to_json()))
    assert read_explanation("s.db", RECORD) == EXPLANATION


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", "null", json.dumps(EXPLANATION.to_json() | {"steps": [{}]}), '{"study": "s"}'],
)
def test_a_damaged_file_is_none(content: str) -> None:
    write(content)
    assert read_explanation("s.db", RECORD) is None


def test_the_explanation_of_an_earlier_study_of_that_name_is_none() -> None:
    write(json.dumps(EXPLANATION.to_json()))
    assert read_explanation("s.db", record_of(trial_record(2, config_id="c"))) is None


def test_a_missing_file_is_none_and_makes_nothing() -> None:
    assert read_explanation("s.db", RECORD) is None
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("missing", ["a newer field", None])
def test_fields_that_are_not_known_yet_are_passed_over(missing: str | None) -> None:
    write(json.dumps(EXPLANATION.to_json() | {"newer": missing}))
    assert read_explanation("s.db", RECORD) == EXPLANATION


def rows(**changes: Any) -> list[str]:
    return explanation_lines(dataclasses.replace(EXPLANATION, **changes))


def test_each_step_has_its_numbers_and_its_change() -> None:
    lines = rows()
    row = next(index for index, line in enumerate(lines) if line.split()[0:1] == ["widths"])
    assert lines[row].split()[:6] == ["widths", "0.6100", "0.6000", "to", "0.6200", "2,000"]
    assert "+11.0 (+10.0 to +12.0)" in lines[row]
    assert "1 training failed" in lines[row]
    assert STEP.change in lines[row + 1]
    left_out = [line for line in lines if line.split()[0:1] == ["widths"]][1]
    assert left_out.endswith("-11.0")
    assert any("kernels" in line for line in lines)


def test_another_metric_has_its_own_unit_and_what_is_unknown_a_dash() -> None:
    unknown = dict.fromkeys(("mean", "interval", "difference", "difference_interval"))
    failed = dataclasses.replace(STEP, n=0, **unknown)
    lines = rows(is_share=False, metric="log loss", steps=(SOURCE, failed), total=None, total_interval=None)
    row = next(line for line in lines if line.split()[0:1] == ["widths"])
    assert row.split()[:3] == ["widths", "-", "-"]
    assert any(line.endswith("-0.11") for line in lines)
    assert not any("points" in line for line in lines)
