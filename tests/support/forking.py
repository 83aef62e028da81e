"""A process of its own that forks searches: forks start at once, where a new Python takes seconds.

    python -m tests.support.forking kill COUNT SEED     one search, killed so many times at random moments
    python -m tests.support.forking together COUNT      so many searches of one study at the same time
    python -m tests.support.forking create COUNT        so many databases, each killed while it is made
    python -m tests.support.forking share COUNT TRIALS KILLS URL
                                                       so many searches of one study until it has TRIALS
                                                       trials, so many of which are killed while they train

Without a URL the searches work on ./s.db; the switches of the environment hold.
"""

import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import sqlalchemy.event
from sqlalchemy.engine import Engine

from mc1opt.database.opening import open_storage
from mc1opt.database.ownership import this_owner
from mc1opt.spec import Fidelity
from tests.support.curves import SWITCHES_VARIABLE, Switches
from tests.support.studies import (
    SECONDS,
    WHOLE,
    definition_of,
    many_starting_points,
    new_storage,
    run_study,
    smooth_space,
    without_syncs,
)

ROOT = Path(__file__).resolve().parents[2]
POINTS = 12
"""Starting points of the searches that run together."""


def fork_searches(*arguments: object) -> None:
    """Runs this module as a process in the current folder, to its end."""
    command = [sys.executable, "-m", "tests.support.forking", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=3 * SECONDS, check=False
    )
    assert result.returncode == 0, result.stderr


def _fork_whole() -> int:
    return _fork(lambda: run_study(WHOLE, keep=3, checkpoint_seconds=0.0))


def _fork_together() -> int:
    fidelity = Fidelity(train_images=1000, epochs=1)
    return _fork(lambda: run_study(POINTS, many_starting_points(POINTS), fidelity=fidelity))


def _fork_sharing(url: str, trials: int) -> int:
    definition = definition_of(smooth_space) if trials > POINTS else None  # which has enough configs

    def search() -> None:
        storage = open_storage(url, create=True, owner=this_owner(), threads=4)
        run_study(trials, definition, workers=2, storage=storage, checkpoint_seconds=0.0)

    return _fork(search)


def _fork(search: object) -> int:
    if (pid := os.fork()) != 0:
        return pid
    try:
        search()  # type: ignore[operator]
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _killed(count: int, seed: int) -> int:
    """Kills a search so many times, each time some epochs and some milliseconds after it has begun."""
    generator = random.Random(seed)
    switches = Switches(Path(os.environ[SWITCHES_VARIABLE]))
    for _ in range(count):
        # Three epochs at least: a trial that dies five times without a new epoch fails.
        epochs = len(switches.epochs()) + generator.randint(3, 9)
        pid = _fork_whole()
        while len(switches.epochs()) < epochs:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        time.sleep(generator.uniform(0.0, 0.1))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(os.waitpid(_fork_whole(), 0)[1])


def _killed_while_made(count: int) -> int:
    """Kills processes that make databases, each one a little later; then opens the databases."""
    new_storage("first.db")  # what is imported for it is inherited
    for number in range(count):
        path = f"{number}.db"
        pid = _fork(lambda path=path: new_storage(path))
        time.sleep(0.01 * number)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert new_storage(path).get_all_studies() == []
    return 0


def _together(count: int) -> int:
    pids = [_fork_together() for _ in range(count)]
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids)


def _shared(count: int, trials: int, kills: int, url: str) -> int:
    """Kills a process as soon as it has begun an epoch, which takes a while."""
    switches = Switches(Path(os.environ[SWITCHES_VARIABLE]))
    pids = {_fork_sharing(url, trials) for _ in range(count)}
    for number in range(kills):
        switches.wait_for_epochs(3 * number + 2)
        pid = next(epoch["pid"] for epoch in reversed(switches.epochs()) if epoch["pid"] in pids)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        pids.remove(pid)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids)


def _main(mode: str, *arguments: str) -> int:
    sqlalchemy.event.listen(Engine, "connect", without_syncs)
    numbers = [int(argument) for argument in arguments if argument.isdecimal()]
    if mode == "share":
        return _shared(*numbers, url=arguments[-1])
    return {"kill": _killed, "together": _together, "create": _killed_while_made}[mode](*numbers)


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
