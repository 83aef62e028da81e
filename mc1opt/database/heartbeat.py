"""Heartbeats: a search writes them for its running trials, and watches those of others.

On one machine a process's id and start time tell whether it is alive (`ownership.py`). For another machine
only the database does: a heartbeat that has long not changed, on the observer's clock. Optuna's heartbeats
fail a silent trial for good and assume that all clocks agree; only their table is used.
"""

import json
import logging
import threading
import time
from datetime import datetime
from types import TracebackType
from typing import Self

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial

from mc1opt.database import records
from mc1opt.database.interrupted import take_up_interrupted
from mc1opt.database.storage import StudyStorage
from mc1opt.text import first_line

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 20.0
"""Seconds between two heartbeats of each running trial, and between two checks of others'."""

GRACE_SECONDS = 180.0
"""Seconds that an owner on another machine may be silent before its trial is taken up. Longer than a write
with all its retries on a locked database or an absent server: a process presumed dead loses its training."""

STOP_SECONDS = 2.0
"""Seconds that the end of a search waits for a heartbeat that is being written."""


class Watch:
    """Measures how long the owners of trials have been silent, by this machine's monotonic clock."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[str, float]] = {}
        self._heartbeats: dict[int, str] = {}

    def look(self, heartbeats: dict[int, str]) -> None:
        """Takes the present heartbeats of all running trials, by trial id."""
        self._heartbeats = heartbeats

    def is_silent(self, trial: FrozenTrial) -> bool:
        """Whether heartbeat, owner and reports have not changed for `GRACE_SECONDS`."""
        seen = json.dumps(
            [
                self._heartbeats.get(trial._trial_id),
                trial.user_attrs.get(records.OWNER),
                len(trial.intermediate_values),
            ]
        )
        now = time.monotonic()
        before, since = self._last.setdefault(trial._trial_id, (seen, now))
        if before != seen:
            self._last[trial._trial_id] = seen, now
            return False
        return now - since >= GRACE_SECONDS


class Heartbeat:
    """A thread that writes heartbeats of a search's running trials, and takes up trials of dead owners.

    A context manager. An error of the database becomes a warning, and the next beat tries again: the search
    itself fails if it cannot write.

    Args:
        study: the study of the search.
        storage: the study database, with this process as owner.
    """

    def __init__(self, study: optuna.Study, storage: StudyStorage) -> None:
        self._study = study
        self._storage = storage
        self._watch = Watch()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_stopped, name="heartbeat", daemon=True)
        self._warned: set[str] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(STOP_SECONDS)

    def beat(self) -> None:
        """Writes a heartbeat for each trial that this process trains, then takes up trials of dead owners."""
        for trial_id in self._storage.trials_in_training():
            # Another process may have taken a trial over.
            if self._storage.get_trial(trial_id).user_attrs.get(records.OWNER) == self._storage.owner:
                self._storage.record_heartbeat(trial_id)
        self._watch.look(self._storage.heartbeats(self._study._study_id))
        take_up_interrupted(self._study, self._storage, self._watch.is_silent)

    def _beat_until_stopped(self) -> None:
        while True:
            try:
                self.beat()
            except Exception as error:
                text = first_line(error.__cause__ or error)
                if text not in self._warned:
                    self._warned.add(text)
                    logger.warning("a heartbeat could not be written: %s", text)
            if self._stop.wait(HEARTBEAT_SECONDS):
                return


def silent_seconds(study: optuna.Study, storage: StudyStorage) -> dict[int, float]:
    """Seconds since the last heartbeat of running trials, by number; by the clock of the database.

    A trial without a heartbeat is left out.
    """
    beats = storage.heartbeats(study._study_id)
    with storage.engine.connect() as connection:
        now = _moment(connection.scalar(sqlalchemy.select(sqlalchemy.func.now())))
    return {
        trial.number: max(0.0, (now - _moment(beats[trial._trial_id])).total_seconds())
        for trial in study.get_trials(deepcopy=False)
        if trial._trial_id in beats
    }


def _moment(text: object) -> datetime:
    return datetime.fromisoformat(str(text)).replace(tzinfo=None)
