"""The figures of a study: study record -> traces and layout as Plotly takes them. Reads and stores nothing.

Optuna-dashboard draws them with Plotly, the report as SVG (`mc1opt.display.svg`).

Their size is bounded for any number of trials: points are thinned out evenly, except for the best trials.
"""

import bisect
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict, TypeVar

from mc1opt.calibration import Bin
from mc1opt.database.records import StudyRecord, TrialRecord, by_value
from mc1opt.dataset import CIFAR10_DATA
from mc1opt.display.tables import pruning_line
from mc1opt.metric import Metric
from mc1opt.models.cost import cost
from mc1opt.presets import PRESETS

T = TypeVar("T")
Point = tuple[float, float]
Trace = dict[str, Any]


class Figure(TypedDict):
    """A Plotly figure as JSON."""

    data: list[Trace]
    layout: dict[str, Any]


NAMED_CURVES = 8
"""Best trials whose learning curves have their own name and colour."""
POINTS_A_CURVE = 60
POINTS_A_GROUP = 2000
"""All points of the learning curves that share a colour."""
TRIALS = 400
"""Points of a figure with one point per trial."""

PUBLIC_RECIPES = {
    "ResNet-20": (270_000, 0.926),
    "ResNet-32": (470_000, 0.935),
    "ResNet-44": (660_000, 0.940),
    "ResNet-56": (860_000, 0.944),
    "airbench94, six views": (1_970_000, 0.940),
}
"""Parameters and test accuracy on CIFAR-10 as their authors tell them: Yaofo Chen's models, and Keller
Jordan's record, which was tuned on the test images and averages six views of each."""

COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf")
GREY = "rgba(128, 128, 128, 0.45)"
FAINT = "rgba(31, 119, 180, 0.3)"
TEXT = "#7a7a7a"
"""Readable on the page's white and black backgrounds."""


def study_figures(record: StudyRecord) -> dict[str, Figure]:
    """All figures of a study by their ids in the dashboard."""
    return {name: figure(record) for name, figure in FIGURES.items()}


# ---- The figures -----------------------------------------------------------------------------------------


def learning_curves(record: StudyRecord) -> Figure:
    """Validation metric by epoch of each trained trial: pruned and failed ones grey, the best by name."""
    complete = by_value(record.trials)
    pruned, failed, running = (
        [trial for trial in record.trials if trial.outcome == outcome]
        for outcome in ("pruned", "failed", "running")
    )
    traces = [
        _group("pruned", pruned, GREY),
        _group("failed", failed, GREY, dash="dash"),
        _group("complete", complete[NAMED_CURVES:], FAINT),
        _group("in training", running, TEXT, dash="dot"),
    ]
    for trial, colour in zip(complete, COLOURS[:NAMED_CURVES], strict=False):
        traces.append(_lines(f"#{trial.number}  {trial.value:.4f}", [_curve(trial)], colour, width=2.5))
    return _figure(
        [trace for trace in traces if trace is not None],
        title="Learning curves",
        x={"title": "epoch", "dtick": 1} if _epochs(record) <= 15 else {"title": "epoch"},
        y={"title": f"validation {record.metric.label}"},
    )


def accuracy_and_parameters(record: StudyRecord) -> Figure:
    """Value of the complete trials against their parameters; see `_accuracy_and`."""
    return _accuracy_and(record, "parameters", "parameters", "trained parameters", 1.0)


def accuracy_and_macs(record: StudyRecord) -> Figure:
    """The same against the multiply-accumulates of an image, in millions."""
    return _accuracy_and(record, "macs", "multiply-accumulates", "million multiply-accumulates an image", 1e6)


