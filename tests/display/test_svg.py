"""Figures as SVG: what they show, where, and that names stay text."""

import re
from xml.etree import ElementTree

import pytest

from mc1opt.calibration import Bin
from mc1opt.display.figures import FIGURES, Figure, accuracy_and_macs, accuracy_and_parameters, reliability
from mc1opt.display.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, figure_svg
from tests.support.display import study, trial
from tests.support.studies import run_study


def drawn(figure: Figure) -> ElementTree.Element:
    return ElementTree.fromstring(f"<figure>{figure_svg(figure)}</figure>")


def titles(figure: Figure) -> list[str]:
    return [element.text or "" for element in drawn(figure).iter("title")]


@pytest.mark.parametrize("trials", [0, 1, 6])
def test_each_figure_is_drawn_from_the_first_trial_on(trials: int) -> None:
    record = run_study(trials).record if trials else study()
    for make in (*FIGURES.values(), accuracy_and_macs):
        found = drawn(make(record))
        assert found[0].get("aria-label") == make(record)["layout"]["title"]["text"]
        assert len(found[1]) == sum(bool(trace["x"]) for trace in make(record)["data"])


def test_all_that_is_drawn_lies_within_the_plot() -> None:
    record = run_study(12).record
    for make in FIGURES.values():
        for circle in drawn(make(record)).iter("circle"):
            if circle.get("cy") != "6.0":  # not in the legend
                assert LEFT <= float(circle.get("cx", "")) <= WIDTH - RIGHT
                assert TOP <= float(circle.get("cy", "")) <= HEIGHT - BOTTOM


def test_a_point_says_what_it_is_where_a_pointer_rests() -> None:
    figure = accuracy_and_parameters(study(trial(0, value=0.75, parameters=2000), trial(1, value=0.5)))
    assert "#0: 0.7500, 2,000.0 parameters" in titles(figure)
    assert any(title.startswith("cnn-deep: 0.7621, 54,093,194") for title in titles(figure))


def test_larger_values_are_higher_and_larger_sizes_further_right() -> None:
    record = study(
        trial(0, value=0.3, parameters=1000), trial(1, value=0.6, parameters=10_000), data={"name": "own"}
    )
    high, low = (
        c for c in drawn(accuracy_and_parameters(record)).iter("circle") if c.find("title") is not None
    )
    assert float(low.get("cx", "")) < float(high.get("cx", ""))
    assert float(low.get("cy", "")) > float(high.get("cy", ""))


def test_names_stay_text() -> None:
    hostile = '<script>alert(1)</script> & "x" \''
    record = study(trial(0, starting_point=hostile))
    text = figure_svg(accuracy_and_parameters(record))
    assert "<script" not in text
    assert any(hostile in title for title in titles(accuracy_and_parameters(record)))


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis(0.0, 1.0, 0, 1), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (Axis(0.61, 0.83, 0, 1), [0.65, 0.7, 0.75, 0.8]),
        (Axis(90.0, 2e4, 0, 1, log=True), [100, 200, 500, 1000, 2000, 5000, 10_000, 20_000]),
        (Axis(900.0, 2e7, 0, 1, log=True), [1e3, 1e4, 1e5, 1e6, 1e7]),
    ],
)
def test_ticks_are_round_values_between_the_ends(axis: Axis, ticks: list[float]) -> None:
    assert axis.ticks() == pytest.approx(ticks)


def test_epochs_are_whole_numbers() -> None:
    labels = [text.text for text in drawn(FIGURES["learning-curves"](study(trial(0)))).iter("text")]
    assert labels[: labels.index("5") + 1] == ["1", "2", "3", "4", "5"]


def test_a_line_has_a_gap_between_two_curves() -> None:
    record = study(*(trial(number, "pruned", 0.1 * number) for number in range(1, 4)))
    paths = [
        path
        for path in drawn(FIGURES["learning-curves"](record)).iter("path")
        if path.find("title") is not None
    ]
    assert len(paths) == 3
    assert all(len(re.findall("[ML]", path.get("d", ""))) == 3 for path in paths)


def test_reliability_shows_each_bin() -> None:
    assert drawn(reliability([]))[0].get("role") == "img"
    figure = reliability([Bin(20, 0.5, 0.4), Bin(80, 0.9, 0.95)])
    shown = [title for title in titles(figure) if "images" in title]
    assert shown == [
        "20 images: probability 0.500, accuracy 0.400",
        "80 images: probability 0.900, accuracy 0.950",
    ]
