"""A path or a URL."""

from pathlib import Path

import pytest

from mc1opt.errors import UsageError
from mc1opt.search.location import sqlite_path, storage_url
from mc1opt.search.opening import open_storage


def test_a_path_is_a_sqlite_file_and_a_url_is_a_url() -> None:
    assert storage_url("a/b.db") == "sqlite:///a/b.db"
    for path in ("a?b#c.db", "100%.db", "a%20b.db", "'quote\".db", "🐈.db"):
        assert sqlite_path(storage_url(path)) == Path(path)
    assert storage_url("sqlite:////tmp/x.db") == "sqlite:////tmp/x.db"


@pytest.mark.parametrize("text", ["nothing://host/x", "://"])
def test_an_unknown_url_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no database that SQLAlchemy knows"):
        open_storage(text, create=True)


def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(UsageError, match="lost with the process"):
        open_storage("sqlite://", create=True)
