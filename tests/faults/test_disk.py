"""Fault 9: the disk fills up while a checkpoint or the database is written (images: tests/data).

A small file system in memory is really full, but only root may mount it: those cases are skipped for others.
For everybody a limit on the size of files (RLIMIT_FSIZE), set while the process runs, stands for the full
disk: the same writes fail, with another number of error.
"""

import contextlib
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mc1opt.database.records import StudyRecord
from tests.faults.checker import Expected, check
from tests.faults.conftest import TRIALS, Commands, Real
from tests.faults.test_processes import HANGS, VICTIM
from tests.support.command import child_processes, epochs_of_running_trials, wait_until
from tests.support.curves import Switches
from tests.support.studies import facts, wait_until_begun

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="sets limits of other processes, mounts tmpfs"
)

DISK_BYTES = 8 << 20
"""Of the small disk: much more than a study takes here."""


class Disk:
    """A folder that can be full. `full` and `free` may be called while processes use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def full(self, pid: int) -> None:
        """From now on nothing can be added; `pid` is the process that shall feel it."""
        raise NotImplementedError

    def free(self, pid: int) -> None:
        """There is room again."""
        raise NotImplementedError


class SmallDisk(Disk):
    """A file system in memory that a file fills to the last byte."""

    def full(self, pid: int) -> None:
        with contextlib.suppress(OSError), (self.folder / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass

    def free(self, pid: int) -> None:
        (self.folder / "ballast").unlink()


class LimitedFiles(Disk):
    """The files of one process cannot become larger: a database not than it is, others not than 10 kB."""

    def full(self, pid: int) -> None:
        sizes = [path.stat().st_size for path in self.folder.rglob("*") if path.suffix == ".db"]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (max(sizes, default=10_000), resource.RLIM_INFINITY))

    def free(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextlib.contextmanager
def mounted(folder: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes, in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size},mode=0777"
    command = ["mount", "-t", "tmpfs", "-o", options, "mc1opt-test", str(folder)]
    try:
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if made.returncode != 0:
        pytest.skip(f"a file system cannot be mounted: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(params=[LimitedFiles, SmallDisk], ids=["limit", "tmpfs"])
def make_disk(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], Disk]]:
    """Makes a folder a disk of its own."""
    with contextlib.ExitStack() as stack:

        def make(folder: Path) -> Disk:
            if request.param is SmallDisk:
                stack.enter_context(mounted(folder, DISK_BYTES))
            return request.param(folder)

        yield make


@pytest.mark.slow
def test_a_disk_that_is_full_for_the_database_ends_the_search_and_costs_nothing(
    commands: Commands, switches: Switches, undisturbed: StudyRecord, make_disk: Callable[[Path], Disk]
) -> None:
    disk = make_disk(Path("storage").absolute())
    switches.add("sleep", **{**HANGS, "value": 1.0})
    search = commands.search()
    wait_until_begun(switches, VICTIM, 2)
    disk.full(search.pid)
    ended = commands.finish(search)
    disk.free(search.pid)
    assert ended.code == 1
    assert "Error: the study database " in ended.stderr
    assert "full" in ended.stderr or "disk I/O error" in ended.stderr
    assert "Traceback" not in ended.stderr
    commands.go_on()
    assert facts(check(commands.folder, "small", Expected(TRIALS))) == facts(undisturbed)


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_is_a_warning_and_the_training_goes_on(
    real: Real, make_disk: Callable[[Path], Disk]
) -> None:
    disk = make_disk(Path("storage/checkpoints").absolute())
    search = real.search()
    wait_until(lambda: epochs_of_running_trials() > 3)
    (worker,) = child_processes(search.pid)
    disk.full(worker)
    wait_until(lambda: "cannot be written" in real.commands.printed(search, "err"))
    before = epochs_of_running_trials()
    wait_until(lambda: epochs_of_running_trials() > before)
    disk.free(worker)
    ended = real.commands.finish(search)
    assert ended.code == 0
    assert ended.stderr.count("cannot be written") == 1
    assert facts(real.check()) == facts(real.undisturbed)


@pytest.mark.slow
def test_weights_that_cannot_be_written_fail_the_trial_as_one_of_the_storage(real: Real) -> None:
    """The disk is full from the first checkpoint to the end of the first trial, and then free again."""
    search = real.search()
    wait_until(lambda: epochs_of_running_trials() > 3)
    (worker,) = child_processes(search.pid)
    disk = LimitedFiles(Path("storage/checkpoints"))
    disk.full(worker)
    wait_until(lambda: "#0 failed" in real.commands.printed(search))
    disk.free(worker)
    assert real.commands.finish(search).code == 0
    trial = real.check(on_reference=False).trials[0]
    assert (trial.state, trial.outcome) == ("FAIL", "failed")
    assert trial.failure is not None
    assert trial.failure["kind"] == "storage"
    assert "cannot be written" in trial.failure["message"]
