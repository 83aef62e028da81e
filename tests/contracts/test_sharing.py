"""Several processes that search one study: its total is exact, whoever dies, and nobody waits for nothing."""

import threading
import time
from collections import Counter
from collections.abc import Iterator

import optuna
import pytest
from optuna.trial import TrialState

from mc1opt.database.opening import load_study, open_storage
from mc1opt.database.ownership import NoRoomError, this_owner
from mc1opt.database.records import StudyRecord, study_record
from mc1opt.database.storage import StudyStorage
from mc1opt.workers.stop import StopFlag
from tests.contracts.test_storages import ME, YOU, close
from tests.support.curves import Switches
from tests.support.forking import fork_searches
from tests.support.studies import SECONDS, counted, definition_of, run_study, smooth_space

TOTAL = 8
PROCESSES = 4


def record_of(url: str) -> StudyRecord:
    storage = open_storage(url, create=False)
    record = study_record(load_study(storage, "s"))
    close(storage)
    return record


@pytest.fixture
def storage(storage_url: str) -> Iterator[StudyStorage]:
    storage = open_storage(storage_url, create=True, owner=ME, threads=8)
    yield storage
    close(storage)


@pytest.fixture
def study(storage: StudyStorage) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name="s", direction="maximize")


# ---- Whole searches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kills", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_processes_that_start_together_train_exactly_the_total(
    storage_url: str, switches: Switches, kills: int, attempt: int
) -> None:
    """Also where some of them are killed within an epoch: the others take their trials up."""
    switches.add("sleep", epoch=None, value=0.05)
    fork_searches("share", PROCESSES, TOTAL, kills, storage_url)
    record = record_of(storage_url)
    assert len(counted(record)) == TOTAL
    assert not {trial.outcome for trial in record.trials} & {"running", "waiting", "failed", "foreign"}
    begun = Counter((epoch["seed"], epoch["epoch"]) for epoch in switches.epochs())
    # A process with two workers may lose two epochs.
    assert sum(begun.values()) - len(begun) <= 2 * kills
    assert sum(trial.interrupted for trial in record.trials) <= 2 * kills


def test_searches_in_threads_of_one_process_leave_each_other_their_trials(
    storage_url: str, switches: Switches
) -> None:
    """Each is an attempt of its own, though the process is the same: it lives as long as any of them."""
    switches.add("sleep", epoch=None, value=0.05)
    storages = [open_storage(storage_url, create=True, owner=this_owner(), threads=4) for _ in range(2)]

    def search(storage: StudyStorage) -> None:
        run_study(TOTAL, workers=2, storage=storage)
        close(storage)

    threads = [threading.Thread(target=search, args=(storage,)) for storage in storages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = record_of(storage_url)
    assert len(counted(record)) == TOTAL
    assert [trial.interrupted for trial in record.trials] == [0] * len(record.trials)
    assert set(Counter((epoch["seed"], epoch["epoch"]) for epoch in switches.epochs()).values()) == {1}


def test_a_search_that_waits_for_another_process_ends_at_once_when_it_is_stopped(
    storage_url: str, switches: Switches
) -> None:
    other = open_storage(storage_url, create=True, owner=this_owner() | {"host": "elsewhere"}, threads=1)
    run_study(1, definition_of(smooth_space), storage=other)
    load_study(other, "s").ask()  # in training elsewhere, so that no room is left
    mine = open_storage(storage_url, create=True, owner=this_owner(), threads=4)
    stop = StopFlag()
    before = time.monotonic()
    threading.Timer(1.0, stop.set, ("signal", "SIGINT")).start()
    ended = run_study(2, definition_of(smooth_space), workers=2, storage=mine, stop=stop)
    assert (ended.reason, ended.message) == ("signal", "SIGINT")
    assert 0.9 < time.monotonic() - before < SECONDS / 4
    assert [trial.outcome for trial in ended.record.trials] == ["complete", "running"]
    close(mine)
    close(other)


# ---- Room ------------------------------------------------------------------------------------------------


def test_a_trial_is_taken_only_where_fewer_have_begun(storage: StudyStorage, study: optuna.Study) -> None:
    with storage.room_for(2):
        study.tell(study.ask(), state=TrialState.FAIL)  # has begun as well
        study.ask()
        for _ in range(2):
            with pytest.raises(NoRoomError):
                study.ask()
    study.enqueue_trial({"x": 1})  # takes no room: it has not begun
    with storage.room_for(2), pytest.raises(NoRoomError):
        study.ask()
    assert [trial.state.name for trial in study.trials] == ["FAIL", "RUNNING", "WAITING"]
    assert study.ask().number == 2  # without a limit


def test_a_trial_that_is_set_back_makes_room(storage: StudyStorage, study: optuna.Study) -> None:
    with storage.room_for(1):
        trial = study.ask()
        storage.set_back_to_waiting(trial._trial_id, ME, {})
        assert study.ask().number == trial.number


def test_threads_of_several_storages_take_as_many_trials_as_there_is_room(
    storage: StudyStorage, study: optuna.Study
) -> None:
    for x in range(3):
        study.enqueue_trial({"x": x})
    storages = [open_storage(storage.url, create=False, owner=YOU, threads=1) for _ in range(6)]
    studies = [load_study(one, "s") for one in storages]
    barrier = threading.Barrier(len(storages))
    taken: list[int] = []

    def take(one: StudyStorage, its: optuna.Study) -> None:
        barrier.wait()
        for _ in range(3):
            try:
                with one.room_for(7):
                    taken.append(its.ask().number)
            except NoRoomError:
                pass
        close(one)

    threads = [threading.Thread(target=take, args=pair) for pair in zip(storages, studies, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(7))
