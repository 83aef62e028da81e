"""Who runs a trial, and whether that one is still alive.

An owner is an attempt: one search of one process. In a notebook, and in threads, a process makes several.
"""

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mc1opt.program import boot_id

_ZOMBIE = -1
"""In place of the start time of a process that has ended and that its parent has not reaped."""
_ended: set[str] = set()
"""Attempts of this process that have ended."""


def this_owner() -> dict[str, Any]:
    """A new attempt: host, machine id, boot id, namespace of process ids, process id, start time, random id.

    The boot id and the start time distinguish processes that had the same id one after the other; the
    namespace distinguishes those of two containers. What the system does not tell is None.
    """
    return {
        "host": socket.gethostname(),
        "machine": _machine_id(),
        "boot": boot_id(),
        "pid_namespace": _pid_namespace(),
        "pid": os.getpid(),
        "started": _start_time(os.getpid()),
        "attempt": secrets.token_hex(8),
    }


@contextlib.contextmanager
def alive(owner: dict[str, Any] | None) -> Iterator[None]:
    """After the block an attempt of this process is dead, whatever it has left running."""
    attempt = (owner or {}).get("attempt", "")
    _ended.discard(attempt)
    try:
        yield
    finally:
        _ended.add(attempt)


def is_dead(owner: dict[str, Any] | None) -> bool | None:
    """Whether an owner has ended: True, False, or None where this process cannot tell.

    It cannot for another host or container, where the system does not tell start times and, after a boot,
    where the machine has no id. Nobody is dead.
    """
    if owner is None:
        return True
    if owner["host"] != socket.gethostname():
        return None
    if owner["boot"] != boot_id():
        # Before the last boot; unless it is another machine of the same name, such as a clone.
        here = _machine_id()
        return True if here is not None and owner.get("machine", here) == here else None
    here = _pid_namespace()
    if owner.get("pid_namespace", here) != here:  # owners stored by an older mc1opt have none
        return None
    with contextlib.suppress(PermissionError):  # it is alive, and another user's
        try:
            os.kill(owner["pid"], 0)
        except ProcessLookupError:
            return True
    found, started = _start_time(owner["pid"]), owner["started"]
    has_ended = None if found is None or started is None else found != started
    return owner.get("attempt") in _ended or has_ended


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
    """Clock ticks from boot to the start of a process; `_ZOMBIE` for one, None if the system does not tell.

    Not by psutil: its start times are by the wall clock, which may be set meanwhile; and processes of other
    users, where they are hidden (hidepid), have ended for it.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the command in parentheses, and may hold blanks and parentheses itself.
    fields = stat.rpartition(")")[2].split()
    return _ZOMBIE if fields[0] == "Z" else int(fields[19])


class LostTrialError(Exception):
    """Another process took this one for dead and owns its trial now. What that one does counts."""


class NoRoomError(Exception):
    """A study has begun as many trials as it may, those of other processes included."""
