"""Who runs a trial, and whether that process is still alive."""

import os
import socket
from pathlib import Path
from typing import Any


def this_owner() -> dict[str, Any]:
    """This process: host, boot id, process id and start time.

    Process ids are used again, after a while or after a boot; the boot id and the start time tell two
    processes with the same id apart. Both are None where the system does not give them away.
    """
    return {
        "host": socket.gethostname(),
        "boot": _boot_id(),
        "pid": os.getpid(),
        "started": _start_time(os.getpid()),
    }


def is_dead(owner: dict[str, Any] | None) -> bool | None:
    """Whether an owner has ended: True, False, or None where this machine cannot tell (another host)."""
    if owner is None:
        return True
    if owner["host"] != socket.gethostname():
        return None
    if owner["boot"] != _boot_id():
        return True
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # alive, and somebody else's
    return bool(owner["started"] != _start_time(owner["pid"]))


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _start_time(pid: int) -> int | None:
    """Clock ticks since boot at which a process started; a zombie counts as ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the command in parentheses, and may hold blanks and parentheses itself.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])
