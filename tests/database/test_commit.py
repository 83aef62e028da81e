"""Connections that break between a commit and its answer, and processes that halt before a commit."""

import threading
import time
from collections.abc import Iterator

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy.engine import make_url

from mc1opt.database import commit, retry
from mc1opt.database.opening import load_study, open_storage
from mc1opt.database.ownership import this_owner
from mc1opt.database.storage import StudyStorage
from tests.contracts.test_storages import close
from tests.support.cutting import CuttingProxy, cutting_proxy
from tests.support.postgresql import new_database
from tests.support.studies import facts, run_study, small_definition

pytestmark = pytest.mark.postgresql

TRIALS = 6


@pytest.fixture
def proxy(postgresql: str) -> Iterator[CuttingProxy]:
    port = make_url(postgresql).port
    assert port is not None
    with cutting_proxy(port) as proxy:
        yield proxy


@pytest.fixture
def storage(postgresql: str, proxy: CuttingProxy) -> Iterator[StudyStorage]:
    url = make_url(new_database(postgresql)).set(port=proxy.port)
    storage = open_storage(
        url.render_as_string(hide_password=False), create=True, owner=this_owner(), threads=4
    )
    yield storage
    close(storage)


def test_each_kind_of_write_is_made_once(
    storage: StudyStorage, proxy: CuttingProxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.every = 1
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    study.enqueue_trial({"x": 0.5})
    waiting, new = study.ask(), study.ask()
    for trial in (waiting, new):
        trial.suggest_float("x", 0, 1)
        trial.report(0.25, 0)
        storage.set_own_attributes(trial._trial_id, {"a": 1})
        storage.change_user_attribute(trial._trial_id, "list", lambda before: [*(before or []), 1])
    study.tell(waiting, 0.5)
    assert storage.set_back_to_waiting(new._trial_id, storage.owner, {"interrupted": 1})
    proxy.every = 0
    assert proxy.lost >= 10
    told, back = load_study(storage, "s").trials
    assert (told.state, told.value, told.params["x"]) == (TrialState.COMPLETE, 0.5, 0.5)
    assert (back.state, back.user_attrs["interrupted"]) == (TrialState.WAITING, 1)
    for trial in (told, back):
        assert trial.intermediate_values == {0: 0.25}
        assert (trial.user_attrs["a"], trial.user_attrs["list"]) == (1, [1])
    assert caplog.text == ""


@pytest.mark.parametrize("workers", [1, 3])
def test_a_search_is_the_one_to_which_nothing_happened(
    storage: StudyStorage, proxy: CuttingProxy, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    proxy.every = 7
    ended = run_study(TRIALS, small_definition(), storage=storage, workers=workers)
    proxy.every = 0
    assert proxy.lost > 5
    trials = [trial for trial in ended.record.trials if trial.outcome != "waiting"]
    assert [trial.interrupted for trial in trials] == [0] * len(trials)
    assert caplog.text == ""
    if workers == 1:
        assert facts(ended.record) == facts(run_study(TRIALS, small_definition()).record)


def test_a_process_that_halts_within_a_transaction_does_not_hold_up_others(
    postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds that its transaction was taken back, and makes it again."""
    monkeypatch.setattr(commit, "IDLE_SECONDS", 1)
    monkeypatch.setattr(retry, "OUTAGE_PAUSE_SECONDS", 0.05)
    url = new_database(postgresql)
    halting, other = (open_storage(url, create=True, owner=this_owner(), threads=1) for _ in range(2))
    study = optuna.create_study(storage=halting, study_name="s")
    trial_id = study.ask()._trial_id
    halts = [2.0, 0.0]

    def change(before: list[str] | None) -> list[str]:
        took_lock.set()
        time.sleep(halts.pop(0))
        return [*(before or []), "halted"]

    took_lock = threading.Event()
    halted = threading.Thread(target=halting.change_user_attribute, args=(trial_id, "a", change))
    halted.start()
    took_lock.wait()
    other.change_user_attribute(trial_id, "a", lambda before: [*(before or []), "other"])
    assert halts == [0.0]  # it has not gone on yet
    halted.join()
    assert other.get_trial(trial_id).user_attrs["a"] == ["other", "halted"]
    for storage in (halting, other):
        close(storage)
