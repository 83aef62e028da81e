"""The progress of a search, and plain lines that show it.

`SearchProgress` counts and estimates; `PlainProgress` prints a line for each ended trial. Not here: the live
view of a terminal (`mc1opt.display.live`), from the same counts.
"""

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mc1opt.config import config_from_json
from mc1opt.database.records import (
    TOO_LARGE,
    TOO_MANY_PARAMETERS,
    UNTRAINED,
    Outcome,
    StudyRecord,
    TrialRecord,
    by_value,
)
from mc1opt.dataset import CIFAR10_DATA
from mc1opt.describe import describe_config, describe_fidelity
from mc1opt.metric import ACCURACY, Aim
from mc1opt.search.observers import Observer, SearchStarted
from mc1opt.spec import EpochResult
from mc1opt.text import SILENCE_SECONDS, duration, few, first_line, megabytes, plural

PASSED_OVER = 5
"""Most numbers of foreign trials to list per reason."""


@dataclass
class RunningTrial:
    """A trial or a confirmation in training."""

    number: int
    summary: str
    started: float
    result: EpochResult | None = None

    @property
    def epochs(self) -> int:
        """Epochs trained so far."""
        return 0 if self.result is None else self.result.epoch + 1


@dataclass
class SearchProgress:
    """The counts of a study, updated by events.

    Args:
        search: the plan of the search, with the study's trials so far.
        now: a monotonic clock, in seconds.
    """

    search: SearchStarted
    now: Callable[[], float] = time.monotonic
    outcome_of: dict[int, Outcome] = field(default_factory=dict)
    """The outcome of each trial of the study, by number, so that a trial that waited counts once."""
    best: TrialRecord | None = None
    running: list[RunningTrial] = field(default_factory=list)
    """By start. A number may appear twice: confirmations of one trial with two seeds may run at once."""
    finished_at: list[float] = field(default_factory=list)
    """Times at which the counted trials of this search ended."""

    def __post_init__(self) -> None:
        self.started = self.now()
        self.outcome_of.update((trial.number, trial.outcome) for trial in self.search.record.trials)
        self.best = self.search.record.best

    @property
    def outcomes(self) -> Counter[Outcome]:
        """Number of trials by outcome."""
        return Counter(self.outcome_of.values())

    @property
    def counted(self) -> int:
        """Trials that count towards the total."""
        return self.outcomes["complete"] + self.outcomes["pruned"]

    def trial_started(self, number: int, summary: str) -> None:
        """See `Observer`."""
        self.running.append(RunningTrial(number, summary, self.now()))

    def epoch(self, number: int, result: EpochResult) -> None:
        """See `Observer`."""
        # Of two trainings with this number, the one that has trained the epochs before.
        same = sorted(
            (trial for trial in self.running if trial.number == number),
            key=lambda trial: trial.epochs != result.epoch,
        )
        if same:
            same[0].result = result

    def trial_ended(self, trial: TrialRecord) -> None:
        """See `Observer`."""
        self._remove(trial.number)
        self.outcome_of[trial.number] = trial.outcome
        if trial.outcome in ("complete", "pruned"):
            self.finished_at.append(self.now())
        self.best = next(iter(by_value([trial, *([self.best] if self.best else [])])), None)

    def confirmed(self, number: int) -> None:
        """See `Observer`."""
        self._remove(number)

    def _remove(self, number: int) -> None:
        """Removes a running training; of two with this number, the one with more epochs."""
        same = [trial for trial in self.running if trial.number == number]
        if same:
            self.running.remove(max(same, key=lambda trial: trial.epochs))

    def seconds_left(self) -> tuple[float, float] | None:
        """Expected seconds left and their standard error, from the trials of this search so far.

        None before three counted trials have ended. The remaining n trials take n mean gaps; the error has
        the spread of n gaps and the uncertainty of the mean gap.
        """
        ends = [self.started, *self.finished_at]
        if len(ends) < 4:
            return None
        gaps = [later - earlier for earlier, later in itertools.pairwise(ends)]
        left = max(self.search.trials - self.counted, 0)
        spread = statistics.stdev(gaps)
        return left * statistics.mean(gaps), spread * (left + left**2 / len(gaps)) ** 0.5

    def time_left(self) -> str:
        """The time left in words; empty if it is unknown, and at the end."""
        if self.counted >= self.search.trials:
            return ""
        estimate = self.seconds_left()
        shown = []
        if estimate is not None:
            left, error = estimate
            about = f"± {duration(2 * error)}" if 2 * error < left else f"up to {duration(left + 2 * error)}"
            shown.append(f"{duration(left)} left" + (f" ({about})" if 2 * error >= 60 else ""))
        if self.search.timeout is not None:
            until_timeout = self.search.timeout - (self.now() - self.started)
            if estimate is None or until_timeout < estimate[0]:
                shown.append(f"{duration(until_timeout)} to --timeout")
        return ", ".join(shown)

    def untrained(self) -> str:
        """The counts of trials that do not count towards the total, in words; empty if there are none."""
        outcomes = self.outcomes
        keys: tuple[Outcome, ...] = ("duplicate", "too_large", "infeasible", "failed", "foreign")
        return ", ".join(outcome_count(outcomes[key], key) for key in keys if outcomes[key])

    def best_line(self) -> str:
        """The best trial's value and number, in words."""
        return "no best yet" if self.best is None else f"best {shown_value(self.best)} (#{self.best.number})"


