"""Who runs a trial, and whether that process is still alive."""

import os
import socket
from pathlib import Path
from typing import Any

from mc1opt.program import boot_id

ENDED = -1
"""In place of the start time of a process that only waits for its parent to take note of its end."""


def this_owner() -> dict[str, Any]:
    """This process: host, machine id, boot id, namespace of process ids, process id and start time.

    Process ids are used again, after a while or after a boot; the boot id and the start time tell two
    processes with the same id apart. In two containers of one host an id means two processes. What the
    system does not give away is None.
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
    """Whether an owner has ended: True, False, or None where this process cannot tell.

    That is so on another host, in another container, where start times are not to be had, and, after a boot,
    where the machine has no id of its own.
    """
    if owner is None:
        return True
    if owner["host"] != socket.gethostname():
        return None
    if owner["boot"] != boot_id():
        # Before the last boot; unless it is another machine that has the same name, as clones have.
        here = _machine_id()
        return True if here is not None and owner.get("machine", here) == here else None
    here = _pid_namespace()
    if owner.get("pid_namespace", here) != here:  # an older mc1opt did not store it
        return None
    return has_ended(owner["pid"], owner["started"])


def has_ended(pid: int, started: int | None = None) -> bool | None:
    """Whether a process of this machine has ended; None where another one may have its id now.

    Args:
        pid: its id.
        started: see `this_owner`; None if that is not known.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # alive, and somebody else's
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
    """Clock ticks since boot at which a process started; `ENDED` for a zombie, None where it is not told."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the command in parentheses, and may hold blanks and parentheses itself.
    fields = stat.rpartition(")")[2].split()
    return ENDED if fields[0] == "Z" else int(fields[19])


class LostTrialError(Exception):
    """A trial belongs to another process now, which took this one for dead. What that one does counts."""


class NoRoomError(Exception):
    """A study has begun as many trials as it may: those of other processes are among them."""
