"""A real PostgreSQL server of the tests' own, which can be stopped and started again."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

START_SECONDS = 60.0
ROLE = "colleague"
"""A role that has to give its password, to be made by the test; the tests' own needs none."""


class Server:
    """A server with its data in a folder.

    Args:
        bindir: where the server's programs lie.
        folder: where its data go; it must belong to `user`.
        user: who runs it: it refuses to run as root.
    """

    def __init__(self, bindir: Path, folder: Path, user: str) -> None:
        self._bindir, self._folder, self._user = bindir, folder, user
        self._data = folder / "data"
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        initdb = [bindir / "initdb", "-D", self._data, "-U", "mc1opt", "--auth=trust", "--no-sync"]
        subprocess.run([*initdb, "-E", "UTF8"], user=user, cwd=folder, check=True, capture_output=True)
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")

    @property
    def url(self) -> str:
        """Without a database's name."""
        return f"postgresql+psycopg://mc1opt@127.0.0.1:{self._port}"

    def start(self) -> None:
        """Starts it, and waits until it answers. Nothing where it runs."""
        with self._lock:
            if self._process is None:
                self._start()

    def _start(self) -> None:
        listen = ["-h", "127.0.0.1", "-p", str(self._port)]
        command = [self._bindir / "postgres", "-D", self._data, "-k", self._folder, *listen, "-F"]
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                command, user=self._user, cwd=self._folder, stdout=log, stderr=log
            )
        self._wait()

    def stop(self) -> None:
        """Ends it at once: its connections break, and transactions that were begun are lost."""
        with self._lock:
            if self._process is not None:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait(START_SECONDS)
                self._process = None

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return execute(f"{self.url}/postgres", "SELECT 1")
            except sqlalchemy.exc.OperationalError:
                if time.monotonic() > deadline:
                    log = (self._folder / "log").read_text()
                    raise RuntimeError(f"the server does not answer: {log}") from None
                time.sleep(0.1)


@contextlib.contextmanager
def new_server() -> Iterator[Server]:
    """A server that runs, and is gone afterwards with all its data."""
    if shutil.which("pg_config") is None:
        pytest.skip("PostgreSQL's server programs are not installed (package postgresql)")
    bindir = Path(
        subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True).stdout.strip()
    )
    if not (bindir / "initdb").exists():
        pytest.skip(f"there is no initdb in {bindir} (package postgresql)")
    user = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="mc1opt-postgresql-"))
    try:
        shutil.chown(folder, user)
        server = Server(bindir, folder, user)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a server that was started for the tests, without a database's name."""
    with new_server() as server:
        yield server.url


def new_database(server: str) -> str:
    """The URL of a new, empty database on a server."""
    name = f"test_{uuid.uuid4().hex}"
    execute(f"{server}/postgres", f"CREATE DATABASE {name}")
    return f"{server}/{name}"


def execute(url: str, statement: str) -> None:
    """Runs a statement, at once and for good."""
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(statement))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
