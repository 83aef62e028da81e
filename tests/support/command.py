"""The command `mc1opt` as people give it: a process of its own, its output read as they read it."""

import json
import re
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mc1opt.data.cache import VERIFIED
from mc1opt.database.studies import read_study

COMMAND = Path(sys.executable).parent / "mc1opt"
SECONDS = 90.0
"""Far more than any command here takes, torch's import on a busy machine included."""

TINY = '''"""Networks that train in a moment."""

from mc1opt.config import MLP, SGD, Config, ConvBlock, ConvNet, LinearLayer

EPOCHS = 2
TRAIN_IMAGES = 100
MAX_MACS = 5_000_000
SMALL = {"kind": "mlp", "width": 8, "learning_rate": 0.05}
STARTING_POINTS = {
    "mlp": SMALL,
    "the same": SMALL,
    "convnet": {"kind": "convnet", "width": 8, "learning_rate": 0.05},
    "large": {"kind": "mlp", "width": 2048, "learning_rate": 0.05},
    "wild": {"kind": "mlp", "width": 64, "learning_rate": 100.0},
}


def search_space(trial):
    kind = trial.suggest_categorical("kind", ["mlp", "convnet"])
    width = trial.suggest_int("width", 2, 2048, log=True)
    learning_rate = trial.suggest_float("learning_rate", 0.001, 100.0, log=True)
    if kind == "mlp":
        architecture = MLP(layers=(LinearLayer(width=width),) * 4)
    else:
        architecture = ConvNet(blocks=(ConvBlock(width=width, stride=4),))
    return Config(architecture=architecture, optimizer=SGD(learning_rate=learning_rate), batch_size=10)
'''
"""A study definition whose starting points end in every way that a trial can end in."""

TINY_SEARCH = ("run", "--study", "tiny", "--workers", "1", "--pruner", "none", "--data", "images")


def mc1opt(*arguments: str, answer: str = "") -> "subprocess.CompletedProcess[str]":
    """Gives a command, with `answer` on its standard input, and waits for its end."""
    return subprocess.run(
        [COMMAND, *arguments], input=answer, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def finish(process: "subprocess.Popen[str]", seconds: float = SECONDS) -> "subprocess.CompletedProcess[str]":
    """Waits for the end of a command that was started."""
    stdout, stderr = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def output_of(ended: "subprocess.CompletedProcess[str]") -> str:
    """The output of a command that ended well and said nothing on standard error."""
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def stored_study(name: str) -> dict[str, Any]:
    """A study of the current folder's database, as `show --json` prints it."""
    study: dict[str, Any] = json.loads(json.dumps(read_study("storage/mc1opt.db", name).to_json()))
    return study


def resume_command(output: str) -> list[str]:
    """The command that a stopped search says it goes on with."""
    return shlex.split(re.findall(r"^Go on with: +(.+)$", output, re.MULTILINE)[0])


def states() -> list[str]:
    """The states of all trials in the current folder's database, by number."""
    return [row[0] for row in _query("SELECT state FROM trials ORDER BY number")]


def epochs_of_running_trials() -> int:
    """How many epochs they have reported."""
    reports = "trial_intermediate_values JOIN trials USING (trial_id)"
    return len(_query(f"SELECT step FROM {reports} WHERE state = 'RUNNING'"))


def _query(query: str) -> list[tuple[Any, ...]]:
    """Also while another process makes the database: then it holds nothing yet.

    Opened for writing, because what a killed process had begun to write must be taken back first.
    """
    path = Path("storage/mc1opt.db")
    if not path.exists():
        return []
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)
    try:
        return connection.execute(query).fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error) or "locked" in str(error):
            return []
        raise
    finally:
        connection.close()


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Waits for what another process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} seconds")
        time.sleep(0.01)


def child_processes(parent: int) -> list[int]:
    """The process ids of a process's children."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [map(int, line.split()) for line in listed.stdout.splitlines()]
    return [pid for pid, ppid in pairs if ppid == parent]


def files_below(folder: Path) -> dict[str, bytes | None]:
    """All files below a folder with their contents, and all folders.

    Not those that save time: what is remembered of images, and Python's compiled modules.
    """
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != VERIFIED and "__pycache__" not in path.parts
    }


def benchmark(name: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """Runs `python -m benchmarks.NAME` at the top of the repository."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=SECONDS, check=False)
