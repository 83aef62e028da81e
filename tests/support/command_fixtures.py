"""Images, a search that has ended, and the command in this process for what needs no process of its own."""

import io
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mc1opt.cli.main import main
from mc1opt.workers import engine
from tests.support.command import COMMAND, SECONDS, TINY, TINY_SEARCH
from tests.support.curves import CurvePool
from tests.support.image_sets import write_binary_folder
from tests.support.once import made_once


@pytest.fixture(scope="session")
def finished_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a search of 3 trials has ended: its database, images, output. Not to be changed."""
    return made_once(tmp_path_factory, "finished", _search)


def _search(folder: Path) -> None:
    _prepare(folder)
    with Path("stdout").open("w") as stdout, Path("stderr").open("w") as stderr:
        given = [COMMAND, *TINY_SEARCH, "--trials", "3", "--confirm", "1", "--json"]
        subprocess.run(given, stdout=stdout, stderr=stderr, timeout=SECONDS, check=False)


def _prepare(folder: Path) -> None:
    write_binary_folder(folder / "images")
    (folder / "studies").mkdir()
    (folder / "studies/tiny.py").write_text(TINY)


@pytest.fixture
def finished(finished_folder: Path, tmp_path: Path) -> Path:
    """The test's own copy of that folder, and its current folder."""
    shutil.copytree(finished_folder, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The current folder, with images and the study definition, but without a database."""
    _prepare(tmp_path)
    return tmp_path


@pytest.fixture
def start() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts a command, which ends with the test at the latest.

    What it prints fits into the pipes, so that it may be read at the end.
    """
    started = []

    def start_one(*arguments: str) -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        started.append(subprocess.Popen([COMMAND, *arguments], stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.fixture
def curve_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches in this process train learning curves, without worker processes."""
    monkeypatch.setattr(engine, "ProcessPool", lambda workers, **_: CurvePool(workers))


@pytest.fixture
def mc1opt_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., "subprocess.CompletedProcess[str]"]]:
    """Gives a command to `main` in this process: a process of its own takes a second to start."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def give(*arguments: str, answer: str = "") -> "subprocess.CompletedProcess[str]":
        monkeypatch.setattr(sys, "argv", ["mc1opt", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        stdout, stderr = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), stdout, stderr)

    yield give
    for number, handler in handlers.items():
        signal.signal(number, handler)
