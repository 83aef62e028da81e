"""What a search has done so far, and plain lines that say it.

`SearchProgress` counts and estimates; `PlainProgress` prints a line for each finished trial. The live view of
a terminal is in `mc1opt.search.live`, from the same counts.
"""

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from mc1opt.config import config_from_json
from mc1opt.search.describe import describe_config
from mc1opt.search.observers import Observer, SearchEnded, SearchStarted, TrialStarted
from mc1opt.search.records import TrialRecord
from mc1opt.spec import EpochResult

SILENCE_SECONDS = 30.0
"""Without a terminal, at least one line in so many seconds."""


@dataclass
class RunningTrial:
    """A trial in training."""

    number: int
    summary: str
    started: float
    result: EpochResult | None = None


@dataclass
class SearchProgress:
    """The counts of a study, kept up to date from events.

    Args:
        search: what the search is about to do, with all trials that the study has already.
        now: the clock, monotonic, in seconds.
    """

    search: SearchStarted
    now: Callable[[], float] = time.monotonic
    outcomes: Counter[str] = field(default_factory=Counter)
    best: TrialRecord | None = None
    running: dict[int, RunningTrial] = field(default_factory=dict)
    finished_at: list[float] = field(default_factory=list)
    """When each trial of this search that counts ended."""

    def __post_init__(self) -> None:
        self.started = self.now()
        self.outcomes.update(trial.outcome for trial in self.search.record.trials)
        self.best = self.search.record.best

    @property
    def counted(self) -> int:
        """Trials that count towards the total."""
        return self.outcomes["complete"] + self.outcomes["pruned"]

    def trial_started(self, trial: TrialStarted) -> None:
        """A worker begins a trial."""
        self.running[trial.number] = RunningTrial(trial.number, trial.summary, self.now())

    def epoch(self, number: int, result: EpochResult) -> None:
        """A trial has trained an epoch."""
        if number in self.running:
            self.running[number].result = result

    def trial_ended(self, trial: TrialRecord) -> None:
        """A trial is in its last state, or waiting again."""
        self.running.pop(trial.number, None)
        self.outcomes[trial.outcome] += 1
        if trial.outcome in ("complete", "pruned"):
            self.finished_at.append(self.now())
        if trial.value is not None and (self.best is None or trial.value > (self.best.value or 0.0)):
            self.best = trial

    def confirmed(self, number: int) -> None:
        """A trial's config was trained again."""
        self.running.pop(number, None)

    def seconds_left(self) -> tuple[float, float] | None:
        """How long the rest will take, and its standard error, from the trials of this search so far.

        None before three trials have ended. Trials end at random times, so n of them take n mean gaps, give
        or take their spread times the square root of n, and the mean itself is only known so well.
        """
        ends = [self.started, *self.finished_at]
        if len(ends) < 4:
            return None
        gaps = [later - earlier for earlier, later in itertools.pairwise(ends)]
        left = max(self.search.trials - self.counted, 0)
        spread = statistics.stdev(gaps)
        return left * statistics.mean(gaps), spread * (left + left**2 / len(gaps)) ** 0.5

    def time_left(self) -> str:
        """The time left, as people read it; empty while it is unknown."""
        estimate = self.seconds_left()
        if estimate is None or self.counted >= self.search.trials:
            return ""
        left, error = estimate
        shown = f"{duration(left)} left"
        if 2 * error >= 60:
            shown += f" (± {duration(2 * error)})"
        if self.search.timeout is not None:
            until_timeout = self.search.timeout - (self.now() - self.started)
            if until_timeout < left:
                shown += f", {duration(max(until_timeout, 0.0))} to --timeout"
        return shown

    def untrained(self) -> str:
        """Trials that don't count, in words; empty if there are none."""
        words = {"duplicate": "duplicates", "too_large": "too large", "failed": "failed"}
        return ", ".join(f"{self.outcomes[key]} {word}" for key, word in words.items() if self.outcomes[key])

    def best_line(self) -> str:
        """The best trial's value and number."""
        return "no best yet" if self.best is None else f"best {self.best.value:.3f} (#{self.best.number})"


