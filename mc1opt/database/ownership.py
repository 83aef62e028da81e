"""The process that runs a trial, and whether it is still alive."""

import os
import socket
from pathlib import Path
from typing import Any

from mc1opt.program import boot_id

ENDED = -1
"""Stands for the start time of a zombie."""


def this_owner() -> dict[str, Any]:
    """This process: host, machine id, boot id, namespace of process ids, process id and start time.

    Process ids are reused over time and after a boot: boot id and start time distinguish processes with the
    same id, the namespace those in two containers. Values that the system does not tell are None.
    """
    return {
        "host": socket.gethostname(),
        "machine": _machine_id(),
        "boot": boot_id(),
        "pid_namespace": _pid_namespace(),
        "pid": os.getpid(),
        "started": _start_time(os.getpid()),
    }


def is_dead(owner: dict[str, Any] | None) -> bool | None:
    """Whether an owner has ended: True, False, or None if this process cannot tell.

    It cannot for another host or container, without start times, and, after a boot, without a machine id.
    """
    if owner is None:
        return True
    if owner["host"] != socket.gethostname():
        return None
    if owner["boot"] != boot_id():
        # Before the last boot, unless another machine has the same name, as clones do.
        here = _machine_id()
        return True if here is not None and owner.get("machine", here) == here else None
    here = _pid_namespace()
    if owner.get("pid_namespace", here) != here:  # an older mc1opt did not store it
        return None
    return has_ended(owner["pid"], owner["started"])


def has_ended(pid: int, started: int | None = None) -> bool | None:
    """Whether a process of this machine has ended; None if another one may have its id now.

    Args:
        pid: the process id.
        started: see `this_owner`; None if unknown.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # alive, and another user's
    found = _start_time(pid)
    if found is None or (started is None and found != ENDED):
        return None  # perhaps another process with the same id
    return found == ENDED or found != started


def _machine_id() -> str | None:
    try:
        return Path("/etc/machine-id").read_text().strip() or None
    except OSError:
        return None


def _pid_namespace() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; `ENDED` for a zombie, None if unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the command in parentheses, which may itself contain blanks and parentheses.
    fields = stat.rpartition(")")[2].split()
    return ENDED if fields[0] == "Z" else int(fields[19])


class LostTrialError(Exception):
    """A trial now belongs to another process, which presumed this one dead."""


class NoRoomError(Exception):
    """A study has begun as many trials as it may, those of other processes included."""
