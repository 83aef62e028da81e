"""Mirroring for tests: the real command, read back with W&B's own reader; servers to upload to."""

import contextlib
import gzip
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import mc1opt

FOLDER = Path("storage/wandb")
API_KEY = "0123456789" * 4
OWN = {"_runtime", "_step", "_timestamp", "_wandb.runtime"}
"""What W&B adds to each row and summary."""


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither this machine's login, nor its settings."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


SMALL = Path(__file__).parents[1] / "fixtures/stored/small"
"""A folder with a stored study, its retrainings and kept weights, mirrored once by older code."""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The test's own copy of that folder, and its current folder."""
    shutil.copytree(SMALL, tmp_path, dirs_exist_ok=True)
    return tmp_path


def mirror(*options: str, code: int = 0) -> dict[str, Any]:
    """Mirrors the stored study `small` by the command, and returns what `--json` prints."""
    done = mc1opt("mirror", "--study", "small", *options, "--json")
    assert done.returncode == code, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def fake_wandb(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Makes what is started from now on import this code as wandb."""
    (folder / "fake/wandb").mkdir(parents=True)
    (folder / "fake/wandb/__init__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder / "fake"), prepend=os.pathsep)


# ---- Reading ---------------------------------------------------------------------------------------------


@dataclass
class ReadRun:
    """What W&B's own reader finds in a run's file."""

    folder: Path
    run: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    """The metric against which each one is drawn."""
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None
    types: set[str] = field(default_factory=set)
    """Of the records in the file."""


def read_runs(folder: Path = FOLDER) -> dict[str, ReadRun]:
    """All runs in a folder, by id; each is there once."""
    found = [read_run(path) for path in sorted(folder.glob("offline-run-*"))]
    by_id = {read.run["run_id"]: read for read in found}
    assert len(by_id) == len(found)
    return by_id


def read_run(folder: Path) -> ReadRun:
    """Reads a run's folder with `wandb leet inspect`, called without Python's detour."""
    spec = importlib.util.find_spec("wandb")
    assert spec is not None
    assert spec.origin is not None
    (file,) = folder.glob("run-*.wandb")
    listed = subprocess.run(
        [
            Path(spec.origin).parent / "bin/wandb-core",
            *("leet", "inspect", "--no-observability", "--json", "--run-file"),
            *(file.absolute(), folder.parent.absolute()),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    read = ReadRun(folder)
    for line in listed.stdout.splitlines():
        _take(read, json.loads(line))
    return read


def _take(read: ReadRun, record: dict[str, Any]) -> None:
    content = record[record["type"]]
    read.types.add(record["type"])
    if record["type"] == "run":
        read.run = {key: value for key, value in content.items() if key not in ("config", "telemetry")}
        read.config |= {key: value for key, value in content["config"]["update"].items() if key != "_wandb"}
    elif record["type"] == "history":
        read.history.append({key: value for key, value in content["item"].items() if key not in OWN})
    elif record["type"] == "summary":
        read.summary |= {key: value for key, value in content["update"].items() if key not in OWN}
    elif record["type"] == "metric" and "step_metric" in content:
        read.axes[content["name"]] = content["step_metric"]
    elif record["type"] == "artifact":
        read.artifacts.append(content)
    elif record["type"] == "exit":
        read.exit_code = content["exit_code"]


# ---- Servers ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """The URL of a server that accepts connections, and never answers."""
    with contextlib.ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    stack.enter_context(server.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextlib.contextmanager
def no_server() -> Iterator[str]:
    """A URL at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    yield url


class WandbServer(ThreadingHTTPServer):
    """Answers as much of W&B's API as an upload needs, and keeps what it is sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.buckets: dict[str, dict[str, Any]] = {}
        """The first announcement of each run, by id."""
        self.history: dict[str, list[dict[str, Any]]] = {}
        """The rows of each run: W&B keeps them by their line's number."""

    def take_rows(self, run_id: str, files: dict[str, Any]) -> None:
        piece = files.get("wandb-history.jsonl")
        if piece is not None:
            rows = self.history.setdefault(run_id, [])
            rows[piece["offset"] :] = [json.loads(line) for line in piece["content"]]


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def log_message(self, *_: object) -> None:
        """Nothing: the test's output is not the place."""

    def do_GET(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        self._body()
        self._answer({})

    def do_POST(self) -> None:
        body = json.loads(self._body())
        if not self.path.endswith("/graphql"):
            self.server.take_rows(self.path.split("/")[-2], body.get("files", {}))
            self._answer({})
            return
        (name,) = re.findall(r"(?:query|mutation) (\w+)", body["query"])[:1]
        self._answer({"data": self._data(name, body.get("variables") or {})})

    def _data(self, name: str, sent: dict[str, Any]) -> dict[str, Any]:
        if name == "UpsertBucket":
            self.server.buckets.setdefault(sent["name"], sent)
            project = {"id": "p", "name": sent["project"], "entity": {"id": "e", "name": "us"}}
            bucket = {"id": "b", "name": sent["name"], "displayName": sent["displayName"], "config": "{}"}
            bucket |= {"historyLineCount": 0, "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.server.url}/put"} for file in sent["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if name == "CreateArtifact":
            sequence = {"id": "s", "latestArtifact": {"id": "a", "versionIndex": 0}}
            artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": sequence}
            return {"createArtifact": {"artifact": artifact}}
        return {"serverInfo": {"features": []}} if name == "ServerFeaturesQuery" else {}

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def wandb_server() -> Iterator[WandbServer]:
    with WandbServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
