"""Commands to copy, and a signal that Python drops. Others are tested on the commands that they stop."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mc1opt.cli.signals import given_command, resume_command


@pytest.mark.parametrize(
    ("called", "printed"),
    [
        ("/PLACE/found/mc1opt", "mc1opt"),
        ("/PLACE/other/mc1opt", "/PLACE/other/mc1opt"),
        (".venv/bin/mc1opt", ".venv/bin/mc1opt"),
    ],
    ids=["in the search path", "elsewhere", "relative"],
)
def test_the_printed_command_calls_the_program_as_it_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, called: str, printed: str
) -> None:
    for folder in ("found", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mc1opt").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "found"))
    called, printed = (text.replace("/PLACE", str(tmp_path)) for text in (called, printed))
    monkeypatch.setattr(sys, "argv", [called, "run", "--study", "my study.py", "--timeout", "8m", "--json"])
    assert resume_command() == f"{printed} run --study 'my study.py' --json"


@pytest.mark.parametrize("option", [["--timeout", "8m"], ["--timeout=8m"]], ids=["apart", "joined"])
def test_options_are_left_out_with_their_values(monkeypatch: pytest.MonkeyPatch, option: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["mc1opt", "retrain", *option, "--study", "a b"])
    assert given_command(without=("--timeout",)) == "mc1opt retrain --study 'a b'"
    assert given_command() == f"mc1opt retrain {' '.join(option)} --study 'a b'"


@pytest.mark.parametrize("option", [["--storage", "URL"], ["--storage=URL"]], ids=["apart", "joined"])
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://me:it's@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql+psycopg:///db?password=secret", "postgresql+psycopg:///db?password=hidden"),
        ("storage/s.db", "storage/s.db"),
        ("://", "://"),
    ],
)
def test_the_password_of_a_database_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, option: list[str], url: str, shown: str
) -> None:
    given = [part.replace("URL", url) for part in option]
    monkeypatch.setattr(sys, "argv", ["mc1opt", "run", *given, "--trials", "3"])
    expected = [part.replace("URL", shown) for part in option]
    assert shlex.split(given_command()) == ["mc1opt", "run", *expected, "--trials", "3"]


TWINS = """
import os, signal, threading, time
from mc1opt.cli.signals import ECHO_SECONDS, Signals
from mc1opt.workers.stop import StopFlag

stop = StopFlag()
signals = Signals(stop)
signals.leave_to_the_work()
signal.raise_signal(signal.SIGTERM)
signal.raise_signal(signal.SIGTERM)  # as timeout(1) does it
print(stop.reason, signals.exit_code, flush=True)
time.sleep(ECHO_SECONDS * 1.5)
signal.raise_signal(signal.SIGTERM)
print("not reached")
"""


def test_the_same_signal_at_once_is_the_same_request_and_later_it_ends_at_once() -> None:
    ended = subprocess.run([sys.executable, "-c", TWINS], capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("signal 143\n", 143)


DROPPED = """
import signal, time
import typer
from mc1opt.cli.signals import Signals
from mc1opt.workers.stop import StopFlag

class Callback:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)  # what is raised in here, Python only prints

try:
    with Signals(StopFlag()).ending_early("the search"):
        callback = Callback()
        del callback
        time.sleep(60)
except typer.Exit as end:
    raise SystemExit(end.exit_code)
"""


def test_a_signal_that_python_drops_ends_the_command_nevertheless() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", DROPPED], capture_output=True, text=True, timeout=50, check=False
    )
    assert ended.returncode == 143
    assert ended.stderr.startswith("Exception ignored in")
    assert ended.stderr.splitlines()[-1].startswith("Stopped before the search ")
