"""Observers are told in order, and cannot disturb a search."""

import logging
from typing import Any

import pytest

from mc1opt.search.observers import Observer, Observers
from tests.support.display import ended, epoch, started, study, trial
from tests.support.studies import run_study, stored

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
    """Keeps what it is told; after that it raises, if it is to."""

    def __init__(self, raises: BaseException | None = None) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self._raises = raises

    @property
    def events(self) -> list[str]:
        """What has happened, without the passing of time."""
        return [method for method, _ in self.calls if method != "tick"]

    def _told(self, method: str, *arguments: Any) -> None:
        self.calls.append((method, arguments))
        if self._raises is not None:
            raise self._raises

    def study_started(self, *arguments: Any) -> None:
        self._told("study_started", *arguments)

    def trial_started(self, *arguments: Any) -> None:
        self._told("trial_started", *arguments)

    def epoch(self, *arguments: Any) -> None:
        self._told("epoch", *arguments)

    def trial_ended(self, *arguments: Any) -> None:
        self._told("trial_ended", *arguments)

    def confirmed(self, *arguments: Any) -> None:
        self._told("confirmed", *arguments)

    def tick(self) -> None:
        self._told("tick")

    def study_ended(self, *arguments: Any) -> None:
        self._told("study_ended", *arguments)


@pytest.mark.parametrize("event", EVENTS)
def test_one_that_raises_gives_a_warning_and_the_others_are_told(
    event: str, caplog: pytest.LogCaptureFixture
) -> None:
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


def test_an_observer_need_not_override_anything() -> None:
    for event, arguments in EVENTS.items():
        getattr(Observer(), event)(*arguments)


def test_a_search_is_the_same_with_an_observer_that_always_raises() -> None:
    recorder = Recorder(ValueError("broken"))
    run_study(3, observers=(recorder,), path="a.db")
    run_study(3, path="b.db")
    broken, whole = stored("a.db"), stored("b.db")
    assert [trial.values_by_epoch for trial in broken.trials] == [
        trial.values_by_epoch for trial in whole.trials
    ]


def test_events_come_in_the_order_in_which_they_happen() -> None:
    recorder = Recorder()
    run_study(5, workers=2, observers=(recorder,), confirm=1)
    methods = recorder.events
    assert (methods[0], methods[-1]) == ("study_started", "study_ended")
    ends = [arguments[0] for method, arguments in recorder.calls if method == "trial_ended"]
    for ended_trial in ends:
        end = recorder.calls.index(("trial_ended", (ended_trial,)))
        mine = [
            method
            for method, arguments in recorder.calls[:end]
            if method in ("trial_started", "epoch") and arguments[0] == ended_trial.number
        ]
        expected = ["trial_started"] if ended_trial.outcome in ("complete", "pruned") else []
        assert mine == expected + ["epoch"] * len(ended_trial.values_by_epoch)
    assert methods.count("confirmed") == 2
