"""Options, stored study and definition in one: what holds."""

import pytest

from mc1opt.errors import UsageError
from mc1opt.metric import ACCURACY, Metric, known_metric
from mc1opt.search.settings import check_until

OWN = Metric(name="cost", direction="minimize", path="mine.py")


@pytest.mark.parametrize(
    ("until", "metric"), [(None, ACCURACY), (0.0, ACCURACY), (1.0, ACCURACY), (90.0, OWN), (-2.0, OWN)]
)
def test_a_value_to_reach_may_be_any_that_the_metric_has(until: float | None, metric: Metric) -> None:
    check_until(until, metric)


@pytest.mark.parametrize(
    ("until", "metric", "what"),
    [
        (90.0, ACCURACY, "--until 90: accuracy .*0.9"),
        (-0.1, known_metric("macro_f1"), "--until -0.1: macro F1"),
        (float("nan"), ACCURACY, "--until nan"),
        (float("inf"), OWN, "--until inf: .*finite"),
    ],
)
def test_others_are_refused(until: float, metric: Metric, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        check_until(until, metric)
