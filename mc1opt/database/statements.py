"""The SQL of atomic writes: statements on an open connection.

Not here: which statements form a transaction (`storage.py`).
"""

import json
from collections.abc import Container
from datetime import datetime
from typing import Any

import sqlalchemy
from sqlalchemy import Connection

from mc1opt.database.records import CONFIG_ID, DUPLICATE_OF, OWNER


def study_of(connection: Connection, trial_id: int) -> int:
    """The id of a trial's study."""
    statement = sqlalchemy.text("SELECT study_id FROM trials WHERE trial_id = :trial")
    return int(connection.execute(statement, {"trial": trial_id}).scalar_one())


def one_after_the_other(connection: Connection, study_id: int) -> None:
    """Locks the study until the end of the transaction, on SQLite and on servers, without a change."""
    connection.execute(
        sqlalchemy.text("UPDATE studies SET study_name = study_name WHERE study_id = :study"),
        {"study": study_id},
    )


def begun_trials(connection: Connection, study_id: int) -> int:
    """Number of trials of a study in any state but WAITING."""
    statement = "SELECT COUNT(*) FROM trials WHERE study_id = :study AND state != 'WAITING'"
    return int(connection.execute(sqlalchemy.text(statement), {"study": study_id}).scalar_one())


def begin(connection: Connection, trial_id: int, now: datetime) -> bool:
    """Sets a trial from WAITING to RUNNING; returns whether it was waiting."""
    changed = connection.execute(
        sqlalchemy.text(
            "UPDATE trials SET state = 'RUNNING', datetime_start = :now "
            "WHERE trial_id = :trial AND state = 'WAITING'"
        ).bindparams(sqlalchemy.bindparam("now", now, sqlalchemy.DateTime())),
        {"trial": trial_id},
    )
    return changed.rowcount > 0


def set_back(connection: Connection, trial_id: int) -> bool:
    """Sets a trial from RUNNING to WAITING; returns whether it was running."""
    changed = connection.execute(
        sqlalchemy.text("UPDATE trials SET state = 'WAITING' WHERE trial_id = :trial AND state = 'RUNNING'"),
        {"trial": trial_id},
    )
    return changed.rowcount > 0


def heartbeats(connection: Connection, study_id: int) -> dict[int, str]:
    """The last heartbeats of a study's running trials, by trial id."""
    rows = connection.execute(
        sqlalchemy.text(
            "SELECT trial_id, heartbeat FROM trial_heartbeats JOIN trials USING (trial_id) "
            "WHERE study_id = :study AND state = 'RUNNING'"
        ),
        {"study": study_id},
    )
    return {trial_id: str(heartbeat) for trial_id, heartbeat in rows}


def change_owner(
    connection: Connection, trial_id: int, expected: dict[str, Any] | None, owner: dict[str, Any] | None
) -> bool:
    """Compare-and-swap of a trial's owner; returns whether it was `expected`."""
    changed = connection.execute(
        sqlalchemy.text(
            "UPDATE trial_user_attributes SET value_json = :owner "
            "WHERE trial_id = :trial AND key = :key AND value_json = :expected"
        ),
        {"trial": trial_id, "key": OWNER, "owner": json.dumps(owner), "expected": json.dumps(expected)},
    )
    return changed.rowcount > 0


def original_of(
    connection: Connection, study_id: int, trial_id: int, config_id: str, passed_over: Container[int]
) -> int | None:
    """The number of the study's first other trial with this config that is no duplicate and not FAIL.

    Args:
        connection: the open transaction.
        study_id: the study's id.
        trial_id: the id of the trial itself, which is left out.
        config_id: the config's identity.
        passed_over: ids of foreign trials, which are left out.
    """
    rows = connection.execute(
        sqlalchemy.text(
            "SELECT trials.trial_id, number FROM trial_user_attributes JOIN trials USING (trial_id) "
            "WHERE study_id = :study AND trials.trial_id != :trial AND key = :key AND value_json = :config "
            "AND state != 'FAIL' AND trials.trial_id NOT IN "
            "(SELECT trial_id FROM trial_user_attributes WHERE key = :duplicate) ORDER BY number"
        ),
        {
            "study": study_id,
            "trial": trial_id,
            "key": CONFIG_ID,
            "config": json.dumps(config_id),
            "duplicate": DUPLICATE_OF,
        },
    )
    return next((int(number) for other, number in rows if other not in passed_over), None)


def own_distribution(connection: Connection, trial_id: int, name: str) -> str | None:
    """The distribution (JSON) of a parameter in another trial of the study that has an owner."""
    row = connection.execute(
        sqlalchemy.text(
            "SELECT distribution_json FROM trial_params JOIN trials USING (trial_id) "
            "JOIN trial_user_attributes AS owner ON owner.trial_id = trials.trial_id AND owner.key = :owner "
            "WHERE study_id = :study AND trials.trial_id != :trial AND param_name = :name "
            "AND owner.value_json != 'null' LIMIT 1"
        ),
        {"study": study_of(connection, trial_id), "trial": trial_id, "name": name, "owner": OWNER},
    ).fetchone()
    return None if row is None else str(row[0])


def read_attribute(connection: Connection, trial_id: int, key: str) -> Any:
    """A user attribute of a trial, locked until the end of the transaction; None if it is missing."""
    connection.execute(
        sqlalchemy.text("UPDATE trials SET number = number WHERE trial_id = :trial"), {"trial": trial_id}
    )
    statement = "SELECT value_json FROM trial_user_attributes WHERE trial_id = :trial AND key = :key"
    row = connection.execute(sqlalchemy.text(statement), {"trial": trial_id, "key": key}).fetchone()
    return None if row is None else json.loads(row[0])


def write_attribute(connection: Connection, trial_id: int, key: str, value: Any) -> None:
    """Writes a user attribute of a trial."""
    _write(connection, "trial_user_attributes", "trial_id", trial_id, key, value)


def write_study_attribute(connection: Connection, study_id: int, key: str, value: Any) -> None:
    """Writes a system attribute of a study."""
    _write(connection, "study_system_attributes", "study_id", study_id, key, value)


def _write(connection: Connection, table: str, column: str, owner_id: int, key: str, value: Any) -> None:
    values = {"id": owner_id, "key": key, "value": json.dumps(value)}
    updated = connection.execute(
        sqlalchemy.text(f"UPDATE {table} SET value_json = :value WHERE {column} = :id AND key = :key"),
        values,
    )
    if not updated.rowcount:
        connection.execute(
            sqlalchemy.text(f"INSERT INTO {table} ({column}, key, value_json) VALUES (:id, :key, :value)"),
            values,
        )
