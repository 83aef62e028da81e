"""What a study's retraining has found."""

from typing import Any

import pytest

from mc1opt.inference.retrained import retrained, retrained_model
from tests.support.retraining import STORAGE, STUDY, retrain_curves, retrainable, retrainable_folder
from tests.support.studies import stored

__all__ = ["retrainable", "retrainable_folder"]


@pytest.mark.parametrize("metrics", [{}, {"test": {"mean": 0.5}}, {"test": None}, {"winner": {"trial": "x"}}])
def test_metrics_of_another_origin_are_no_retraining(metrics: dict[str, Any]) -> None:
    assert retrained(metrics) is None


@pytest.mark.usefixtures("retrainable")
def test_the_retraining_of_a_study_is_found_with_its_model() -> None:
    record = stored(STORAGE, STUDY)
    assert retrained_model(STORAGE, record) is None
    result = retrain_curves()
    assert result is not None
    model = retrained_model(STORAGE, record)
    assert model is not None
    assert model.found.trial == result.winner.candidate.trial
    assert model.found.test == result.test.spread.mean
    assert model.folder.path == result.plan.folder
