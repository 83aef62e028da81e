"""A real PostgreSQL server for the tests that ask for it, and a fresh database of each kind for each test."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

START_SECONDS = 60.0


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a server that was started for the tests, without a database's name."""
    if shutil.which("pg_config") is None:
        pytest.skip("PostgreSQL's server programs are not installed (package postgresql)")
    bindir = Path(
        subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True).stdout.strip()
    )
    if not (bindir / "initdb").exists():
        pytest.skip(f"there is no initdb in {bindir} (package postgresql)")
    # The server refuses to run as root.
    user = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="mc1opt-postgresql-"))
    shutil.chown(folder, user)
    port = _free_port()
    try:
        data = folder / "data"
        initdb = [bindir / "initdb", "-D", data, "-U", "mc1opt", "--auth=trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(initdb, user=user, cwd=folder, check=True, capture_output=True)
        command = [bindir / "postgres", "-D", data, "-k", folder, "-h", "127.0.0.1", "-p", str(port), "-F"]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=log)
        try:
            url = f"postgresql+psycopg://mc1opt@127.0.0.1:{port}"
            _wait_for(f"{url}/postgres", folder / "log")
            yield url
        finally:
            server.terminate()
            server.wait(START_SECONDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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


def execute(url: str, statement: str) -> None:
    """Runs a statement, at once and for good."""
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(statement))


def _wait_for(url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return execute(url, "SELECT 1")
        except sqlalchemy.exc.OperationalError:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server does not answer: {log.read_text()}") from None
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
