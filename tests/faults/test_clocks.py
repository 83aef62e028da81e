"""Faults 6 and 17: a process halts until it is taken for dead; the wall clock jumps.

Another machine is a process here that says to have another name: it cannot look whether the other's processes
live, and has only the database. The wall clock is moved by a library of our own before the C library.
"""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from mc1opt.database import records
from mc1opt.database.ownership import this_owner
from mc1opt.database.records import StudyRecord
from mc1opt.database.studies import read_study
from tests.faults.checker import STORAGE, Expected, check
from tests.faults.conftest import CURVES, SECONDS, TRIALS, Commands
from tests.faults.test_processes import HANGS, VICTIM
from tests.support.command import states, wait_until
from tests.support.curves import Switches
from tests.support.studies import counted, facts, wait_until_begun

SLEEPS = {**HANGS, "value": 3.0}
IMPATIENT = {"modules": {"mc1opt.database.heartbeat": {"HEARTBEAT_SECONDS": 0.2, "GRACE_SECONDS": 1.0}}}
# A busy machine delays heartbeats, too: of two searches only one is impatient, and it for several of them.
BEATS = {"modules": {"mc1opt.database.heartbeat": {"HEARTBEAT_SECONDS": 0.2}}}
ELSEWHERE = {
    **CURVES,
    "modules": {"mc1opt.database.heartbeat": {"HEARTBEAT_SECONDS": 0.2, "GRACE_SECONDS": 4.0}},
    "host": "elsewhere.example",
}


def halt(process: "subprocess.Popen[bytes]") -> None:
    """Halts a process, but not within a write: its lock would keep everybody from the database for good."""
    while True:
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        with contextlib.closing(sqlite3.connect(STORAGE, timeout=0.0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)
                time.sleep(0.05)
            else:
                return


def owner_of_victim() -> str:
    """The host of the process that has the trial."""
    with contextlib.closing(sqlite3.connect(STORAGE, timeout=SECONDS)) as connection:
        (owner,) = connection.execute(
            "SELECT value_json FROM trial_user_attributes JOIN trials USING (trial_id) "
            "WHERE number = ? AND key = ?",
            (VICTIM, records.OWNER),
        ).fetchone()
    return str((json.loads(owner) or {"host": ""})["host"])


# ---- 6: a process halts past the grace period, and goes on -----------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("when", ["as soon as it has lost it", "when the other one has ended"])
def test_a_process_that_was_taken_for_dead_drops_its_trial_and_goes_on(
    commands: Commands, switches: Switches, when: str
) -> None:
    switches.add("sleep", **SLEEPS)
    halted = commands.search(changes={**CURVES, **BEATS})
    wait_until_begun(switches, VICTIM, 2)
    halt(halted)
    switches.add("sleep", epoch=0, value=4.0)  # the other one shall not reach the total before it takes over
    other = commands.search(changes=ELSEWHERE)
    wait_until(lambda: owner_of_victim() == "elsewhere.example")
    if when.startswith("when"):
        assert commands.finish(other).code == 0
    halted.send_signal(signal.SIGCONT)
    for search in (halted, other):
        ended = commands.finish(search)
        assert ended.code == 0
        assert ("taken over" in ended.stderr) == (search is halted)
        assert "Traceback" not in ended.stderr
    record = check(commands.folder, "small", Expected(TRIALS))
    assert record.trials[VICTIM].outcome in ("complete", "pruned")
    assert record.trials[VICTIM].interrupted == 1
    assert owner_of_victim() == "elsewhere.example"


@pytest.mark.slow
def test_a_process_that_halts_on_the_same_machine_keeps_its_trial(
    commands: Commands, switches: Switches
) -> None:
    """There it is seen to live, however long it is silent; the other one waits for that trial."""
    switches.add("sleep", **SLEEPS)
    halted = commands.search(changes={**CURVES, **IMPATIENT})
    wait_until_begun(switches, VICTIM, 2)
    halt(halted)
    other = commands.search(changes={**CURVES, **IMPATIENT})
    wait_until(lambda: len(counted(read_study(STORAGE, "small"))) == TRIALS - 1)
    time.sleep(2.0)
    assert other.poll() is None
    assert states()[VICTIM] == "RUNNING"
    assert owner_of_victim() == this_owner()["host"]
    halted.send_signal(signal.SIGCONT)
    for search in (halted, other):
        ended = commands.finish(search)
        assert (ended.code, ended.stderr) == (0, "")
    record = check(commands.folder, "small", Expected(TRIALS))
    assert record.trials[VICTIM].interrupted == 0


# ---- 17: the wall clock jumps ----------------------------------------------------------------------------


class WallClock:
    """The wall clock of the processes that get its environment."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "shift"
        self._library = folder / "shifted_clock.so"
        source = Path(__file__).with_name("shifted_clock.c")
        compiler = shutil.which("cc")
        if sys.platform != "linux" or compiler is None:
            pytest.skip("a library is put before the C library: needs Linux and a C compiler (cc)")
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", self._library, source, "-ldl"]
        subprocess.run(command, check=True)
        self.set(timedelta())

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "CLOCK_SHIFT": str(self._file)}

    def set(self, shift: timedelta) -> None:
        """From now on it is so much later than it is."""
        new = self._file.with_suffix(".new")
        new.write_text(str(int(shift.total_seconds())))
        new.replace(self._file)


@pytest.fixture
def wall_clock(tmp_path_factory: pytest.TempPathFactory) -> WallClock:
    return WallClock(tmp_path_factory.mktemp("clock"))


@pytest.mark.slow
def test_the_wall_clock_of_the_test_really_jumps(wall_clock: WallClock) -> None:
    code = "import time, datetime; print(time.time(), datetime.datetime.now().timestamp(), time.monotonic())"
    told = []
    for shift in (timedelta(), timedelta(days=1), timedelta(hours=-1)):
        wall_clock.set(shift)
        environment = {**os.environ, **wall_clock.environment}
        output = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        told.append([float(number) for number in output.stdout.split()])
    for place in (0, 1):
        assert told[1][place] - told[0][place] == pytest.approx(86_400, abs=30)
        assert told[2][place] - told[0][place] == pytest.approx(-3_600, abs=30)
    assert told[2][2] - told[0][2] < 30


@pytest.mark.slow
def test_a_search_does_not_care_about_the_wall_clock(
    commands: Commands, switches: Switches, undisturbed: StudyRecord, wall_clock: WallClock
) -> None:
    """Not its limits, heartbeats or order of trials; it is killed, and goes on an hour before its start."""
    limits = ("--timeout", "20m", "--max-trial-time", "10m")
    options = {"env": wall_clock.environment, "more": limits, "changes": {**CURVES, **IMPATIENT}}
    switches.add("sleep", **{**SLEEPS, "times": None})
    search = commands.search(**options)
    wait_until_begun(switches, VICTIM, 2)
    wall_clock.set(timedelta(days=1))
    wait_until_begun(switches, VICTIM, 3)
    wall_clock.set(timedelta(hours=-1))
    wait_until(lambda: len(states()) > VICTIM + 1)
    commands.kill_all()
    assert commands.finish(search).code == -signal.SIGKILL  # and not by its --timeout
    ended = commands.go_on(**options)
    assert ended.stderr == ""
    record = check(commands.folder, "small", Expected(TRIALS))
    assert facts(record) == facts(undisturbed)
    for trial in record.trials:
        assert trial.seconds is None or 0.0 <= trial.seconds < 600.0
