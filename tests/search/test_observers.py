"""Observers receive events in order, and cannot disturb a search."""

import functools
import logging
from typing import Any

import pytest

from mc1opt.search.observers import Observer, Observers
from tests.support.display import ended, epoch, started, study, trial
from tests.support.studies import facts, run_study

EVENTS: dict[str, tuple[Any, ...]] = {
    "study_started": (started(),),
    "trial_started": (3, "mlp"),
    "epoch": (3, epoch(0, 0.5)),
    "trial_ended": (trial(3),),
    "confirmed": (3, 0.5),
    "tick": (),
    "study_ended": (ended(study()),),
}


class Recorder(Observer):
    """Keeps its events, and raises after each one if asked to."""

    def __init__(self, raises: BaseException | None = None) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self._raises = raises

    @property
    def events(self) -> list[str]:
        """The events' names, without ticks."""
        return [method for method, _ in self.calls if method != "tick"]

    def __getattribute__(self, name: str) -> Any:
        return functools.partial(self._told, name) if name in EVENTS else super().__getattribute__(name)

    def _told(self, method: str, *arguments: Any) -> None:
        self.calls.append((method, arguments))
        if self._raises is not None:
            raise self._raises


@pytest.mark.parametrize("event", EVENTS)
def test_one_that_raises_gives_a_warning_and_the_others_receive_the_event(
    event: str, caplog: pytest.LogCaptureFixture
) -> None:
    getattr(Observer(), event)(*EVENTS[event])  # an observer need not override anything
    broken, whole = Recorder(ValueError("no such file")), Recorder()
    observers = Observers([broken, whole])
    if event != "tick":
        observers.emit(getattr(Observer, event), *EVENTS[event])
    observers.pass_on()
    calls = [(event, EVENTS[event])] if event != "tick" else []
    assert broken.calls == whole.calls == [*calls, ("tick", ())]
    assert caplog.records[0].levelno == logging.WARNING
    assert caplog.records[0].getMessage().startswith(f"Recorder.{event} failed: ValueError")


def test_the_same_error_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    observers = Observers([Recorder(ValueError("broken"))])
    for _ in range(5):
        observers.emit(Observer.confirmed, 3, 0.5)
        observers.pass_on()
    assert [record.getMessage().split()[0] for record in caplog.records] == [
        "Recorder.confirmed",
        "Recorder.tick",
    ]


def test_an_interruption_is_no_error_of_an_observer() -> None:
    with pytest.raises(KeyboardInterrupt):
        Observers([Recorder(KeyboardInterrupt())]).pass_on()


def test_a_search_is_the_same_with_an_observer_that_always_raises() -> None:
    recorder = Recorder(ValueError("broken"))
    broken = run_study(2, observers=(recorder,), path="a.db", confirm=1).record
    assert facts(broken) == facts(run_study(2, path="b.db", confirm=1).record)
    assert set(recorder.events) == EVENTS.keys() - {"tick"}
