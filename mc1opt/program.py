"""The program's name in commands that people copy, packages and where they are, and the machine's boot id."""

import os
import shlex
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

NAME = "mc1opt"


def program() -> str:
    """The program as a shell finds it: its bare name, or the path it was called by, quoted if need be."""
    called = sys.argv[0]
    if Path(called).name != NAME:  # such as a test, or a notebook
        return NAME
    found = shutil.which(NAME)
    is_found = found is not None and Path(called).is_absolute() and Path(found).samefile(called)
    return NAME if is_found else shlex.quote(called)


def installed(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def search_path() -> str:
    """This process's module search path as PYTHONPATH, so that a child process finds the same modules."""
    return os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path)


def boot_id() -> str | None:
    """An id of this start of the machine; None where the system has none (macOS)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
