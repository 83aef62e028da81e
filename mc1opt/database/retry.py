"""Retries of transactions while the study database is locked, or its server is away.

A failed transaction has written nothing, also where a connection breaks between a commit and its answer: see
`commit.py`. That is for PostgreSQL. On another server the retry then finds the work done: a new trial exists
twice, and one of them waits until `take_up_unanswered` finds it; an ended trial stays ended.
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
"""Retries after a statement's own wait for a locked SQLite file."""
LOCKED_PAUSE_SECONDS = 0.1
"""Mean seconds before the first of these retries, doubled for each further one."""

OUTAGE_SECONDS = 120.0
"""Longest outage of a server: a restart takes seconds, a standby takes over within one or two minutes."""
OUTAGE_PAUSE_SECONDS = 1.0
"""Mean seconds between two retries during an outage."""
AWAY = ("08", "57P")
"""Prefixes of SQLSTATE during an outage: connection exceptions, and a server that shuts down or starts
(PostgreSQL's manual, appendix A)."""


class DatabaseError(StorageError, StorageInternalError):
    """Optuna's error about a study database that cannot be read or written, with a message for people.

    Args:
        error: Optuna's or SQLAlchemy's error.
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
    """Retries a transaction while the SQLite file is locked, a few times, or while the server is away."""

    @functools.wraps(method)
    def patient(storage: Any, /, *arguments: _P.args, **more: _P.kwargs) -> _R:
        for attempt in range(LOCKED_RETRIES):
            try:
                return method(storage, *arguments, **more)
            except StorageInternalError as error:
                if not is_locked(error):
                    raise
            # Random pauses, so that waiting processes do not retry at the same moment.
            time.sleep(random.uniform(0.0, 2.0 * LOCKED_PAUSE_SECONDS * 2**attempt))
        return method(storage, *arguments, **more)

    return through_outages(patient)


def through_outages(method: Callable[Concatenate[Any, _P], _R]) -> Callable[Concatenate[Any, _P], _R]:
    """Retries a transaction while the server is away, as long as the storage's `outage` allows."""

    @functools.wraps(method)
    def patient(storage: Any, /, *arguments: _P.args, **more: _P.kwargs) -> _R:
        outage: Outage = storage.outage
        while True:
            before = time.monotonic()
            try:
                result = method(storage, *arguments, **more)
            except StorageInternalError as error:
                if not _is_away(error) or not outage.may_retry(before, error):
                    raise DatabaseError(error) from error.__cause__
            else:
                outage.is_over()
                return result
            time.sleep(random.uniform(0.0, 2.0 * OUTAGE_PAUSE_SECONDS))

    return patient


class Outage:
    """An outage of a server, shared by all threads of a storage.

    Args:
        patient: whether to retry. A process that only reads fails at once.
    """

    def __init__(self, *, patient: bool) -> None:
        self._patient = patient
        self._since: float | None = None
        self._lock = threading.Lock()

    def may_retry(self, since: float, error: Exception) -> bool:
        """Whether to retry after an error.

        Args:
            since: start of the failed transaction, on the monotonic clock.
            error: its error.
        """
        with self._lock:
            first = self._since is None
            self._since = since if self._since is None else min(self._since, since)
            waits = self._patient and time.monotonic() - self._since < OUTAGE_SECONDS
        if first and waits:
            logger.warning("the study database is away, waiting for it: %s", _reason(error))
        return waits

    def is_over(self) -> None:
        """Notes that the server has answered."""
        with self._lock:
            self._since = None

    def stop_waiting(self) -> None:
        """Makes an outage an error at once, from now on."""
        self._patient = False


def is_locked(error: BaseException) -> bool:
    """Whether an error, or its cause, is SQLite's about a file that another process has locked."""
    while error.__cause__ is not None:
        error = error.__cause__
    # The lower byte is the primary code. Errors of the module itself have none.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _is_away(error: StorageInternalError) -> bool:
    cause = error.__cause__
    if isinstance(cause, PendingRollbackError):
        return True  # Optuna went on with a transaction after its connection broke
    if not isinstance(cause, DBAPIError) or isinstance(cause.orig, sqlite3.Error):
        return False
    if cause.connection_invalidated:
        return True
    # The names of psycopg and psycopg2. A connection that nobody answered has no SQLSTATE.
    state = getattr(cause.orig, "sqlstate", None) or getattr(cause.orig, "pgcode", None)
    return isinstance(cause, OperationalError) and (state is None or str(state).startswith(AWAY))
