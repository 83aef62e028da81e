"""A database server that is away for a while, or for good, in the middle of a search."""

import threading
from collections.abc import Iterator

import pytest

from mc1opt.errors import StorageError
from mc1opt.search import patience
from mc1opt.search.observers import Observer, SearchEnded
from mc1opt.search.opening import open_storage
from mc1opt.search.ownership import this_owner
from mc1opt.search.records import TrialRecord, study_record
from mc1opt.search.resume import load_study
from mc1opt.spec import EpochResult
from tests.contracts.conftest import new_database
from tests.contracts.server import Server, new_server
from tests.search.studies import counted, facts, run_study

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

    def epoch(self, number: int, result: EpochResult) -> None:
        self._epochs += 1
        if self._epochs in self._at_epochs:
            self._stop()

    def trial_ended(self, trial: TrialRecord) -> None:
        self._ends += 1
        if self._ends in self._at_ends:
            self._stop()

    def _stop(self) -> None:
        self._server.stop()
        self.stops += 1
        if self._again:
            threading.Timer(AWAY_SECONDS, self._server.start).start()


def search(url: str, trials: int, *observers: Observer, workers: int = 1) -> SearchEnded:
    storage = open_storage(url, create=True, owner=this_owner(), threads=4)
    try:
        return run_study(trials, storage=storage, observers=observers, workers=workers)
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
    assert outages.stops == 4
    assert ended.reason == "finished"
    assert len(counted(ended.record)) == TRIALS
    assert {trial.outcome for trial in ended.record.trials} <= {"complete", "pruned", "duplicate"}
    if workers == 1:  # so that what the sampler has seen is the same
        assert facts(ended.record) == facts(undisturbed)
    assert "the study database is away, waiting for it" in caplog.text


def test_a_server_that_stays_away_ends_the_search_and_the_same_search_goes_on_later(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "OUTAGE_SECONDS", 0.5)
    url = new_database(server.url)
    with pytest.raises(StorageError, match=r"cannot be read or written: .*same command again"):
        search(url, TRIALS, Outages(server, at_epochs=set(), at_ends={3}, again=False))
    server.start()
    storage = open_storage(url, create=False)
    kept = study_record(load_study(storage, "s"))
    storage.remove_session()
    storage.engine.dispose()
    assert len(counted(kept)) >= 3
    ended = search(url, TRIALS)
    assert facts(ended.record) == facts(run_study(TRIALS).record)
