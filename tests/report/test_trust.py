"""What speaks for and against results: each check's verdict, and the gravest first."""

from dataclasses import replace
from typing import Any

import pytest

from mc1opt.data.examine import Examination, Finding
from mc1opt.database.records import StudyRecord
from mc1opt.report.facts import Facts
from mc1opt.report.trust import LEAST_TRIALS, ORDER, Check, checks, early_ranks
from tests.support.display import again, study, trial


def facts(record: StudyRecord, **changes: Any) -> Facts:
    known = Facts(
        record=record,
        storage="s.db",
        importances={},
        model=None,
        openings=[],
        replays=[],
        latency=None,
        explanation=None,
        data=None,
        examination=None,
    )
    return replace(known, **changes)


def verdicts(record: StudyRecord, **changes: Any) -> dict[str, str]:
    return {check.title: check.verdict for check in checks(facts(record, **changes))}


def curve(number: int, *values: float, **fields: Any) -> Any:
    return trial(number, value=values[-1], values_by_epoch=list(values), **fields)


def test_the_gravest_come_first() -> None:
    found = checks(facts(study(trial(0), trial(1, "failed"))))
    places = [ORDER.index(check.verdict) for check in found]
    assert places == sorted(places)
    assert len({check.title for check in found}) == len(found)
    assert all(isinstance(check, Check) and check.text for check in found)


def test_test_images_that_were_opened_without_a_model_are_told() -> None:
    assert verdicts(study(trial(0)))["Test images"] == "unsure"
    (told,) = (c for c in checks(facts(study(trial(0)), openings=["then by X"])) if c.title == "Test images")
    assert "then by X" in told.text


@pytest.mark.parametrize(
    ("groups", "verdict"),
    [
        ({}, "bad"),
        ({0: [0.7]}, "bad"),
        ({0: [0.70, 0.71]}, "unsure"),
        ({0: [0.70, 0.71], 1: [0.705, 0.70]}, "unsure"),
        ({0: [0.80, 0.801], 1: [0.70, 0.701]}, "good"),
    ],
)
def test_a_lead_counts_when_it_is_more_than_seed_noise(groups: dict[int, list[float]], verdict: str) -> None:
    trials = [trial(number, confirmations=again(*groups.get(number, []))) for number in range(2)]
    assert verdicts(study(*trials))["Ahead by more than luck"] == verdict


@pytest.mark.parametrize(
    ("replays", "verdict"),
    [
        ([], "unsure"),
        ([{"trial": 1, "equal": True}], "good"),
        ([{"trial": 1, "equal": None}], "unsure"),
        ([{"trial": 1, "equal": True}, {"trial": 2, "equal": False}], "bad"),
    ],
)
def test_a_replay_that_differs_is_grave(replays: list[dict[str, Any]], verdict: str) -> None:
    assert verdicts(study(trial(0)), replays=replays)["Repeatable"] == verdict


@pytest.mark.parametrize(
    ("sampled", "given", "verdict"),
    [
        ([0.8, 0.801], [0.7, 0.701], "good"),
        ([0.7, 0.701], [0.8, 0.801], "bad"),
        ([0.70, 0.72], [0.71, 0.70], "unsure"),
        ([], [], "unsure"),
    ],
)
def test_what_the_search_has_added_is_told_by_its_interval(
    sampled: list[float], given: list[float], verdict: str
) -> None:
    trials = [
        trial(0, confirmations=again(*sampled)),
        trial(1, starting_point="x", confirmations=again(*given)),
    ]
    assert verdicts(study(*trials))["Found by the search"] == verdict


def test_without_starting_points_all_is_the_searchs() -> None:
    assert verdicts(study(trial(0)))["Found by the search"] == "good"


@pytest.mark.parametrize(("failed", "verdict"), [(0, "good"), (1, "unsure"), (3, "bad")])
def test_many_failures_are_grave(failed: int, verdict: str) -> None:
    trials = [trial(number, "failed" if number < failed else "complete") for number in range(20)]
    assert verdicts(study(*trials))["Failures"] == verdict


@pytest.mark.parametrize(("ranks", "verdict"), [(1, "good"), (-1, "bad")])
def test_pruning_is_judged_by_how_early_values_rank_the_end(ranks: int, verdict: str) -> None:
    whole = [curve(n, 0.5 + ranks * n / 100, 0.3, 0.6 + n / 100) for n in range(LEAST_TRIALS)]
    record = study(*whole, trial(50, "pruned", values_by_epoch=[0.1]))
    assert verdicts(record)["Pruning"] == verdict
    assert early_ranks(record) == [(1, pytest.approx(ranks))]  # all are equal after the second


def test_of_few_whole_trials_nothing_is_told() -> None:
    record = study(*(curve(n, 0.5, 0.6) for n in range(LEAST_TRIALS - 1)), trial(50, "pruned"))
    assert early_ranks(record) == []
    assert verdicts(record)["Pruning"] == "unsure"


@pytest.mark.parametrize(
    ("examination", "verdict"),
    [
        (Examination({}, 0.0, []), "unsure"),
        (Examination({"a": (1, 1, 1)}, 0.0, []), "good"),
        (Examination({"a": (1, 1, 1)}, 0.0, [Finding("k", False, "what", "do")]), "good"),
        (Examination({}, 0.0, [Finding("test leak", True, "what", "do")]), "bad"),
    ],
)
def test_data_that_were_not_looked_at_are_no_reason_to_believe(
    examination: Examination, verdict: str
) -> None:
    assert verdicts(study(trial(0)), examination=examination)["Data"] == verdict
    assert "Data" not in verdicts(study(trial(0)))
