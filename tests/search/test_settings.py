"""Options, stored study and definition in one: what holds."""

import pytest

from mc1opt.errors import UsageError
from mc1opt.machine.resources import default_workers
from mc1opt.metric import ACCURACY, Metric, known_metric
from mc1opt.search.settings import check_until, resolve_workers


def test_workers_are_a_number_or_as_many_as_the_machine_has_room_for() -> None:
    assert resolve_workers("3", "cpu") == 3
    assert resolve_workers("256", "cuda") == 256
    assert resolve_workers("auto", "cpu") == default_workers(device="cpu")


def test_on_mps_one_worker_trains() -> None:
    assert resolve_workers("auto", "mps") == resolve_workers("1", "mps") == 1
    with pytest.raises(UsageError, match=r"--workers 2.* 1 "):
        resolve_workers("2", "mps")


@pytest.mark.parametrize("text", ["0", "-1", "257", "two", "1.5", "", "1e2", "²"])
def test_other_workers_are_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(UsageError, match="1 to 256"):
        resolve_workers(text, "cpu")


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
