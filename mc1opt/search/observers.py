"""What others may see of a search: an observer is told, in one thread, and cannot disturb it."""

import contextlib
import logging
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Concatenate, ParamSpec

from mc1opt.database.records import StudyRecord, TrialRecord
from mc1opt.spec import EpochResult, Fidelity
from mc1opt.workers.stop import StopReason

logger = logging.getLogger(__name__)

_P = ParamSpec("_P")


@dataclass(frozen=True)
class SearchStarted:
    """What a search is about to do."""

    study: str
    definition: str
    fidelity: Fidelity
    trials: int
    """The total that the study shall have."""
    counted: int
    """Trials that it has already."""
    taken_up: int
    """Interrupted trials that are trained again."""
    workers: int
    device: str
    timeout: float | None
    """Seconds."""
    expected_seconds: float | None
    """About how long it takes."""
    expected_bytes: int
    """About how much disk it takes."""
    record: StudyRecord


@dataclass(frozen=True)
class SearchEnded:
    """How a search ended."""

    reason: StopReason
    message: str
    """In words; empty where it simply finished."""
    seconds: float
    expected_seconds: float | None
    """What was said before it started."""
    record: StudyRecord
    importances: dict[str, float]
    """Shares of the parameters in what makes trials differ, the greatest first; empty where unknown."""


class Observer:
    """Is told what happens in a search; each method does nothing unless overridden.

    All methods are called from one thread, in the order of events. An exception becomes a warning: it must
    not cost a trial.
    """

    def study_started(self, search: SearchStarted) -> None:
        """The study is open; nothing is trained yet."""

    def trial_started(self, number: int, summary: str) -> None:
        """A worker begins trial `number`; the summary is its config in one line."""

    def epoch(self, number: int, result: EpochResult) -> None:
        """Trial `number` has trained an epoch, and reported it."""

    def trial_ended(self, trial: TrialRecord) -> None:
        """A trial is in its last state, or set back to waiting."""

    def confirmed(self, number: int, value: float | None) -> None:
        """Trial `number`'s config was trained again; no value where that failed."""

    def tick(self) -> None:
        """Some time has passed: called a few times a second, for clocks and displays."""

    def study_ended(self, search: SearchEnded) -> None:
        """Nothing is trained any more."""


class Observers:
    """Several observers, told from one thread what happens in many; their exceptions become warnings."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers
        self._events: queue.SimpleQueue[tuple[str, tuple[object, ...]]] = queue.SimpleQueue()
        self._warned: set[str] = set()

    def emit(
        self, event: Callable[Concatenate[Observer, _P], None], *arguments: _P.args, **_none: _P.kwargs
    ) -> None:
        """Notes an event, from any thread.

        Args:
            event: the method of `Observer` that takes it.
            arguments: what it is called with.
        """
        self._events.put((event.__name__, arguments))

    def pass_on(self, seconds: float = 0.0) -> None:
        """Tells the observers what was noted, and that time passes.

        Args:
            seconds: how long to wait for an event where there is none.
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
                if warning not in self._warned:  # `tick` comes several times a second
                    self._warned.add(warning)
                    logger.warning(warning)
