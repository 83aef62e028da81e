"""A fresh database of each kind for each test."""

from pathlib import Path

import pytest
import sqlalchemy


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: a path that does not exist yet, or a new database of the server."""
    if request.param == "sqlite":
        return str(tmp_path / "s.db")
    # Not at the top: this file may be loaded before that plugin, whose assertions then were not rewritten.
    from tests.support.postgresql import new_database

    return new_database(request.getfixturevalue("postgresql"))


def tables_of(url: str) -> list[str]:
    """The names of a database's tables."""
    return sorted(
        sqlalchemy.inspect(sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)).get_table_names()
    )
