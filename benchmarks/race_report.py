"""`RACE.md`, its plot and `RACE.csv`, from the race's file of results alone.

Not here: searching (`race.py`).
"""

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import machine_line, markdown_table, save_svg
from mc1opt.files import read_lines
from mc1opt.presets import PRESETS

Line = dict[str, Any]
Lines = Mapping[str, Sequence[Line]]
"""The finished searches by arm, in the order of `TITLES`; none for an arm without any."""
Trace = Sequence[Sequence[float]]
"""Seconds since the start of a search, and the best value so far, at each improvement."""

REPORT, PLOT, TABLE = "RACE.md", "RACE.svg", "RACE.csv"
TITLES = {
    "a": "Optuna's tutorial loop",
    "b": "Ray Tune, ASHA, tutorial training",
    "c": "random search, our training",
    "d": "Optuna's TPE and median pruner, our training",
    "e": "mc1opt",
    "c+": "random search, our training, starting points",
    "d+": "TPE and median pruner, our training, starting points",
    "e+": "mc1opt with starting points",
}
COLOURS = {"a": "#0072b2", "b": "#009e73", "c": "#e69f00", "d": "#cc79a7", "e": "#d55e00"}
PUBLISHED = max(preset.published_accuracy for preset in PRESETS.values())
"""The source's best model: 0.7653."""
MARKS = {"a": 0.1, "b": 0.1, "c": 0.5, "d": 0.5}
"""In which part of their time mc1opt is to reach the final values of these arms, without starting points."""


def read_race(path: Path, minutes: float) -> Lines:
    """The searches of so many minutes, by arm and repetition."""
    lines: dict[str, list[Line]] = {name: [] for name in TITLES}
    for line in sorted(read_lines(path), key=lambda line: line["repetition"]):
        if line["minutes"] == minutes:
            lines[line["arm"]].append(line)
    return lines


def final_values(lines: Sequence[Line]) -> list[float]:
    """The best value of each search that completed a trial."""
    return [line["trace"][-1][1] for line in lines if line["trace"]]


def minutes_until(trace: Trace, value: float) -> float:
    """Minutes from the start of a search until its best value was at least `value`; infinite for never."""
    return next((seconds / 60 for seconds, best in trace if best >= value), math.inf)


def median_minutes(lines: Sequence[Line], value: float) -> float:
    """The median over an arm's searches of `minutes_until`, never among them."""
    return statistics.median(minutes_until(line["trace"], value) for line in lines)


def targets(lines: Lines) -> dict[str, float]:
    """The mean final value of each arm that mc1opt is measured against, as far as there is one."""
    found = {name: final_values(lines[name]) for name in MARKS}
    return {name: statistics.fmean(values) for name, values in found.items() if values}


# ---- The text --------------------------------------------------------------------------------------------


