"""The figures of a study: what they show, from the first trial on, and their size whatever the study's."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mc1opt.database.records import StudyRecord, TrialRecord
from mc1opt.display.figures import (
    FIGURES,
    NAMED_CURVES,
    accuracy_and_parameters,
    best_over_time,
    epochs_before_pruning,
    learning_curves,
    study_figures,
    training_minutes,
)
from mc1opt.presets import PRESETS
from tests.support.display import study, trial
from tests.support.studies import run_study

LARGEST_FIGURE = 64 * 1024
"""Bytes of JSON. The page of a study loads all of them, every few seconds."""


def traces(figure: Any) -> dict[str, dict[str, Any]]:
    """The traces of a figure by name, as the page gets them."""
    return {trace["name"]: trace for trace in figure["data"]}


def title(figure: Any) -> str:
    return str(figure["layout"]["title"]["text"])


def timed(number: int, start: float, end: float, **fields: Any) -> TrialRecord:
    """A trial that was in training from one minute to another."""
    begun, ended = (
        (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)).isoformat() for minute in (start, end)
    )
    return trial(number, started=begun, ended=ended, **fields)


def large_study(trials: int, epochs: int) -> StudyRecord:
    """A third of the trials is complete, each a little better than the one before."""
    made = []
    for number in range(trials):
        outcome = "complete" if number % 3 == 0 else "pruned"
        curve = [0.1 + 0.8 * number / trials + epoch / 1e4 for epoch in range(epochs)]
        fields = {"values_by_epoch": curve, "parameters": 1000 + 17 * number}
        made.append(timed(number, number, number + 1, outcome=outcome, value=curve[-1], **fields))
    return study(*made)


# ---- Any study -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trials", [0, 1, 6])
def test_each_figure_is_drawn_from_the_first_trial_on(trials: int) -> None:
    figures = study_figures(run_study(trials).record) if trials else study_figures(study())
    assert list(figures) == list(FIGURES)
    for figure in figures.values():
        assert title(figure)


@pytest.mark.parametrize("epochs", [5, 300])
def test_a_figure_of_a_thousand_trials_stays_small(epochs: int) -> None:
    for name, figure in study_figures(large_study(1000, epochs)).items():
        assert len(json.dumps(figure)) < LARGEST_FIGURE, name


@pytest.mark.parametrize("name", FIGURES)
def test_trials_that_were_not_trained_change_nothing(name: str) -> None:
    trained = [timed(0, 0, 1, value=0.6), timed(1, 1, 2, outcome="pruned", value=0.3)]
    others = [
        timed(2, 9, 9, outcome="too_large"),
        timed(3, 9, 9, outcome="duplicate"),
        trial(4, "waiting"),
    ]
    assert FIGURES[name](study(*trained, *others)) == FIGURES[name](study(*trained))


# ---- Learning curves -------------------------------------------------------------------------------------


def test_pruned_curves_are_grey_and_the_best_have_names_and_colours() -> None:
    pruned = trial(1, "pruned", values_by_epoch=[0.2, 0.25])
    record = study(trial(0, value=0.61), pruned, trial(2, value=0.7), trial(3, "pruned", 0.1))
    shown = traces(learning_curves(record))
    assert list(shown) == ["pruned (2)", "#2  0.7000", "#0  0.6100"]
    others = [trial(4, "failed", values_by_epoch=[0.3]), trial(5, "running", values_by_epoch=[0.3, 0.4])]
    more = traces(learning_curves(study(*record.trials, *others)))
    assert list(more) == ["pruned (2)", "failed (1)", "in training (1)", "#2  0.7000", "#0  0.6100"]
    assert more["in training (1)"]["y"] == [0.3, 0.4]
    assert shown["pruned (2)"]["line"]["color"].startswith("rgba(128, 128, 128")
    assert shown["pruned (2)"]["x"] == [1, 2, None, 1, 2, 3]
    assert shown["pruned (2)"]["y"] == [0.2, 0.25, None, 0.1, 0.1, 0.1]
    assert shown["#2  0.7000"]["y"] == [0.7] * 5
    assert shown["#2  0.7000"]["line"]["color"] != shown["#0  0.6100"]["line"]["color"]


def test_complete_trials_behind_the_best_share_a_colour() -> None:
    record = study(*(trial(number, value=0.5 + number / 100) for number in range(NAMED_CURVES + 3)))
    shown = traces(learning_curves(record))
    assert "complete (3)" in shown
    assert "#0  0.5000" not in shown
    assert len(shown) == NAMED_CURVES + 1


def test_curves_that_are_left_out_are_said() -> None:
    names = list(traces(learning_curves(large_study(1000, 30))))
    shown, _, all_of_them = names[0].removeprefix("pruned (").removesuffix(")").partition(" of ")
    assert all_of_them == "666"
    assert 10 < int(shown) < 666


# ---- Accuracy and parameters -----------------------------------------------------------------------------


def test_beside_other_images_stand_no_published_models() -> None:
    other = study(trial(0, value=0.5, parameters=900), data={"name": "fashion_mnist", "sha256": "0"})
    assert "published models (test)" not in traces(accuracy_and_parameters(other))


def test_the_published_models_stand_beside_the_trials() -> None:
    record = study(
        trial(0, value=0.5, parameters=900),
        trial(1, value=0.7, parameters=2000, starting_point="wide"),
        trial(2, "pruned", 0.9),
    )
    figure = accuracy_and_parameters(record)
    shown = traces(figure)
    published = shown["published models (test)"]
    assert published["text"] == list(PRESETS)
    assert published["x"] == [preset.parameters for preset in PRESETS.values()]
    assert published["y"] == [preset.published_accuracy for preset in PRESETS.values()]
    assert (shown["trials (validation)"]["x"], shown["trials (validation)"]["y"]) == ([900], [0.5])
    assert shown["starting points (validation)"]["text"] == ["#1: 0.7000, wide"]
    assert figure["layout"]["xaxis"]["type"] == "log"


def test_the_front_goes_through_the_best_of_each_size_in_ever_larger_networks() -> None:
    sizes = {0: (100, 0.5), 1: (200, 0.4), 2: (300, 0.6), 3: (300, 0.55), 4: (400, 0.6)}
    record = study(*(trial(n, value=value, parameters=size) for n, (size, value) in sizes.items()))
    front = traces(accuracy_and_parameters(record))["best for their size"]
    assert list(zip(front["x"], front["y"], strict=True)) == [(100, 0.5), (300, 0.6)]


def test_the_best_trials_are_not_thinned_out() -> None:
    record = large_study(3000, 2)
    best = sorted((entry for entry in record.trials if entry.value), key=lambda entry: -(entry.value or 0.0))
    shown = traces(accuracy_and_parameters(record))["trials (validation)"]["x"]
    assert {entry.parameters for entry in best[:20]} <= set(shown)
    assert len(shown) < len(best)


# ---- Over time -------------------------------------------------------------------------------------------


def test_the_best_so_far_rises_when_a_better_trial_ends_and_lasts_to_the_end() -> None:
    record = study(
        timed(0, 0, 10, value=0.5),
        timed(1, 0, 30, value=0.4),
        timed(2, 10, 20, value=0.7),
        timed(3, 20, 40, outcome="pruned", value=0.9),
    )
    shown = traces(best_over_time(record))
    assert shown["best so far"]["x"] == [10, 20, 40]
    assert shown["best so far"]["y"] == [0.5, 0.7, 0.7]
    assert shown["complete trials"]["x"] == [10, 20, 30]


@pytest.mark.parametrize(
    ("times", "minutes"),
    [
        # The fourth was ended a day later, where the search was taken up again.
        ([(0, 10), (5, 15), (7, 8), (1500, 1510), (1505, 1520)], [10, 15, 8, 25, 35]),
        # The clock was set back.
        ([(0, 10), (100, 50), (50, 60)], [10, 20, 20]),
    ],
)
def test_minutes_of_training_run_on_while_trials_overlap_and_stand_still_in_pauses(
    times: list[tuple[float, float]], minutes: list[float]
) -> None:
    trials = [timed(number, *time) for number, time in enumerate(times)]
    assert training_minutes(trials) == pytest.approx(dict(enumerate(minutes)))


def test_a_long_search_is_shown_in_hours() -> None:
    shown = best_over_time(study(timed(0, 0, 600, value=0.5)))
    assert shown["layout"]["xaxis"]["title"]["text"] == "hours of training"
    assert shown["data"][1]["x"] == [10, 10]


# ---- Pruning ---------------------------------------------------------------------------------------------


def test_trials_are_counted_by_the_epoch_after_which_they_ended() -> None:
    record = study(
        trial(0, value=0.5),
        trial(1, "pruned", values_by_epoch=[0.1]),
        trial(2, "pruned", values_by_epoch=[0.1]),
        trial(3, "pruned", values_by_epoch=[0.1, 0.2, 0.3]),
        trial(4, "failed", values_by_epoch=[0.1, 0.1]),
        trial(5, "failed"),
    )
    figure = epochs_before_pruning(record)
    shown = traces(figure)
    assert shown["pruned"]["x"] == [1, 2, 3, 4, 5]
    assert shown["pruned"]["y"] == [2, 0, 1, 0, 0]
    assert shown["failed"]["y"] == [0, 1, 0, 0, 0]
    assert shown["complete"]["y"] == [0, 0, 0, 0, 1]
    assert "10 of 20 epochs (50%)" in title(figure)