def _accuracy_and(record: StudyRecord, size: str, name: str, axis: str, unit: float) -> Figure:
    """Value of the complete trials against their size; on CIFAR-10, accuracies of published models too.

    Published accuracies are of full trainings on the test images, the trials' are at the study's fidelity on
    the validation images: the figure says so.
    """

    def sizes(sized: Iterable[Any]) -> list[float]:
        return [getattr(each, size) / unit for each in sized]

    ranked = [trial for trial in by_value(record.trials) if getattr(trial, size)]
    trials = [*ranked[: TRIALS // 4], *_thin(ranked[TRIALS // 4 :], TRIALS - TRIALS // 4)]
    traces = []
    for title, given, colour, symbol in (
        ("trials (validation)", False, COLOURS[0], "circle"),
        ("starting points (validation)", True, COLOURS[2], "square"),
    ):
        shown = [trial for trial in trials if bool(trial.starting_point) == given]
        marker = {"color": colour, "symbol": symbol, "size": 7}
        traces.append(_trials(title, sizes(shown), shown, marker, f", %{{x:,}} {name}"))
    points = zip(sizes(ranked), [trial.value or 0.0 for trial in ranked], strict=True)
    front = _staircase("best for their size", _front(points, record.metric), {"width": 1, "dash": "dot"})
    traces.append(front | {"hoverinfo": "skip"})
    label = record.metric.label
    title = f"{label[0].upper()}{label[1:]} and {name}"
    if (record.data or {}).get("name") == CIFAR10_DATA.name and record.metric.is_accuracy:
        title += ", beside the published models"
        costs = [cost(preset.config.architecture, CIFAR10_DATA.shape) for preset in PRESETS.values()]
        traces.append(
            {
                "name": "published models (test)",
                "x": sizes(costs),
                "y": [preset.published_accuracy for preset in PRESETS.values()],
                "text": list(PRESETS),
                "mode": "markers",
                "marker": {"color": COLOURS[1], "symbol": "diamond", "size": 9},
                "hovertemplate": f"%{{text}}: %{{y:.4f}}, %{{x:,}} {name}<extra></extra>",
            }
        )
        if size == "parameters":
            traces.append(
                traces[-1]
                | {
                    "name": "public recipes (test)",
                    "x": [parameters for parameters, _ in PUBLIC_RECIPES.values()],
                    "y": [accuracy for _, accuracy in PUBLIC_RECIPES.values()],
                    "text": list(PUBLIC_RECIPES),
                    "marker": {"color": COLOURS[4], "symbol": "diamond", "size": 9},
                }
            )
    return _figure(traces, title=title, x={"title": axis, "type": "log"}, y={"title": label})


def best_over_time(record: StudyRecord) -> Figure:
    """The best accuracy so far against training time, without the pauses between trials."""
    minutes = training_minutes(record.trials)
    ended = sorted(
        (trial for trial in by_value(record.trials) if trial.number in minutes),
        key=lambda trial: minutes[trial.number],
    )
    unit, scale = ("hours", 60.0) if max(minutes.values(), default=0.0) > 180.0 else ("minutes", 1.0)
    steps: list[Point] = []
    for trial in ended:
        if not steps or trial.score > trial.scored(steps[-1][1]):
            steps.append((minutes[trial.number] / scale, trial.value or 0.0))
    if steps:
        steps.append((max(minutes.values()) / scale, steps[-1][1]))
    shown = _thin(ended, TRIALS)
    given = [trial.value or 0.0 for trial in ended if trial.starting_point]
    times = [_rounded(minutes[trial.number] / scale) for trial in shown]
    traces = [
        _trials("complete trials", times, shown, {"color": FAINT, "size": 6}),
        _staircase("best so far", _thin(steps, TRIALS), {"width": 2.5}),
    ]
    if given:
        height = _rounded(max(given, key=record.metric.score))
        level = [(0.0, height), (steps[-1][0], height)]
        traces.append(_lines("best starting point", [level], COLOURS[2], dash="dot") | {"mode": "lines"})
    return _figure(
        traces,
        title=f"Best {record.metric.label} over time",
        x={"title": f"{unit} of training", "rangemode": "tozero"},
        y={"title": f"validation {record.metric.label}"},
    )


def epochs_before_pruning(record: StudyRecord) -> Figure:
    """Number of trials that ended after each epoch: pruned, failed or complete."""
    epochs = list(range(1, _epochs(record) + 1))
    colours = {"pruned": "#8c8c8c", "failed": COLOURS[3], "complete": COLOURS[0]}
    traces = []
    for outcome, colour in colours.items():
        counts = Counter(
            len(trial.values_by_epoch)
            for trial in record.trials
            if trial.outcome == outcome and trial.values_by_epoch
        )
        if counts:
            heights = [counts[epoch] for epoch in epochs]
            traces.append(
                {
                    "type": "bar",
                    "name": outcome,
                    "x": epochs,
                    "y": heights,
                    "text": [str(height or "") for height in heights],
                    "marker": {"color": colour},
                }
            )
    saved = pruning_line(record)
    figure = _figure(
        traces,
        title="How far trials got" + (f". {saved.removesuffix('.')}" if saved else ""),
        x={"title": "epochs trained", "dtick": 1} if len(epochs) <= 30 else {"title": "epochs trained"},
        y={"title": "trials"},
    )
    figure["layout"]["barmode"] = "stack"
    return figure


def reliability(bins: Sequence[Bin]) -> Figure:
    """Accuracy of a model's decisions by the probability that it gives them."""
    points: list[Point] = [(each.confidence, each.accuracy) for each in bins]
    traces = [
        _lines("believable", [[(0.0, 0.0), (1.0, 1.0)]], TEXT, dash="dot") | {"mode": "lines"},
        _lines("the model", [points], COLOURS[0], width=2.5)
        | {
            "text": [f"{each.images:,} images" for each in bins],
            "hovertemplate": "%{text}: probability %{x:.3f}, accuracy %{y:.3f}<extra></extra>",
        },
    ]
    return _figure(
        traces,
        title="Can its probabilities be believed?",
        x={"title": "probability"},
        y={"title": "accuracy"},
    )


FIGURES: dict[str, Callable[[StudyRecord], Figure]] = {
    "learning-curves": learning_curves,
    "accuracy-and-parameters": accuracy_and_parameters,
    "best-over-time": best_over_time,
    "epochs-before-pruning": epochs_before_pruning,
}
"""By id on the page: letters and hyphens."""


# ---- Times -----------------------------------------------------------------------------------------------


def training_minutes(trials: Iterable[TrialRecord]) -> dict[int, float]:
    """Minutes of training until the end of each trained trial, by number; pauses do not count."""
    spans = {
        # The clock may have been set back meanwhile.
        trial.number: (_timestamp(trial.started), max(_timestamp(trial.started), _timestamp(trial.ended)))
        for trial in trials
        if trial.outcome in ("complete", "pruned", "failed") and trial.started and trial.ended
    }
    begins: list[float] = []  # of each stretch without a pause
    ends: list[float] = []
    for start, end in sorted(spans.values()):
        if ends and start <= ends[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            begins.append(start)
            ends.append(end)
    lengths = [end - begin for begin, end in zip(begins, ends, strict=True)]
    before = list(itertools.accumulate(lengths, initial=0.0))
    minutes = {}
    for number, (_, end) in spans.items():
        stretch = bisect.bisect_right(begins, end) - 1
        minutes[number] = (before[stretch] + end - begins[stretch]) / 60.0
    return minutes


def _timestamp(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


# ---- Parts -----------------------------------------------------------------------------------------------


def _figure(traces: list[Trace], *, title: str, x: Mapping[str, Any], y: Mapping[str, Any]) -> Figure:
    """A figure without background and without Plotly's template, which takes 7 kB of JSON."""
    axis = {
        "gridcolor": "rgba(128, 128, 128, 0.25)",
        "linecolor": TEXT,
        "zeroline": False,
        "automargin": True,
    }
    layout = {
        "template": {},
        # Below the buttons at the top of each figure.
        "title": {"text": title, "font": {"size": 15}, "y": 0.88},
        "modebar": {"bgcolor": "rgba(0, 0, 0, 0)", "color": TEXT},
        "font": {"color": TEXT},
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "margin": {"l": 60, "r": 20, "t": 85, "b": 60},
        "legend": {"orientation": "h", "y": -0.25, "yanchor": "top"},
        "xaxis": {**axis, **x, "title": {"text": x["title"]}},
        "yaxis": {**axis, **y, "title": {"text": y["title"]}},
        # Keeps zoom and hidden traces when the figure is drawn again.
        "uirevision": "mc1opt",
    }
    return {"data": traces, "layout": layout}


def _epochs(record: StudyRecord) -> int:
    longest = max((len(trial.values_by_epoch) for trial in record.trials), default=1)
    return max(longest, record.fidelity.all_epochs if record.fidelity else 1)


def _group(name: str, trials: Sequence[TrialRecord], colour: str, *, dash: str = "solid") -> Trace | None:
    """Many curves as one trace; None without any."""
    curves = [curve for trial in trials if (curve := _curve(trial))]
    if not curves:
        return None
    points = sum(len(curve) + 1 for curve in curves)
    kept = _thin(curves, max(1, len(curves) * POINTS_A_GROUP // max(points, POINTS_A_GROUP)))
    some = "" if len(kept) == len(curves) else f"{len(kept)} of "
    return _lines(f"{name} ({some}{len(curves)})", kept, colour, dash=dash)


def _lines(
    name: str, curves: Sequence[Sequence[Point]], colour: str, *, width: float = 1.0, dash: str = "solid"
) -> Trace:
    """Curves as one trace with gaps between them; a single point is a marker."""
    gaps: list[tuple[float | None, float | None]] = list(
        itertools.chain.from_iterable([(None, None), *curve] for curve in curves)
    )[1:]
    return {
        "name": name,
        "x": [x for x, _ in gaps],
        "y": [None if y is None else _rounded(y) for _, y in gaps],
        "mode": "lines+markers",
        "marker": {"size": 4},
        "line": {"color": colour, "width": width, "dash": dash},
    }


def _curve(trial: TrialRecord) -> list[Point]:
    """Epochs, from 1, and accuracies."""
    return _thin([(epoch + 1, value) for epoch, value in enumerate(trial.values_by_epoch)], POINTS_A_CURVE)


def _trials(
    name: str, x: Sequence[float | None], trials: Sequence[TrialRecord], marker: Trace, more: str = ""
) -> Trace:
    """A marker for each trial at its value; `more` is shown behind its number and value."""
    starts = (f", {trial.starting_point}" if trial.starting_point else "" for trial in trials)
    return {
        "name": name,
        "x": x,
        "y": [_rounded(trial.value or 0.0) for trial in trials],
        "text": [
            f"#{trial.number}: {trial.value:.4f}{start}" for trial, start in zip(trials, starts, strict=True)
        ],
        "mode": "markers",
        "marker": marker,
        "hovertemplate": f"%{{text}}{more}<extra></extra>",
    }


def _staircase(name: str, points: Sequence[Point], line: Trace) -> Trace:
    return {
        "name": name,
        "x": [_rounded(x) for x, _ in points],
        "y": [_rounded(y) for _, y in points],
        "mode": "lines",
        "line": {"color": COLOURS[0], "shape": "hv", **line},
    }


def _front(points: Iterable[Point], metric: Metric) -> list[Point]:
    """The Pareto front: points without another that is as small and better."""
    front: list[Point] = []
    for x, y in sorted(points, key=lambda point: (point[0], -metric.score(point[1]))):
        if not front or metric.score(y) > metric.score(front[-1][1]):
            front.append((x, y))
    return front


def _thin(items: Sequence[T], most: int) -> list[T]:
    """At most `most` items, evenly spread, including the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / max(1, most - 1))] for i in range(most)]


def _rounded(value: float) -> float:
    return round(value, 4)
