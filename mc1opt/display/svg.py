"""Figures as SVG: readable without scripts, in light and dark pages, and printed.

Draws what `mc1opt.display.figures` makes: lines, steps, markers and stacked bars on linear axes, and a
logarithmic x axis. What a pointer rests on says what it is. Text takes the colour of the page's.
"""

import html
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mc1opt.display.figures import Figure, Trace

WIDTH, HEIGHT = 760.0, 360.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 14.0, 14.0, 46.0
"""Margins of the plot, in the same units."""
TICKS = 6
"""Of an axis, about."""
MOST_MARKERS = 150
"""Of a line with more points, only those that stand alone are marked."""
DASHES = {"dash": "6 4", "dot": "2 3"}


@dataclass(frozen=True)
class Axis:
    """From values to places."""

    low: float
    high: float
    start: float
    """The place of `low`."""
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, least: float = 0.0) -> list[float]:
        """Round values between the ends, at least so far apart on a linear axis."""
        if self.log:
            decades = range(int(math.log10(self.low) // 1), math.ceil(math.log10(self.high)))
            steps = (1, 2, 5) if self.high < 1000 * self.low else (1,)
            return [v for d in decades for s in steps if self.low <= (v := s * 10.0**d) <= self.high]
        rough = max((self.high - self.low) / TICKS, least)
        power = 10.0 ** (math.log10(rough) // 1)
        step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough)
        first, last = math.ceil(self.low / step - 1e-9), int((self.high / step + 1e-9) // 1)
        return [number * step for number in range(first, last + 1)]


def figure_svg(figure: Figure) -> str:
    """A figure as an SVG element, and a list that explains its colours; both as HTML."""
    x, y = _axes(figure)
    layout = figure["layout"]
    parts = [*_grid(x, y, layout)]
    bars: dict[float, float] = {}
    for trace in figure["data"]:
        parts += _bars(trace, x, y, bars) if trace.get("type") == "bar" else _scatter(trace, x, y)
    title = html.escape(layout["title"]["text"])
    legend = "".join(_entry(trace) for trace in figure["data"] if trace["x"])
    return (
        f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{title}">{"".join(parts)}</svg>'
        f'<ul class="legend">{legend}</ul>'
    )


# ---- Axes ------------------------------------------------------------------------------------------------


def _axes(figure: Figure) -> tuple[Axis, Axis]:
    traces = figure["data"]
    bars = [trace for trace in traces if trace.get("type") == "bar"]
    xs = [x for trace in traces for x in trace["x"] if x is not None]
    ys = [y for trace in traces for y in trace["y"] if y is not None]
    if bars:
        xs += [min(xs) - 0.6, max(xs) + 0.6]
        ys = [0.0, *(sum(heights) for heights in zip(*(trace["y"] for trace in bars), strict=True))]
    log = figure["layout"]["xaxis"].get("type") == "log"
    if figure["layout"]["xaxis"].get("rangemode") == "tozero":
        xs.append(0.0)
    return (
        Axis(*_range(xs, log, 0.0 if bars else 0.03), LEFT, WIDTH - RIGHT, log),
        Axis(*_range(ys, False, 0.05), HEIGHT - BOTTOM, TOP),
    )


def _range(values: Sequence[float], log: bool, margin: float) -> tuple[float, float]:
    """From below the least value to above the greatest; any range without values."""
    if not values:
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = min(values), max(values)
    if log:
        return low / (high / low) ** margin / 1.1, high * (high / low) ** margin * 1.1
    spread = (high - low) * margin or abs(high) * margin or 0.5
    return (low if low == 0.0 else low - spread), high + spread


def _grid(x: Axis, y: Axis, layout: dict[str, Any]) -> Iterator[str]:
    for tick in x.ticks(layout["xaxis"].get("dtick", 0.0)):
        yield f'<path class="grid" d="M{x(tick):.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
        yield _text(x(tick), HEIGHT - BOTTOM + 17, _number(tick), "middle")
    for tick in y.ticks():
        yield f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}"/>'
        yield _text(LEFT - 7, y(tick) + 4, _number(tick), "end")
    middle = (TOP + HEIGHT - BOTTOM) / 2
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, layout["xaxis"]["title"]["text"], "middle")
    turned = f' transform="rotate(-90 14 {middle})"'
    yield _text(14, middle, layout["yaxis"]["title"]["text"], "middle", turned)


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{html.escape(text)}</text>'


def _number(value: float) -> str:
    for least, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= least:
            return f"{value / least:g}{letter}"
    return f"{value:.6g}"


# ---- Traces ----------------------------------------------------------------------------------------------


def _scatter(trace: Trace, x: Axis, y: Axis) -> Iterator[str]:
    name = html.escape(trace["name"])
    points = [
        None if a is None or b is None else (x(a), y(b)) for a, b in zip(trace["x"], trace["y"], strict=True)
    ]
    curves = [
        [point for point in group if point]
        for there, group in itertools.groupby(points, lambda point: point is not None)
        if there
    ]
    if "lines" in trace["mode"]:
        stepped = trace["line"].get("shape") == "hv"
        for curve in curves:
            if len(curve) > 1:
                drawn = f'<path class="line" d="{_path(curve, stepped)}" {_stroke(trace)}>'
                yield f"{drawn}<title>{name}</title></path>"
    if "markers" not in trace["mode"]:
        return
    alone = {curve[0] for curve in curves if len(curve) == 1}
    marked = "lines" not in trace["mode"] or len(points) <= MOST_MARKERS
    for point, said in zip(points, _said(trace), strict=True):
        if point and (marked or point in alone):
            yield _marker(trace, *point, f"<title>{html.escape(said)}</title>")


def _path(curve: Iterable[tuple[float, float]], stepped: bool) -> str:
    (left, top), *rest = curve
    return f"M{left:.1f} {top:.1f}" + "".join(
        f"H{a:.1f}V{b:.1f}" if stepped else f"L{a:.1f} {b:.1f}" for a, b in rest
    )


def _stroke(trace: Trace) -> str:
    line = trace["line"]
    dash = DASHES.get(line.get("dash", "solid"))
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'stroke="{line["color"]}" stroke-width="{line.get("width", 1.5)}"{dashed}'


def _marker(trace: Trace, x: float, y: float, title: str = "") -> str:
    marker = trace["marker"]
    colour = marker.get("color") or trace["line"]["color"]
    half = marker["size"] / 2
    if marker.get("symbol", "circle") == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{half:g}" fill="{colour}">{title}</circle>'
    turned = f' transform="rotate(45 {x:.1f} {y:.1f})"' if marker["symbol"] == "diamond" else ""
    place = f'x="{x - half:.1f}" y="{y - half:.1f}" width="{2 * half:g}" height="{2 * half:g}"'
    return f'<rect {place} fill="{colour}"{turned}>{title}</rect>'


def _said(trace: Trace) -> Iterator[str]:
    """What each point says, as Plotly's `hovertemplate` has it."""
    template = trace.get("hovertemplate", "%{text}: %{x:.6g}, %{y:.4f}").removesuffix("<extra></extra>")
    texts = trace.get("text") or itertools.repeat(trace["name"])
    for x, y, text in zip(trace["x"], trace["y"], texts, strict=False):
        values = {"x": x, "y": y, "text": text}

        def value(found: re.Match[str], values: dict[str, Any] = values) -> str:
            return format(values[found[1]], found[2] or "")

        yield "" if x is None or y is None else re.sub(r"%\{(\w+):?([^}]*)\}", value, template)


def _bars(trace: Trace, x: Axis, y: Axis, heights: dict[float, float]) -> Iterator[str]:
    width = 0.7 * (x(1.0) - x(0.0))
    for place, height in zip(trace["x"], trace["y"], strict=True):
        below = heights.get(place, 0.0)
        heights[place] = below + height
        if height:
            top, bottom = y(below + height), y(below)
            said = html.escape(f"{trace['name']}: {height:g}")
            yield (
                f'<rect x="{x(place) - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" '
                f'height="{bottom - top:.1f}" fill="{trace["marker"]["color"]}"><title>{said}</title></rect>'
            )


def _entry(trace: Trace) -> str:
    """A trace's line in the legend."""
    if "lines" in trace.get("mode", ""):
        drawn = f'<path class="line" d="M0 6H22" {_stroke(trace)}/>'
    else:
        drawn = _marker({**trace, "marker": {"size": 9, **trace["marker"]}}, 11, 6)
    return f'<li><svg viewBox="0 0 22 12" aria-hidden="true">{drawn}</svg>{html.escape(trace["name"])}</li>'
