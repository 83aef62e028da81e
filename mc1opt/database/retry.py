"""Patience with a study database: where it is locked, or its server is away, a transaction is tried again.

A failed transaction has written nothing, with one exception: a server can die between a commit and its
answer. Then the second try finds the work done. A new trial is there twice, and one of them is trained by
nobody until the next start takes it up; a trial that was ended is left as it is. Neither costs a finished
trial.
"""

import functools
import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, OperationalError, PendingRollbackError

from mc1opt.errors import StorageError
from mc1opt.text import first_line

logger = logging.getLogger(__name__)

LOCKED_RETRIES = 4
"""How often what found the SQLite file locked, for as long as a statement waits, is tried again."""
LOCKED_PAUSE_SECONDS = 0.1
"""The mean pause before the first of them; each next one is twice as long."""

OUTAGE_SECONDS = 120.0
"""How long a server may be away: a restart takes seconds, a standby takes over within one or two minutes."""
OUTAGE_PAUSE_SECONDS = 1.0
"""The mean pause between tries to reach it."""
AWAY = ("08", "57P")
"""How the SQLSTATE of an error begins that says so: connection exceptions, and a server that shuts down or
starts (PostgreSQL's manual, appendix A)."""


class DatabaseError(StorageError, StorageInternalError):
    """A study database that cannot be read or written: Optuna's error, in words for people.

    Args:
        error: Optuna's, or SQLAlchemy's.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"the study database cannot be read or written: {_reason(error)}. Finished trials are kept; free "
            "the disk, end what holds the database or start its server, and give the same command again."
        )


def _reason(error: Exception) -> str:
    return first_line(error.__cause__ or error)


_P = ParamSpec("_P")
_R = TypeVar("_R")


def retried(method: Callable[Concatenate[Any, _P], _R]) -> Callable[Concatenate[Any, _P], _R]:
    """Tries a transaction again where the SQLite file is locked, a few times, or the server is away."""

    @functools.wraps(method)
    def patient(storage: Any, /, *arguments: _P.args, **more: _P.kwargs) -> _R:
        for attempt in range(LOCKED_RETRIES):
            try:
                return method(storage, *arguments, **more)
            except StorageInternalError as error:
                if not is_locked(error):
                    raise
            # At random, so that those who wait don't come back at the same moment.
            time.sleep(random.uniform(0.0, 2.0 * LOCKED_PAUSE_SECONDS * 2**attempt))
        return method(storage, *arguments, **more)

    return through_outages(patient)


def through_outages(method: Callable[Concatenate[Any, _P], _R]) -> Callable[Concatenate[Any, _P], _R]:
    """Tries a transaction again while the server is away, as long as the storage's `outage` lets it."""

    @functools.wraps(method)
    def patient(storage: Any, /, *arguments: _P.args, **more: _P.kwargs) -> _R:
        outage: Outage = storage.outage
        while True:
            before = time.monotonic()
            try:
                result = method(storage, *arguments, **more)
            except StorageInternalError as error:
                if not _is_away(error) or not outage.is_waited_for(before, error):
                    raise DatabaseError(error) from error.__cause__
            else:
                outage.is_over()
                return result
            time.sleep(random.uniform(0.0, 2.0 * OUTAGE_PAUSE_SECONDS))

    return patient


class Outage:
    """One absence of a server, which all threads that use a storage wait for together.

    Args:
        patient: whether it is waited for at all. Who only reads would rather know.
    """

    def __init__(self, *, patient: bool) -> None:
        self._patient = patient
        self._since: float | None = None
        self._lock = threading.Lock()

    def is_waited_for(self, since: float, error: Exception) -> bool:
        """Whether to try again after an error.

        Args:
            since: when the try began, by the monotonic clock.
            error: what came of it.
        """
        with self._lock:
            first = self._since is None
            self._since = since if self._since is None else min(self._since, since)
            waits = self._patient and time.monotonic() - self._since < OUTAGE_SECONDS
        if first and waits:
            logger.warning("the study database is away, waiting for it: %s", _reason(error))
        return waits

    def is_over(self) -> None:
        """The server has answered."""
        with self._lock:
            self._since = None

    def stop_waiting(self) -> None:
        """From now on an outage is an error at once."""
        self._patient = False


def is_locked(error: BaseException) -> bool:
    """Whether an error, of SQLite or caused by one of it, says that another process holds the file's lock."""
    while error.__cause__ is not None:
        error = error.__cause__
    # The lower byte is the plain code. Errors of the module itself, not of SQLite, have none.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _is_away(error: StorageInternalError) -> bool:
    cause = error.__cause__
    if isinstance(cause, PendingRollbackError):
        return True  # Optuna asked in another way after a connection broke, in the same transaction
    if not isinstance(cause, DBAPIError) or isinstance(cause.orig, sqlite3.Error):
        return False
    if cause.connection_invalidated:
        return True
    # A connection that could not be made at all has no SQLSTATE, if nobody answered. psycopg's name for it,
    # and that of psycopg2.
    state = getattr(cause.orig, "sqlstate", None) or getattr(cause.orig, "pgcode", None)
    return isinstance(cause, OperationalError) and (state is None or str(state).startswith(AWAY))
