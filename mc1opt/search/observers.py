"""What others may see of a search: an observer is told, in one thread, and cannot disturb it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mc1opt.database.records import StudyRecord, TrialRecord
from mc1opt.spec import EpochResult, Fidelity
from mc1opt.workers.stop import StopReason

logger = logging.getLogger(__name__)


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
class TrialStarted:
    """A trial is about to be trained."""

    number: int
    summary: str
    """Its config in one line."""


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

    def trial_started(self, trial: TrialStarted) -> None:
        """A worker begins a trial."""

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


class Observers(Observer):
    """Passes on to several observers, and turns their exceptions into warnings."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers
        self._warned: set[str] = set()

    def _tell(self, method: str, *arguments: object) -> None:
        for observer in self._observers:
            try:
                getattr(observer, method)(*arguments)
            except Exception as error:
                warning = f"{type(observer).__name__}.{method} failed: {error!r}"
                if warning not in self._warned:  # `tick` comes several times a second
                    self._warned.add(warning)
                    logger.warning(warning)

    def study_started(self, search: SearchStarted) -> None:
        """See `Observer`."""
        self._tell("study_started", search)

    def trial_started(self, trial: TrialStarted) -> None:
        """See `Observer`."""
        self._tell("trial_started", trial)

    def epoch(self, number: int, result: EpochResult) -> None:
        """See `Observer`."""
        self._tell("epoch", number, result)

    def trial_ended(self, trial: TrialRecord) -> None:
        """See `Observer`."""
        self._tell("trial_ended", trial)

    def confirmed(self, number: int, value: float | None) -> None:
        """See `Observer`."""
        self._tell("confirmed", number, value)

    def tick(self) -> None:
        """See `Observer`."""
        self._tell("tick")

    def study_ended(self, search: SearchEnded) -> None:
        """See `Observer`."""
        self._tell("study_ended", search)