def duration(seconds: float) -> str:
    """A time as people say it: "40 s", "19 min", "2 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def ending(trial: TrialRecord) -> str:
    """What became of a trial, in words."""
    epochs = len(trial.values_by_epoch)
    if trial.outcome == "complete":
        return f"complete, {trial.value:.3f}"
    if trial.outcome == "pruned":
        return f"pruned at epoch {epochs}, {trial.values_by_epoch[-1]:.3f}"
    if trial.outcome == "too_large":
        return f"too large, {(trial.macs or 0) / 1e6:.0f} million multiply-accumulates"
    if trial.outcome == "duplicate":
        return f"duplicate of #{trial.duplicate_of}"
    if trial.outcome == "failed" and trial.failure is not None:
        message = trial.failure["message"].strip().split("\n")[0]
        return f"failed ({trial.failure['kind']}): {message}"
    return "interrupted, waits for the next start" if trial.outcome == "waiting" else trial.outcome


def record_summary(trial: TrialRecord) -> str:
    """The config of a stored trial in one line."""
    return "" if trial.config is None else describe_config(config_from_json(trial.config))


class PlainProgress(Observer):
    """A line for each finished trial, and one at least every 30 s.

    Args:
        write: takes a line.
        now: the clock, monotonic, in seconds.
    """

    def __init__(self, write: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._now = now
        self._last = now()
        self._progress: SearchProgress | None = None

    def study_started(self, search: SearchStarted) -> None:
        """See `Observer`."""
        self._progress = SearchProgress(search, self._now)
        for line in plan_lines(search):
            self._line(line)

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
        if trial.outcome in ("too_large", "duplicate"):
            return  # they are counted at the end of each line
        self._status(f"#{trial.number} {ending(trial)}")

    def confirmed(self, number: int, value: float | None) -> None:
        """See `Observer`."""
        assert self._progress is not None
        self._progress.confirmed(number)
        self._status(f"#{number} again, with a new seed: " + ("failed" if value is None else f"{value:.3f}"))

    def tick(self) -> None:
        """See `Observer`."""
        if self._progress is None or self._now() - self._last < SILENCE_SECONDS:
            return
        running = [
            f"#{t.number} epoch {t.result.epoch + 1 if t.result else 0}"
            + (f" {t.result.validation_accuracy:.3f}" if t.result else "")
            for t in self._progress.running.values()
        ]
        self._status("training " + ", ".join(running) if running else "waiting for a worker")

    def study_ended(self, search: SearchEnded) -> None:
        """See `Observer`."""

    def _status(self, what: str) -> None:
        assert self._progress is not None
        progress = self._progress
        parts = [f"{progress.counted}/{progress.search.trials}  {what}", progress.best_line()]
        parts += [part for part in (progress.untrained(), progress.time_left()) if part]
        self._line(" | ".join(parts))

    def _line(self, line: str) -> None:
        self._last = self._now()
        self._write(line)


def plan_lines(search: SearchStarted) -> list[str]:
    """What a search is about to do, before it starts."""
    fidelity = search.fidelity
    left = max(search.trials - search.counted, 0)
    resumed = f"{search.counted} of {search.trials} trials done, " if search.counted else ""
    expected = "" if search.expected_seconds is None else f" About {duration(search.expected_seconds)},"
    lines = [
        f"Study {search.study} ({search.definition}): {resumed}{left} trials to train, each at most "
        f"{fidelity.epochs} epochs of {fidelity.train_images:,} images, {search.workers} "
        f"worker{'s' if search.workers != 1 else ''} on {search.device}"
        + (f", for at most {duration(search.timeout)}" if search.timeout is not None else "")
        + f".{expected or ' About'} {search.expected_bytes / 1e6:.0f} MB of disk. Ctrl-C keeps everything."
    ]
    if search.taken_up:
        lines.append(
            f"{search.taken_up} interrupted trial{'s are' if search.taken_up != 1 else ' is'} taken up."
        )
    return lines
