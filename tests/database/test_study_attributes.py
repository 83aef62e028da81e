"""What is read from a study's attributes alone. Names of folders are tested beside `identity`."""

import pytest

from mc1opt.database.study_attributes import (
    STUDY_CLASS_WEIGHTS,
    STUDY_CONSTRAINTS,
    STUDY_METRIC,
    STUDY_METRIC_FILE,
    aim_of,
)
from mc1opt.errors import UsageError
from mc1opt.metric import Aim, Metric

AIM = Aim(
    metric=Metric(name="cost", direction="minimize", path="/s.py", fingerprint="0" * 16),
    class_weights="balanced",
    parameters=300_000,
)


def test_an_older_study_aims_at_accuracy() -> None:
    assert aim_of({}) == Aim()


def test_an_aim_is_read_as_it_was_stored() -> None:
    stored = {
        STUDY_METRIC: AIM.metric.identity,
        STUDY_METRIC_FILE: AIM.metric.path,
        STUDY_CLASS_WEIGHTS: AIM.class_weights,
        STUDY_CONSTRAINTS: AIM.constraints,
    }
    assert aim_of(stored) == AIM


@pytest.mark.parametrize(
    "attributes",
    [
        {STUDY_METRIC: {"name": "brier"}},  # of a newer mc1opt, which knows more metrics
        {STUDY_METRIC: "macro_f1"},
        {STUDY_METRIC: {"name": "log_loss", "direction": "maximize"}},
        {STUDY_CLASS_WEIGHTS: "effective"},
        {STUDY_CONSTRAINTS: {"seconds": 3}},
    ],
)
def test_what_cannot_be_read_is_said(attributes: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        aim_of(attributes)
