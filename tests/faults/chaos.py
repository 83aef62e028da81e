"""A search whose processes are all killed at random moments, and that is given again each time."""

import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from mc1opt.database.records import StudyRecord
from tests.faults.conftest import SECONDS, Commands

STARTING = 0.2
"""The share of kills that come while the search starts: libraries, database, what was interrupted."""
MOST_EPOCHS = 5.0
"""After an epoch's end a kill comes within the time of so many, or of fewer where few are left."""

Key = tuple[int, int]
"""Of a trained epoch: its trial's seed, and its number."""


@dataclass(frozen=True)
class Kills:
    """What was done to a search."""

    count: int
    repeated: int
    """Epochs that were trained more than once, each time but the first."""
    seconds: float

    def __str__(self) -> str:
        return f"{self.count} kills, {self.repeated} epochs trained twice, {self.seconds:.0f} s"


def epochs_of(record: StudyRecord) -> int:
    """Epochs that a study has."""
    return sum(len(trial.values_by_epoch) for trial in record.trials)


def kill_at_random(
    commands: Commands,
    start: Callable[[], "subprocess.Popen[bytes]"],
    trained: Callable[[], list[Key]],
    *,
    epochs: int,
    epoch_seconds: float,
    start_seconds: float,
    kills: int,
    seed: int,
) -> Kills:
    """Starts a search and kills all its processes, again and again, and lets it come to its end at last.

    The moments are spread so that the study is not at its end before the last of them.

    Args:
        commands: where the search runs.
        start: gives the command.
        trained: the epochs that were trained so far, repeated ones as often as they were.
        epochs: that the study has in the end, about.
        epoch_seconds: in which one is trained, about, by any of the workers.
        start_seconds: that the search needs until it trains, about.
        kills: how many.
        seed: of the moments; what is happening then depends on the machine as well.
    """
    draw = random.Random(seed)
    started, done = time.monotonic(), 0
    for left in range(kills, 0, -1):
        search = start()
        if draw.random() < STARTING:
            _wait(search, lambda: False, draw.uniform(0.0, start_seconds))
        else:
            # New epochs: a trial that dies again and again in the same one is given up, as it should be.
            before = len(set(trained()))
            share = (epochs - before) / (left + 1)
            target = before + max(1, round(draw.uniform(0.0, share / 2)))
            _wait(search, lambda target=target: len(set(trained())) >= target, SECONDS)  # type: ignore[misc]
            _wait(search, lambda: False, draw.uniform(0.0, min(share / 2, MOST_EPOCHS) * epoch_seconds))
        if search.poll() is not None:
            assert search.returncode == 0, commands.printed(search, "err")
            break
        commands.kill_all()
        commands.finish(search)
        done += 1
    ended = commands.finish(start(), 10 * SECONDS)
    assert ended.code == 0, ended.stderr
    return Kills(done, len(trained()) - len(set(trained())), time.monotonic() - started)


def _wait(search: "subprocess.Popen[bytes]", reached: Callable[[], bool], seconds: float) -> None:
    """Waits until it is reached, the search has ended, or the time is up."""
    deadline = time.monotonic() + seconds
    while not reached() and search.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