def outcome_count(count: int, outcome: Outcome) -> str:
    """A count of trials in words: "1 duplicate", "2 duplicates", "3 too large"."""
    words: dict[Outcome, str] = {"too_large": "too large", "foreign": "passed over"}
    return f"{count} {words.get(outcome, outcome)}{'s' if outcome == 'duplicate' and count != 1 else ''}"


def ending(trial: TrialRecord) -> str:
    """A trial's outcome in words."""
    if trial.outcome == "complete":
        return f"complete, {shown_value(trial)}"
    if trial.outcome == "pruned" and trial.values_by_epoch:
        return f"pruned at epoch {len(trial.values_by_epoch)}, {trial.values_by_epoch[-1]:.3f}"
    untrained: dict[Outcome, str] = {
        "too_large": f"too large, {_size(trial)}",
        "infeasible": f"infeasible: {trial.infeasible}" if trial.infeasible else "infeasible",
        "duplicate": f"duplicate of #{trial.duplicate_of}",
        "foreign": f"passed over: {trial.foreign}",
    }
    if trial.outcome in untrained:
        return untrained[trial.outcome]
    if trial.outcome == "failed" and trial.failure is not None:
        message = first_line(trial.failure["message"])
        return f"failed ({trial.failure['kind']}): {message}"
    waiting = "interrupted, waits for the next start" if trial.interrupted else "not begun yet"
    return waiting if trial.outcome == "waiting" else trial.outcome


def shown_value(trial: TrialRecord, digits: int = 3) -> str:
    """A complete trial's value, with the accuracy beside another metric."""
    beside = ""
    if trial.metric != ACCURACY.name and trial.accuracy is not None:
        beside = f" (accuracy {trial.accuracy:.{digits}f})"
    return f"{trial.value:.{digits}f}{beside}"


def _size(trial: TrialRecord) -> str:
    """What of a network is too large."""
    macs = f"{(trial.macs or 0) / 1e6:.1f} million multiply-accumulates"
    if trial.constraints.get(TOO_MANY_PARAMETERS, 0.0) <= 0.0:
        return macs
    parameters = f"{trial.parameters or 0:,} parameters"
    return f"{macs}, {parameters}" if trial.constraints.get(TOO_LARGE, 0.0) > 0.0 else parameters


def record_summary(trial: TrialRecord) -> str:
    """The config of a stored trial in one line."""
    return "" if trial.config is None else describe_config(config_from_json(trial.config))