def report(lines: Lines) -> str:
    """`RACE.md` as text."""
    there = [line for arm in lines.values() for line in arm]
    if not there:
        return "# The race\n\nNothing is measured yet: `python -m benchmarks.race`.\n"
    machines = {machine_line(line["machine"]) for line in there}
    fidelity = there[0]["fidelity"]
    parts = [
        "# The race",
        "Written by `python -m benchmarks.race` from `results/race.jsonl`, not by hand; `race.py` says how "
        "each arm searches and trains. "
        f"{there[0]['minutes']:g} minutes of wall clock each, {there[0]['workers']} worker processes, the "
        f"search space of the study `cnn`, {fidelity['epochs']} epochs of {fidelity['train_images']:,} "
        f"images of {', '.join(sorted({line['data'] for line in there}))}.",
        "\n".join(f"- {machine}" for machine in sorted(machines)),
        f"![Best value over time]({PLOT})",
        "Values are validation accuracies: means over repetitions, (lowest to highest). Confirmed: the best "
        "config of each search trained twice again, with new seeds, validated on images that no search has "
        "seen. Minutes: medians over repetitions, (shortest to longest), until the best value so far reached "
        f"{PUBLISHED}, the best published model's, or the mean final value of another arm.",
        race_table(lines),
        "## What mc1opt was to show",
        marks_table(lines),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def race_table(lines: Lines) -> str:
    """A row for each arm."""
    goals = {str(PUBLISHED): PUBLISHED} | {
        f"({name})'s {value:.4f}": value for name, value in targets(lines).items()
    }
    header = ["arm", "n", "trials", "complete", "best", "confirmed", *(f"min until {goal}" for goal in goals)]
    rows = []
    for name, title in TITLES.items():
        searches = lines[name]
        row = [f"({name}) {title}", str(len(searches))]
        if searches:
            trained = [
                sum(line["trials"].get(what, 0) for what in ("complete", "pruned")) for line in searches
            ]
            complete = [line["trials"].get("complete", 0) for line in searches]
            again = [statistics.fmean(values) for line in searches if (values := confirmed(line))]
            row += [f"{statistics.fmean(trained):.0f}", f"{statistics.fmean(complete):.0f}"]
            row += [_accuracies(final_values(searches)), _accuracies(again)]
            row += [
                _minutes([minutes_until(line["trace"], goal) for line in searches]) for goal in goals.values()
            ]
        else:
            row += ["not measured", *[""] * (len(header) - 3)]
        rows.append(row)
    return markdown_table(header, rows)


def confirmed(line: Line) -> list[float]:
    """The accuracies with new seeds, without failures."""
    return [value for value in line["confirmed"] if value is not None]


def marks_table(lines: Lines) -> str:
    """How long mc1opt takes for the final values of other arms, as a part of their time, and the marks."""
    rows = []
    for name, goal in targets(lines).items():
        row = [f"({name}) {TITLES[name]}", f"{goal:.4f}", f"{MARKS[name]:g}"]
        if lines["e"]:
            share = median_minutes(lines["e"], goal) / lines[name][0]["minutes"]
            took = "never" if math.isinf(share) else f"{share:.2f}"
            row += [took, "reached" if share <= MARKS[name] else "missed"]
        else:
            row += ["not measured", ""]
        rows.append(row)
    header = ["final value of", "value", "mark: part of its time", "mc1opt took", "mark"]
    return markdown_table(header, rows)


def _accuracies(values: Sequence[float]) -> str:
    if not values:
        return "none"
    mean = f"{statistics.fmean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.4f} to {max(values):.4f})"


def _minutes(values: Sequence[float]) -> str:
    def text(value: float) -> str:
        return "never" if math.isinf(value) else f"{value:.1f}"

    median = text(statistics.median(values))
    low, high = text(min(values)), text(max(values))
    return median if low == high else f"{median} ({low} to {high})"


# ---- The plot, and all ------------------------------------------------------------------------------------


def median_trace(traces: Sequence[Trace]) -> list[tuple[float, float]]:
    """The median over searches of the best value so far, in minutes; from when all of them have one."""
    minutes = sorted({seconds / 60 for trace in traces for seconds, _ in trace})
    found = []
    for minute in minutes:
        values = [
            max((best for seconds, best in trace if seconds / 60 <= minute), default=None) for trace in traces
        ]
        there = [value for value in values if value is not None]
        if len(there) == len(traces):
            found.append((minute, statistics.median(there)))
    return found


def plot(lines: Lines, path: Path) -> None:
    """The best value over time: medians over the repetitions, each repetition thin behind them."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9.0, 6.0), layout="constrained")
    axes = figure.subplots()
    for name, searches in lines.items():
        style: dict[str, Any] = {"color": COLOURS[name[0]], "linestyle": "--" if "+" in name else "-"}
        traces = [line["trace"] for line in searches]
        for points, width in [
            *(([(seconds / 60, best) for seconds, best in trace], 0.5) for trace in traces),
            (median_trace(traces), 2.0),
        ]:
            if points:
                end = (searches[0]["minutes"], points[-1][1])
                label = f"({name}) {TITLES[name]}" if width > 1 else None
                axes.step(
                    *zip(*points, end, strict=True), where="post", linewidth=width, label=label, **style
                )
    axes.axhline(
        PUBLISHED, color="#444444", linewidth=1, linestyle=":", label=f"best published model, {PUBLISHED}"
    )
    axes.set(
        xscale="log",
        xlabel="minutes since the start of the command",
        ylabel="best validation accuracy so far",
    )
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    save_svg(figure, path)


def write_table(lines: Lines, path: Path) -> None:
    """All traces as CSV."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["arm", "repetition", "seconds", "best_value"])
        for name, searches in lines.items():
            for line in searches:
                table.writerows([name, line["repetition"], *point] for point in line["trace"])


def write_report(path: Path, minutes: float, folder: Path) -> None:
    """Writes `RACE.md`, `RACE.svg` and `RACE.csv` into `folder`.

    Args:
        path: the file of results.
        minutes: those of the searches that are told of.
        folder: made if need be.
    """
    lines = read_race(path, minutes)
    folder.mkdir(parents=True, exist_ok=True)
    plot(lines, folder / PLOT)
    write_table(lines, folder / TABLE)
    (folder / REPORT).write_text(report(lines))
