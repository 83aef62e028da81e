"""Which of two values is better, and what metrics are called."""

import itertools

import pytest
from pydantic import ValidationError

from mc1opt.metric import ACCURACY, LABELS, Metric, known_metric
from mc1opt.metric_functions import NAMED

OWN = Metric(name="cost", direction="minimize", path="/s.py", fingerprint="0" * 16)


def test_a_greater_score_is_better_and_the_score_of_a_score_is_the_value() -> None:
    assert known_metric("macro_f1").score(0.5) == 0.5
    for metric in (known_metric("log_loss"), OWN):
        assert metric.score(0.5) > metric.score(0.75)
        assert metric.score(metric.score(0.5)) == 0.5


def test_every_known_metric_has_a_function_and_one_direction() -> None:
    assert LABELS.keys() == NAMED.keys()
    for name, direction in itertools.product(LABELS, ("maximize", "minimize")):
        if direction == known_metric(name).direction:
            assert Metric(name=name, direction=direction) == known_metric(name)
        else:
            with pytest.raises(ValidationError, match="direction"):
                Metric(name=name, direction=direction)


def test_an_unknown_name_is_one_of_no_metric_without_a_file() -> None:
    with pytest.raises(ValueError, match="'f1'; known: accuracy"):
        known_metric("f1")
    assert OWN.label == "cost"


def test_json_tells_all_and_the_identity_leaves_out_the_place_of_the_file() -> None:
    assert Metric.model_validate_json(OWN.model_dump_json()) == OWN
    assert known_metric("log_loss").model_dump() == {"name": "log_loss", "direction": "minimize"}
    moved = OWN.model_copy(update={"path": "/elsewhere/s.py"})
    assert moved.identity == OWN.identity
    assert Metric.model_validate(moved.identity).is_own  # also where the place is not known


def test_differences_of_shares_are_points_and_others_have_their_own_unit() -> None:
    assert f"{ACCURACY.difference(0.0123)} {ACCURACY.unit}" == "1.2 points"
    assert known_metric("auroc").difference(0.0123, "+") == "+1.2"
    assert f"{OWN.difference(12.5, '+')} {OWN.unit}" == "+12.5 of cost"
