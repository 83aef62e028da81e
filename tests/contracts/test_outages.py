"""A database server that is away for a while, or for good, in the middle of a search."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy

from mc1opt.database import retry as patience
from mc1opt.database.opening import load_study, open_storage
from mc1opt.database.ownership import this_owner
from mc1opt.database.records import TrialRecord, study_record
from mc1opt.errors import StorageError
from mc1opt.search.observers import Observer, SearchEnded
from mc1opt.spec import EpochResult
from mc1opt.workers.stop import StopFlag
from tests.support.curves import Switches
from tests.support.forking import fork_searches
from tests.support.postgresql import Server, execute, new_database, new_server
from tests.support.studies import SECONDS, counted, facts, run_study

pytestmark = pytest.mark.postgresql

TRIALS = 8
AWAY_SECONDS = 1.0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(patience, "OUTAGE_PAUSE_SECONDS", 0.05)
    with new_server() as server:
        yield server


class Outages(Observer):
    """Stops the server after some epochs and ends of trials, and starts it again a little later, or never."""

    def __init__(self, server: Server, *, at_epochs: set[int], at_ends: set[int], again: bool = True) -> None:
        self.stops = 0
        self._server, self._again = server, again
        self._at_epochs, self._at_ends = at_epochs, at_ends
        self._epochs = 0
        self._ends = 0
        self._timer: threading.Timer | None = None

    def epoch(self, number: int, result: EpochResult) -> None:
        self._epochs += 1
        if self._epochs in self._at_epochs:
            self._stop()

    def trial_ended(self, trial: TrialRecord) -> None:
        self._ends += 1
        if self._ends in self._at_ends:
            self._stop()

    def _stop(self) -> None:
        self.join()  # one after the other
        self._server.stop()
        self.stops += 1
        self.stopped_at = time.monotonic()
        if self._again:
            self._timer = threading.Timer(AWAY_SECONDS, self._server.start)
            self._timer.start()

    def join(self) -> None:
        """Waits until the server is there again."""
        if self._timer is not None:
            self._timer.join()


def search(url: str, trials: int, *observers: Observer, **options: Any) -> SearchEnded:
    storage = open_storage(url, create=True, owner=this_owner(), threads=4)
    try:
        return run_study(trials, storage=storage, observers=observers, **options)
    finally:
        storage.remove_session()
        storage.engine.dispose()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_search_waits_for_a_server_that_comes_back_and_nothing_is_lost(
    server: Server, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed = run_study(TRIALS).record
    outages = Outages(server, at_epochs={2, 7}, at_ends={3, 5})
    ended = search(new_database(server.url), TRIALS, outages, workers=workers)
    outages.join()
    assert outages.stops == 4
    assert ended.reason == "finished"
    assert len(counted(ended.record)) == TRIALS
    assert {trial.outcome for trial in ended.record.trials} <= {"complete", "pruned", "duplicate"}
    if workers == 1:  # so that what the sampler has seen is the same
        assert facts(ended.record) == facts(undisturbed)
    assert "waiting for it" in caplog.text


@pytest.mark.parametrize("workers", [1, 3])
def test_a_server_that_stays_away_ends_the_search_and_the_same_search_goes_on_later(
    server: Server, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(patience, "OUTAGE_SECONDS", 4.0)
    url = new_database(server.url)
    away = Outages(server, at_epochs=set(), at_ends={3}, again=False)
    with pytest.raises(StorageError, match="same command again") as caught:
        search(url, TRIALS, away, workers=workers)
    # All wait together, and what comes after has no patience of its own: 12 s and more otherwise.
    assert time.monotonic() - away.stopped_at < 3 * patience.OUTAGE_SECONDS
    assert isinstance(caught.value.__cause__, sqlalchemy.exc.SQLAlchemyError)
    server.start()
    storage = open_storage(url, create=False)
    kept = study_record(load_study(storage, "s"))
    storage.remove_session()
    storage.engine.dispose()
    assert len(counted(kept)) >= 3
    ended = search(url, TRIALS)
    assert len(counted(ended.record)) == TRIALS
    if workers == 1:
        assert facts(ended.record) == facts(run_study(TRIALS).record)


def test_a_search_that_is_stopped_does_not_wait_for_the_server(server: Server) -> None:
    stop = StopFlag()
    away = Outages(server, at_epochs={5}, at_ends=set(), again=False)

    class Stops(Observer):
        def epoch(self, number: int, result: EpochResult) -> None:
            if away.stops:
                stop.set("signal", "SIGINT")

    with pytest.raises(StorageError, match="the study database "):
        search(new_database(server.url), TRIALS, away, Stops(), stop=stop)
    assert time.monotonic() - away.stopped_at < patience.OUTAGE_SECONDS / 3


def test_who_only_reads_does_not_wait(server: Server) -> None:
    url = new_database(server.url)
    writer = open_storage(url, create=True, owner=this_owner(), threads=1)
    reader = open_storage(url, create=False)
    try:
        server.stop()
        before = time.monotonic()
        with pytest.raises(StorageError, match="the study database "):
            reader.get_all_studies()
        assert time.monotonic() - before < patience.OUTAGE_SECONDS / 3
    finally:
        for storage in (writer, reader):
            storage.remove_session()
            storage.engine.dispose()


# ---- Many processes --------------------------------------------------------------------------------------

CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid != pg_backend_pid()"
)


@pytest.mark.slow
def test_eight_processes_lose_and_double_nothing_whatever_happens_to_them_and_the_server(
    server: Server, switches: Switches
) -> None:
    """Two are killed, all connections are cut twice, and the server is stopped and started again twice."""
    processes, trials, kills = 8, 200, 2
    url = new_database(server.url)
    searches = threading.Thread(target=fork_searches, args=("share", processes, trials, kills, url))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda failed: failures.append(failed.exc_value))
        failures: list[BaseException | None] = []
        searches.start()
        for epochs in (100, 250):
            switches.wait_for_epochs(epochs, SECONDS)
            execute(url, CUT)
            switches.wait_for_epochs(epochs + 70, SECONDS)
            server.stop()
            time.sleep(AWAY_SECONDS)
            server.start()
        searches.join()
    assert failures == []
    storage = open_storage(url, create=False)
    record = study_record(load_study(storage, "s"))
    storage.remove_session()
    storage.engine.dispose()
    assert len(counted(record)) == trials
    assert {trial.outcome for trial in record.trials} <= {"complete", "pruned", "duplicate"}
    assert [trial.number for trial in record.trials] == list(range(len(record.trials)))
    trained = [trial.config_id for trial in record.trials if trial.values_by_epoch]
    assert len(set(trained)) == len(trained)
    begun = Counter((epoch["seed"], epoch["epoch"]) for epoch in switches.epochs())
    assert (
        sum(begun.values()) - len(begun) <= 2 * kills
    )  # of each killed process, the epochs of its two workers
    assert sum(trial.interrupted for trial in record.trials) <= 2 * kills
