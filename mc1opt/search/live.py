"""The live view of a terminal: what is in training, what is best, how long it still takes."""

import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mc1opt.search.observers import Observer, SearchEnded, SearchStarted, TrialStarted
from mc1opt.search.progress import RunningTrial, SearchProgress, duration, ending, plan_lines, record_summary
from mc1opt.search.records import TrialRecord
from mc1opt.spec import EpochResult

REFRESH_PER_SECOND = 4
RECENT = 4
"""Ended trials that stay in view."""


class LiveProgress(Observer):
    """A view that redraws itself: a line for each running trial, the counts, the best, the time left.

    Args:
        console: the terminal.
        now: the clock, monotonic, in seconds.
    """

    def __init__(self, console: Console, now: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._now = now
        self._progress: SearchProgress | None = None
        self._recent: list[str] = []
        self._live = Live(console=console, refresh_per_second=REFRESH_PER_SECOND, transient=True)

    def study_started(self, search: SearchStarted) -> None:
        """See `Observer`."""
        self._progress = SearchProgress(search, self._now)
        for line in plan_lines(search):
            self._console.print(line, highlight=False, markup=False)
        self._live.start()

    def trial_started(self, trial: TrialStarted) -> None:
        """See `Observer`."""
        assert self._progress is not None
        self._progress.trial_started(trial)

    def epoch(self, number: int, result: EpochResult) -> None:
        """See `Observer`."""
        assert self._progress is not None
        self._progress.epoch(number, result)

    def trial_ended(self, trial: TrialRecord) -> None:
        """See `Observer`."""
        assert self._progress is not None
        self._progress.trial_ended(trial)
        if trial.outcome not in ("too_large", "duplicate"):
            self._recent = [*self._recent, f"#{trial.number} {ending(trial)}"][-RECENT:]

    def confirmed(self, number: int, value: float | None) -> None:
        """See `Observer`."""
        assert self._progress is not None
        self._progress.confirmed(number)
        result = "failed" if value is None else f"{value:.3f}"
        self._recent = [*self._recent, f"#{number} again {result}"][-RECENT:]

    def tick(self) -> None:
        """See `Observer`."""
        if self._progress is not None:
            self._live.update(self._view(self._progress))

    def study_ended(self, search: SearchEnded) -> None:
        """See `Observer`."""
        self._live.stop()

    def _view(self, progress: SearchProgress) -> Group:
        parts: list[Text | Table] = []
        if self._recent:
            parts.append(Text("last   " + "   ".join(self._recent), style="dim", no_wrap=True))
        parts.append(_running_table(progress, self._now()))
        counts = f"{progress.counted}/{progress.search.trials} trials"
        shown = [counts, *(part for part in (progress.untrained(), progress.time_left()) if part)]
        parts.append(Text(" | ".join(shown), no_wrap=True))
        if progress.best is not None:
            best = f"{progress.best_line()}: {record_summary(progress.best)}"
            parts.append(Text(best, style="bold green", no_wrap=True, overflow="ellipsis"))
        return Group(*parts)


def _running_table(progress: SearchProgress, now: float) -> Table:
    """Number, epoch, accuracy against the best, time and config of each running trial."""
    table = Table(box=None, pad_edge=False, show_header=bool(progress.running), header_style="dim")
    for column in ("trial", "epoch", "accuracy", "to best", "time"):
        table.add_column(column, no_wrap=True)
    table.add_column("config", no_wrap=True, overflow="ellipsis")
    for trial in sorted(progress.running.values(), key=lambda trial: trial.number):
        table.add_row(*_cells(progress, trial, now))
    return table


def _cells(progress: SearchProgress, trial: RunningTrial, now: float) -> list[str]:
    epochs = progress.search.fidelity.epochs
    elapsed = duration(now - trial.started)
    if trial.result is None:
        return [f"#{trial.number}", f"0/{epochs}", "", "", elapsed, trial.summary]
    accuracy = trial.result.validation_accuracy
    best = progress.best.value if progress.best is not None else None
    to_best = f"{accuracy - best:+.3f}" if best is not None else ""
    return [
        f"#{trial.number}",
        f"{trial.result.epoch + 1}/{epochs}",
        f"{accuracy:.3f}",
        to_best,
        elapsed,
        trial.summary,
    ]
