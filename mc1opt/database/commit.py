"""Transactions on PostgreSQL that are cut: commits whose answer was lost, and those that never come.

A connection may break after a commit and before its answer. A transaction that is then repeated makes a trial
twice, and finds a trial that it has ended to be ended. PostgreSQL remembers of every recent transaction
whether it was committed, also after a restart. It can be asked.
"""

import time
from typing import Any

import sqlalchemy
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.pool import NullPool, PoolProxiedConnection

from mc1opt.database.location import server_arguments
from mc1opt.database.retry import Outage

IDLE_SECONDS = 60
"""Seconds that a transaction may wait for its process, whole; ours take milliseconds."""
SESSION_SETTINGS = {"tcp_keepalives_idle": 15, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 3}
"""By default a server waits two hours for a client whose machine has vanished."""
ASK_SECONDS = 0.2
"""Seconds between two questions while the server has not yet ended the transaction, or is away."""


def make_commits_certain(engine: sqlalchemy.Engine, outage: Outage) -> None:
    """Makes commits of an engine fail only where nothing was written. Only for PostgreSQL.

    Costs a round trip to the server for each transaction.

    Args:
        engine: the engine, with a pool of its own.
        outage: says for how long to ask while the server is away.
    """
    dialect: Any = engine.dialect
    commit = dialect.do_commit

    def do_commit(connection: PoolProxiedConnection) -> None:
        transaction = _transaction_id(connection)
        began = time.monotonic()
        try:
            commit(connection)
        except dialect.loaded_dbapi.OperationalError as error:
            if not dialect.is_disconnect(error, connection, None):
                raise
            # One that has written nothing has ended well: what it has read is here.
            if transaction is not None and not _is_committed(engine.url, transaction, outage, began):
                raise
            connection.invalidate(error)

    dialect.do_commit = do_commit


def end_silent_sessions(engine: sqlalchemy.Engine) -> None:
    """Has the server end sessions whose process halts within a transaction, or whose machine has vanished.

    A transaction holds the lock of its study, for which all machines would wait. Only for PostgreSQL.
    """
    settings = SESSION_SETTINGS | {"idle_in_transaction_session_timeout": 1000 * IDLE_SECONDS}

    def set_up(connection: Any, _record: object) -> None:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("; ".join(f"SET {name} = {value}" for name, value in settings.items()))
        cursor.close()
        connection.autocommit = False

    sqlalchemy.event.listen(engine, "connect", set_up)
    engine.dispose()  # the connections that it has already


def _transaction_id(connection: DBAPIConnection) -> str | None:
    """The id of the open transaction; None if it has written nothing."""
    cursor = connection.cursor()
    try:
        cursor.execute("SELECT CAST(pg_current_xact_id_if_assigned() AS text)")
        row = cursor.fetchone()
    finally:
        cursor.close()
    return None if row is None else row[0]


def _is_committed(url: sqlalchemy.URL, transaction: str, outage: Outage, began: float) -> bool:
    """Whether a transaction was committed. Waits for its end, and for the server.

    Raises:
        OperationalError: the server is away for longer than the outage may last.
    """
    arguments = server_arguments(url.render_as_string(hide_password=False))
    engine = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args=arguments)
    question = sqlalchemy.text("SELECT pg_xact_status(CAST(:id AS xid8))")
    while True:
        try:
            with engine.connect() as connection:
                status = connection.scalar(question, {"id": transaction})
        except DataError:  # an id of the future: the server has crashed, and nothing of it was on disk
            return False
        except OperationalError as error:
            if not outage.may_retry(began, error):
                raise
        else:
            if status != "in progress":
                return bool(status == "committed")
        time.sleep(ASK_SECONDS)
