"""Signs of life: owners on other machines, real threads and a real database."""

import sqlite3
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from mc1opt.database import heartbeat as heartbeat_module
from mc1opt.database import records
from mc1opt.database.heartbeat import GRACE_SECONDS, HEARTBEAT_SECONDS, Heartbeat, Watch
from mc1opt.database.location import SERVER_ARGUMENTS
from mc1opt.database.opening import load_study
from mc1opt.database.retry import LOCKED_RETRIES, OUTAGE_SECONDS
from mc1opt.database.storage import BUSY_TIMEOUT_SECONDS, StudyStorage
from tests.support.command import wait_until
from tests.support.studies import (
    ELSEWHERE,
    Clock,
    counted,
    definition_of,
    held,
    new_storage,
    run_study,
    smooth_space,
    stored,
)

SMOOTH = definition_of(smooth_space)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(heartbeat_module, "time", clock)
    return clock


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats come, and owners are taken for dead, within a moment."""
    monkeypatch.setattr(heartbeat_module, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(heartbeat_module, "GRACE_SECONDS", 0.3)


def empty_study() -> None:
    optuna.create_study(storage=new_storage(), study_name="s", direction="maximize", load_if_exists=True)


def left_by(owner: dict[str, Any], epochs: int = 0) -> optuna.Trial:
    """A running trial of another process."""
    empty_study()
    trial = load_study(new_storage(owner=owner), "s").ask()
    for epoch in range(epochs):
        trial.report(0.1, epoch)
    return trial


def heartbeat() -> tuple[Heartbeat, optuna.Study, StudyStorage]:
    storage = new_storage()
    study = load_study(storage, "s")
    return Heartbeat(study, storage), study, storage


# ---- Who is silent ---------------------------------------------------------------------------------------


def trial_of(owner: dict[str, Any], epochs: int = 0) -> FrozenTrial:
    trial = create_trial(
        state=TrialState.RUNNING,
        user_attrs={records.OWNER: owner},
        intermediate_values=dict.fromkeys(range(epochs), 0.5),
    )
    trial._trial_id = 7
    return trial


@pytest.mark.parametrize("heartbeats", [{7: "12:00:00"}, {}], ids=["one heartbeat", "none"])
def test_an_owner_is_silent_when_nothing_has_changed_for_the_grace_period(
    clock: Clock, heartbeats: dict[int, str]
) -> None:
    watch, trial = Watch(), trial_of(ELSEWHERE)
    watch.look(heartbeats)
    assert not watch.is_silent(trial)
    clock.set_forward(GRACE_SECONDS - 1)
    assert not watch.is_silent(trial)
    clock.set_forward(2)
    assert watch.is_silent(trial)


@pytest.mark.parametrize("what", ["heartbeat", "owner", "report"])
def test_whatever_changes_is_a_sign_of_life(clock: Clock, what: str) -> None:
    watch = Watch()
    watch.look({7: "12:00:00"})
    watch.is_silent(trial_of(ELSEWHERE))
    clock.set_forward(GRACE_SECONDS + 1)
    if what == "heartbeat":
        watch.look({7: "11:00:00"})  # also one that goes back, as a clock that is set does
    trial = trial_of({**ELSEWHERE, "pid": 1} if what == "owner" else ELSEWHERE, epochs=int(what == "report"))
    assert not watch.is_silent(trial)
    clock.set_forward(GRACE_SECONDS - 1)
    assert not watch.is_silent(trial)
    clock.set_forward(2)
    assert watch.is_silent(trial)


def test_the_grace_period_is_longer_than_a_write_may_wait() -> None:
    assert GRACE_SECONDS > HEARTBEAT_SECONDS + (LOCKED_RETRIES + 1) * BUSY_TIMEOUT_SECONDS
    last_try = max(SERVER_ARGUMENTS["connect_timeout"], SERVER_ARGUMENTS["tcp_user_timeout"] / 1000)
    assert HEARTBEAT_SECONDS + OUTAGE_SECONDS + last_try < GRACE_SECONDS


# ---- A beat ----------------------------------------------------------------------------------------------


def test_a_beat_is_recorded_for_the_trials_that_run_and_for_no_others() -> None:
    empty_study()
    beating, study, storage = heartbeat()
    first, second = study.ask(), study.ask()
    with held(storage, first._trial_id):
        beating.beat()
        assert storage.heartbeats(study._study_id).keys() == {first._trial_id}
        with held(storage, second._trial_id):
            beating.beat()
    assert storage.heartbeats(study._study_id).keys() == {first._trial_id, second._trial_id}


def test_no_beat_is_recorded_for_a_trial_that_another_process_took_over() -> None:
    empty_study()
    beating, study, storage = heartbeat()
    trial = study.ask()
    with held(storage, trial._trial_id):
        assert new_storage(owner=ELSEWHERE).take_over(trial._trial_id, storage.owner)
        beating.beat()
    assert storage.heartbeats(study._study_id) == {}


def test_a_trial_of_another_machine_is_taken_up_after_the_grace_period_and_not_before(clock: Clock) -> None:
    number = left_by(ELSEWHERE, epochs=2).number
    beating, _, _ = heartbeat()
    beating.beat()
    clock.set_forward(GRACE_SECONDS - 1)
    beating.beat()
    assert stored().trials[number].outcome == "running"
    clock.set_forward(2)
    beating.beat()
    trial = stored().trials[number]
    assert (trial.outcome, trial.interrupted) == ("waiting", 1)


def test_a_trial_of_another_machine_that_beats_is_let_alone(clock: Clock) -> None:
    trial = left_by(ELSEWHERE)
    beating, study, storage = heartbeat()
    for _ in range(3):
        # As that machine's search does it: the clock of the database goes on by a second at least.
        before = storage.heartbeats(study._study_id)
        wait_until(
            lambda before=before: (
                storage.record_heartbeat(trial._trial_id) or (storage.heartbeats(study._study_id) != before)
            )
        )
        beating.beat()
        clock.set_forward(GRACE_SECONDS - 1)
    assert stored().trials[trial.number].outcome == "running"


# ---- In a search -----------------------------------------------------------------------------------------


def test_a_search_takes_up_what_a_dead_search_on_another_machine_left(quick: None) -> None:
    run_study(1, SMOOTH)
    number = left_by(ELSEWHERE).number
    with heartbeat()[0]:
        wait_until(lambda: stored().trials[number].outcome == "waiting")
    record = run_study(3, SMOOTH).record
    assert record.trials[number].outcome in ("complete", "pruned")
    assert len(counted(record)) == 3
    assert len(record.trials) == 3


def test_a_heartbeat_that_cannot_be_written_is_a_warning_and_the_next_ones_are_tried(
    quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    empty_study()
    beating, study, storage = heartbeat()
    trial = study.ask()
    connection = sqlite3.connect("s.db")
    connection.execute("ALTER TABLE trial_heartbeats RENAME TO gone")
    with beating, held(storage, trial._trial_id):
        wait_until(lambda: "trial_heartbeats" in caplog.text)
        connection.execute("ALTER TABLE gone RENAME TO trial_heartbeats")
        wait_until(lambda: storage.heartbeats(study._study_id) != {})
    connection.close()
    assert len(caplog.records) == 1


def test_its_thread_ends_with_the_block(quick: None) -> None:
    empty_study()
    beating, _, _ = heartbeat()
    with beating:
        assert beating._thread.is_alive()
    assert not beating._thread.is_alive()
