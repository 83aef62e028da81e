"""What faults happen to: the real command as processes, in a folder with images and study definitions."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mc1opt.database.records import StudyRecord
from mc1opt.database.studies import read_study
from mc1opt.seeds import derive_seed
from tests.faults.checker import STORAGE, Expected, check, processes_of
from tests.support.command import TINY
from tests.support.curves import TRAINER
from tests.support.image_sets import write_binary_folder
from tests.support.once import made_once
from tests.support.studies import SEED, facts

ROOT = Path(__file__).parents[2]

SMALL = '''"""Learning curves of small networks: everything happens in this study."""

from tests.support.studies import EPOCHS, MAX_MACS, STARTING_POINTS, small_space

search_space = small_space
'''

SEARCH = ("run", "--study", "small", "--data", "images", "--seed", str(SEED), "--confirm", "0")
"""To be followed by --trials and --workers."""
TRIALS = 10
QUICK = {"checkpoint_seconds": 0, "dashboard": False}
CURVES = {**QUICK, "trainer": TRAINER}
SECONDS = 180.0
"""Far more than any command here takes on a busy machine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Several commands one after the other, each of which may take long on a busy machine."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(5 * SECONDS))


class Ended(NamedTuple):
    """How a command has ended."""

    code: int
    stdout: str
    stderr: str


class Commands:
    """Starts commands in the test's folder, and ends what is left of them with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self, *arguments: str, changes: dict[str, Any] | None = None, **options: Any
    ) -> "subprocess.Popen[bytes]":
        """Starts the command with `changes` (see the driver), in a process group of its own.

        What it prints goes to files, so that it never waits for a reader. `options` are those of Popen.
        """
        number = len(self._started)
        command = [sys.executable, "-m", "tests.faults.driver", json.dumps(changes or CURVES), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
        with (
            (self.folder / f"{number}.out").open("wb") as out,
            (self.folder / f"{number}.err").open("wb") as err,
        ):
            process = subprocess.Popen(
                command, stdout=out, stderr=err, env=environment, start_new_session=True, **options
            )
        self._started.append(process)
        return process

    def search(self, *, trials: int = TRIALS, workers: int = 1, **options: Any) -> "subprocess.Popen[bytes]":
        """Starts a search of the study `small`."""
        arguments = (*SEARCH, "--trials", str(trials), "--workers", str(workers), *options.pop("more", ()))
        return self.start(*arguments, **options)

    def go_on(self, *, trials: int = TRIALS, workers: int = 1, **options: Any) -> Ended:
        """The same command to its end, which must be a good one."""
        ended = self.finish(self.search(trials=trials, workers=workers, **options))
        assert ended.code == 0, ended.stderr
        return ended

    def finish(self, process: "subprocess.Popen[bytes]", seconds: float = SECONDS) -> Ended:
        """Waits for a command's end."""
        code = process.wait(seconds)
        return Ended(code, self.printed(process), self.printed(process, "err"))

    def printed(self, process: "subprocess.Popen[bytes]", end: str = "out") -> str:
        """What a command has printed so far: "out" or "err"."""
        return (self.folder / f"{self._started.index(process)}.{end}").read_text()

    def kill_all(self) -> None:
        """SIGKILL for every process of the test, workers and their children too.

        All are halted first, so that none sees the end of another, as if they ended in the same moment.
        """
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in processes_of(self.folder):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def close(self) -> None:
        self.kill_all()
        for process in self._started:
            process.wait(SECONDS)


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    """The test's folder has images and the study definition `small`."""
    _prepare(tmp_path)
    started = Commands(tmp_path)
    yield started
    started.close()


def _prepare(folder: Path) -> None:
    write_binary_folder(folder / "images")
    (folder / "studies").mkdir()
    (folder / "studies/small.py").write_text(SMALL)
    (folder / "studies/real.py").write_text(REAL_STUDY)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    """The study `small` of TRIALS trials, trained by one worker, to which nothing has happened."""

    def fill(folder: Path) -> None:
        _prepare(folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MC1OPT_TEST_SWITCHES", raising=False)
            Commands(folder).go_on()
        check(folder, "small", Expected(TRIALS))

    return read_study(str(made_once(tmp_path_factory, "undisturbed", fill) / STORAGE), "small")


# ---- Real images, real training --------------------------------------------------------------------------

REAL_STUDY = f'{TINY}\n\ndel STARTING_POINTS["large"], STARTING_POINTS["wild"]\n'
REAL = ("run", "--study", "real", "--data", "images", "--epochs", "60", "--pruner", "none", "--confirm", "0")
REAL_TRIALS = 2
"""A perceptron and a convolutional network; between them a duplicate."""
REAL_CHANGES = {**QUICK, "trainer": "tests.faults.trainers:noted"}


class Real:
    """The study `real`: small networks that are really trained on small images."""

    def __init__(self, commands: Commands, undisturbed: StudyRecord) -> None:
        self.commands = commands
        self.undisturbed = undisturbed
        """What the study is if nothing happens to it."""

    def search(self, **options: Any) -> "subprocess.Popen[bytes]":
        """Starts the search."""
        return _start_real(self.commands, **options)

    def go_on(self) -> Ended:
        """The same command to its end, which must be a good one."""
        ended = self.commands.finish(self.search())
        assert ended.code == 0, ended.stderr
        return ended

    def check(self, *, on_reference: bool = True) -> StudyRecord:
        """Holds all invariants; `on_reference`: the curves must be those of the undisturbed study, too."""
        record = check(self.commands.folder, "real", Expected(REAL_TRIALS, on_curves=False))
        if on_reference:
            assert facts(record) == facts(self.undisturbed)
        return record

    def epochs_trained(self, number: int) -> list[int]:
        """The epochs of a trial that were really trained, in order; a repeated one is there twice."""
        seed = derive_seed(0, number)
        lines = (self.commands.folder / "noted.jsonl").read_text().splitlines()
        return [epoch["epoch"] for line in lines if (epoch := json.loads(line))["seed"] == seed]


def _start_real(commands: Commands, **options: Any) -> "subprocess.Popen[bytes]":
    arguments = (*REAL, "--workers", "1", "--trials", str(REAL_TRIALS))
    return commands.start(*arguments, changes=REAL_CHANGES, **options)


@pytest.fixture(scope="session")
def undisturbed_real(tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    """The study `real`, to which nothing has happened."""

    def fill(folder: Path) -> None:
        _prepare(folder)
        commands = Commands(folder)
        assert commands.finish(_start_real(commands)).code == 0
        check(folder, "real", Expected(REAL_TRIALS, on_curves=False))

    return read_study(str(made_once(tmp_path_factory, "undisturbed-real", fill) / STORAGE), "real")


@pytest.fixture
def real(commands: Commands, undisturbed_real: StudyRecord) -> Real:
    """The study `real`, in the test's folder."""
    return Real(commands, undisturbed_real)
