"""The events of a search. Observers receive them in one thread, and cannot disturb the search."""

import contextlib
import logging
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Concatenate, ParamSpec

from mc1opt.database.records import StudyRecord, TrialRecord
from mc1opt.search.forecast import Forecast
from mc1opt.spec import EpochResult, Fidelity
from mc1opt.workers.stop import StopReason

logger = logging.getLogger(__name__)

_P = ParamSpec("_P")


@dataclass(frozen=True)
class SearchStarted:
    """The plan of a search that starts."""

    study: str
    definition: str
    fidelity: Fidelity
    trials: int
    """The study's total number of counted trials at the end."""
    counted: int
    """Counted trials so far."""
    workers: int
    device: str
    timeout: float | None
    """Seconds of the search; None for no limit."""
    expected_seconds: float | None
    """Expected seconds of the search; None if unknown."""
    expected_bytes: int
    """Expected bytes on disk."""
    max_macs: int
    record: StudyRecord


@dataclass(frozen=True)
class SearchEnded:
    """The outcome of a search."""

    reason: StopReason
    message: str
    """The reason in words; empty if the search finished."""
    seconds: float
    expected_seconds: float | None
    """As in `SearchStarted`."""
    record: StudyRecord
    importances: dict[str, float]
    """See `mc1opt.search.importance.importances`."""
    forecast: Forecast | None = None
    """What another half hour would bring; None where nothing tells it, or nothing is left to draw."""


class Observer:
    """Receives the events of a search; each method does nothing unless overridden.

    All methods are called from one thread, in the order of the events. An exception becomes a warning: it
    must not cost a trial.
    """

    def study_started(self, search: SearchStarted) -> None:
        """The study is open; no training has begun."""

    def trial_started(self, number: int, summary: str) -> None:
        """The training of trial `number` begins; the summary is its config in one line."""

    def epoch(self, number: int, result: EpochResult) -> None:
        """Trial `number` has trained and reported an epoch."""

    def trial_ended(self, trial: TrialRecord) -> None:
        """A trial has ended, or waits again after an interruption."""

    def confirmed(self, number: int, value: float | None) -> None:
        """Trial `number` was trained again with a new seed; the value is None if that failed."""

    def tick(self) -> None:
        """Time has passed: called a few times a second, for clocks and displays."""

    def study_ended(self, search: SearchEnded) -> None:
        """The search has ended; no training is running."""


class Observers:
    """Passes the events of many threads on to observers in one thread; their exceptions become warnings."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers
        self._events: queue.SimpleQueue[tuple[str, tuple[object, ...]]] = queue.SimpleQueue()
        self._warned: set[str] = set()

    def emit(
        self, event: Callable[Concatenate[Observer, _P], None], *arguments: _P.args, **_none: _P.kwargs
    ) -> None:
        """Queues an event, from any thread.

        Args:
            event: the method of `Observer` to call.
            arguments: its arguments.
        """
        self._events.put((event.__name__, arguments))

    def pass_on(self, seconds: float = 0.0) -> None:
        """Passes the queued events on, then a tick.

        Args:
            seconds: longest wait for an event if none is queued.
        """
        with contextlib.suppress(queue.Empty):
            self._tell(*self._events.get(timeout=seconds) if seconds else self._events.get_nowait())
            while True:
                self._tell(*self._events.get_nowait())
        self._tell("tick", ())

    def _tell(self, event: str, arguments: tuple[object, ...]) -> None:
        for observer in self._observers:
            try:
                getattr(observer, event)(*arguments)
            except Exception as error:
                warning = f"{type(observer).__name__}.{event} failed: {error!r}"
                if warning not in self._warned:  # a broken `tick` would warn several times a second
                    self._warned.add(warning)
                    logger.warning(warning)
