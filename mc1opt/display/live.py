"""The live view of a search on a terminal: running trials, the best, the time left."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mc1opt.display.progress import Display, PlainProgress, RunningTrial, SearchProgress, record_summary
from mc1opt.search.observers import Observer, SearchEnded, SearchStarted
from mc1opt.text import duration

REDRAW_SECONDS = 0.2
"""Least seconds between two drawings of the view."""
RECENT = 4
"""Ended trials in view."""
OTHER_LINES = 8
"""Lines reserved for all but the running trials, on a terminal with more trials than lines."""


class LiveProgress(Display):
    """A view that is redrawn: a line for each running trial, the counts, the best, the time left.

    A context manager: its end restores the terminal, even if the search raises.

    Args:
        console: the terminal.
        now: a monotonic clock, in seconds.
    """

    def __init__(self, console: Console, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(now)
        self._console = console
        self._recent: list[str] = []
        self._drawn = -math.inf
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def write(self, line: str) -> None:
        """See `Display`."""
        self._console.print(Text(line))  # unchanged: no markup, no emoji

    def happened(self, what: str) -> None:
        """See `Display`. The newest is first: a narrow terminal cuts off the end."""
        self._recent = [what, *self._recent][:RECENT]

    def study_started(self, search: SearchStarted) -> None:
        """See `Observer`."""
        super().study_started(search)
        self._live.start()

    def tick(self) -> None:
        """See `Observer`."""
        if self._live.is_started and self.now() - self._drawn >= REDRAW_SECONDS:
            self._drawn = self.now()
            self._live.update(self._view(self.progress), refresh=True)

    def study_ended(self, search: SearchEnded) -> None:
        """See `Observer`."""
        self._live.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _view(self, progress: SearchProgress) -> Group:
        parts: list[Text | Table] = []
        if self._recent:
            last = "last   " + "   ".join(self._recent)
            parts.append(Text(last, style="dim", no_wrap=True, overflow="ellipsis"))
        parts.append(_running_table(progress, self.now(), max(self._console.height - OTHER_LINES, 1)))
        counts = f"{progress.counted}/{progress.search.trials} trials"
        shown = [counts, *(part for part in (progress.untrained(), progress.time_left()) if part)]
        parts.append(Text(" | ".join(shown)))
        if progress.best is not None:
            best = f"{progress.best_line()}: {record_summary(progress.best)}"
            parts.append(Text(best, style="bold green", no_wrap=True, overflow="ellipsis"))
        return Group(*parts)


def _running_table(progress: SearchProgress, now: float, rows: int) -> Table:
    """Number, epoch, value against the best, time and config of each running trial, `rows` at most."""
    table = Table(box=None, pad_edge=False, show_header=bool(progress.running), header_style="dim")
    for column in ("trial", "epoch", progress.search.record.metric.label, "to best", "time"):
        table.add_column(column, no_wrap=True)
    table.add_column("config")  # without no_wrap, so that this column is the one that shrinks
    running = sorted(progress.running, key=lambda trial: trial.number)
    for trial in running[:rows]:
        summary = Text(trial.summary, no_wrap=True, overflow="ellipsis")
        table.add_row(*_cells(progress, trial), duration(now - trial.started), summary)
    if len(running) > rows:
        table.add_row("", "", "", "", "", f"and {len(running) - rows} more")
    return table


def _cells(progress: SearchProgress, trial: RunningTrial) -> list[str]:
    cells = [f"#{trial.number}", f"{trial.epochs}/{progress.search.fidelity.all_epochs}"]
    if trial.result is None:
        return [*cells, "", ""]
    value = trial.result.value
    best = progress.best.value if progress.best is not None else None
    return [*cells, f"{value:.3f}", "" if best is None else f"{value - best:+.3f}"]


@contextlib.contextmanager
def display(output: TextIO) -> Iterator[Observer]:
    """Shows a search: the live view on a terminal, plain lines elsewhere."""
    if output.isatty() and os.environ.get("TERM") != "dumb":
        with LiveProgress(Console(file=output)) as live:
            yield live
    else:
        yield PlainProgress(lambda line: print(line, file=output, flush=True))
