"""Ending a process together with all that it started, also what has left its process group."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

_PS_SECONDS = 2.0


def descendants(pid: int) -> list[int]:
    """The process ids of a process's children, their children and so on, in that order."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents().items():
        children.setdefault(parent, []).append(child)
    found: list[int] = []
    left = [pid]
    while left:
        below = children.get(left.pop(0), [])
        found += below
        left += below
    return found


def kill_tree(pid: int) -> None:
    """Kills a process, its group and its descendants for good; it is not reaped.

    It is halted first: what runs could start another process between the look and the kill.
    """
    _signal(pid, signal.SIGSTOP)
    kill_descendants(pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    _signal(pid, signal.SIGKILL)


def kill_descendants(pid: int) -> None:
    """Kills all that a process has started, wherever it is: wandb's service is in a group of its own."""
    halted: set[int] = set()
    while new := set(descendants(pid)) - halted:
        for process in new:
            _signal(process, signal.SIGSTOP)
        halted |= new
    for process in halted:
        _signal(process, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _parents() -> dict[int, int]:
    """Of all processes, the parent's id by their own."""
    if sys.platform == "linux":
        return _parents_from_proc()
    try:
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="],
            capture_output=True,
            text=True,
            timeout=_PS_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {int(pid): int(parent) for pid, parent in map(str.split, listed.stdout.splitlines())}


def _parents_from_proc() -> dict[int, int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                # The command stands in parentheses, and may hold blanks and parentheses itself, and half a
                # character: it is cut off after 15 bytes.
                parents[int(entry.name)] = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
    return parents
