"""A real PostgreSQL server for the tests that ask for it, and a fresh database of each kind for each test."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from tests.support.postgresql import execute, new_server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a server that was started for the tests, without a database's name."""
    with new_server() as server:
        yield server.url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: a path that does not exist yet, or a new database of the server."""
    if request.param == "sqlite":
        return str(tmp_path / "s.db")
    return new_database(request.getfixturevalue("postgresql"))


def new_database(server: str) -> str:
    """The URL of a new, empty database on a server."""
    name = f"test_{uuid.uuid4().hex}"
    execute(f"{server}/postgres", f"CREATE DATABASE {name}")
    return f"{server}/{name}"


def tables_of(url: str) -> list[str]:
    """The names of a database's tables."""
    return sorted(
        sqlalchemy.inspect(sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)).get_table_names()
    )
