"""How this program was called, for commands that people copy; the start of the machine that it runs in."""

import shlex
import shutil
import sys
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


def boot_id() -> str | None:
    """What tells this start of the machine from the others; None where the system does not say it (macOS)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