class Display(Observer):
    """Base of the displays of a search: keeps its progress.

    Args:
        now: a monotonic clock, in seconds.
    """

    progress: SearchProgress
    """Set when the study has started."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now

    def write(self, line: str) -> None:
        """Writes a permanent line."""
        raise NotImplementedError

    def happened(self, what: str) -> None:
        """Shows the end of a training."""
        raise NotImplementedError

    def study_started(self, search: SearchStarted) -> None:
        """See `Observer`."""
        self.progress = SearchProgress(search, self.now)
        for line in plan_lines(search):
            self.write(line)

    def trial_started(self, number: int, summary: str) -> None:
        """See `Observer`."""
        self.progress.trial_started(number, summary)

    def epoch(self, number: int, result: EpochResult) -> None:
        """See `Observer`."""
        self.progress.epoch(number, result)

    def trial_ended(self, trial: TrialRecord) -> None:
        """See `Observer`."""
        self.progress.trial_ended(trial)
        if trial.outcome not in UNTRAINED:  # untrained ones are only counted
            self.happened(f"#{trial.number} {ending(trial)}")

    def confirmed(self, number: int, value: float | None) -> None:
        """See `Observer`."""
        self.progress.confirmed(number)
        self.happened(f"#{number} again, with a new seed: " + ("failed" if value is None else f"{value:.3f}"))


class PlainProgress(Display):
    """A line for each ended trial, and at least one every `SILENCE_SECONDS`.

    Args:
        write: writes a line.
        now: a monotonic clock, in seconds.
    """

    def __init__(self, write: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(now)
        self._write = write
        self._last = now()

    def write(self, line: str) -> None:
        """See `Display`."""
        self._last = self.now()
        self._write(line)

    def happened(self, what: str) -> None:
        """See `Display`."""
        progress = self.progress
        parts = [f"{progress.counted}/{progress.search.trials}  {what}", progress.best_line()]
        parts += [part for part in (progress.untrained(), progress.time_left()) if part]
        self.write(" | ".join(parts))

    def tick(self) -> None:
        """See `Observer`."""
        if self.now() - self._last < SILENCE_SECONDS:
            return
        epochs = self.progress.search.fidelity.all_epochs
        running = [
            f"#{t.number} {t.epochs}/{epochs} epochs" + (f" {t.result.value:.3f}" if t.result else "")
            for t in self.progress.running
        ]
        waiting = "waiting for a worker, or for trials of other processes"
        self.happened("training " + ", ".join(running) if running else waiting)


def plan_lines(search: SearchStarted) -> list[str]:
    """The plan of a search in words."""
    left = max(search.trials - search.counted, 0)
    done = f"{search.counted} of {plural(search.trials, 'trial')} done, " if search.counted else ""
    lines = [
        f"Study {study_name(search.study, search.definition)}: {done}{plural(left, 'trial')} to train, each "
        f"at most {describe_fidelity(search.fidelity)}{_images(search)}{_aim(search.record.aim)}, "
        f"{plural(search.workers, 'worker')} on {search.device}. {_price(search)}Ctrl-C keeps everything."
    ]
    # Trials of dead processes, and those that a stopped search has set back to waiting.
    taken_up = sum(trial.outcome == "waiting" and trial.interrupted > 0 for trial in search.record.trials)
    if taken_up and left:
        lines.append(f"{plural(taken_up, 'interrupted trial')} {'is' if taken_up == 1 else 'are'} taken up.")
    return [*lines, *begun_from_lines(search.record), *passed_over_lines(search.record.trials)]


def _images(search: SearchStarted) -> str:
    """Which images, and what was chosen for them, in words; empty for CIFAR-10."""
    task, name = search.record.task, (search.record.data or {}).get("name", CIFAR10_DATA.name)
    if name == CIFAR10_DATA.name:
        return ""
    grey = ", grey" if task.channels == 1 else ""
    return (
        f" of {name} ({task.size} x {task.size}{grey}, {task.classes} classes), networks of at most "
        f"{search.max_macs / 1e6:.0f} million multiply-accumulates"
    )


def _aim(aim: Aim) -> str:
    """What is not as usual of a study's aim, in words that follow the fidelity."""
    parts = []
    if not aim.metric.is_accuracy:
        parts.append(f", judged by {aim.metric.label} ({aim.metric.direction})")
    if aim.class_weights:
        parts.append(", rare classes weighing more")
    if aim.constraints:
        limits = " and ".join(f"{most:,} {name}" for name, most in aim.constraints.items())
        parts.append(f", networks of at most {limits}")
    return "".join(parts)


def begun_from_lines(record: StudyRecord) -> list[str]:
    """What a study took over from the one that it began from, and what not; no line without such a one."""
    begun = record.begun_from
    if begun is None:
        return []
    fit = f"{begun.fit} of {plural(begun.trials, 'trial')} fit"
    best = f"starting points: {', '.join(begun.starting_points) or 'none'}"
    if begun.compares:
        lines = [f"Begun from {begun.study}: {fit} and inform the sampler; {best}."]
    else:
        there = ", ".join(f"{what} {value}" for what, value in begun.differs.items())
        lines = [f"Begun from {begun.study}, whose values do not compare ({there}): {fit}; {best}."]
    misfits = [f"{count} {reason}" for reason, count in begun.misfits.items()]
    return [*lines, f"Did not fit: {few(misfits)}."] if misfits else lines


def passed_over_lines(trials: Iterable[TrialRecord]) -> list[str]:
    """A line with the foreign trials and the reasons; no line without foreign trials."""
    numbers: dict[str, list[str]] = {}
    for trial in trials:
        if trial.foreign:
            numbers.setdefault(trial.foreign, []).append(f"#{trial.number}")
    said = []
    for why, group in numbers.items():
        said.append(f"{plural(len(group), 'trial')} {why} ({few(group, PASSED_OVER)})")
    return [f"Passed over: {'; '.join(said)}."] if said else []


def _price(search: SearchStarted) -> str:
    """Expected time and disk in words; empty if nothing is left to train."""
    if search.counted >= search.trials:
        return ""
    parts = [f"about {megabytes(search.expected_bytes)} of disk"]
    if search.timeout is not None:
        parts.insert(0, f"at most {duration(search.timeout)} (--timeout)")
    if search.expected_seconds is not None:
        parts.insert(0, f"about {duration(search.expected_seconds)}")
    price = ", ".join(parts)
    return f"{price[0].upper()}{price[1:]}. "


def study_name(study: str, definition: str | None) -> str:
    """A study's name, followed by its definition's if they differ."""
    return study if definition in (None, study) else f"{study} ({definition})"
