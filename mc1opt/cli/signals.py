"""Signals that stop long commands in good order, and the command that goes on later."""

import os
import shlex
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mc1opt.search.run import StopFlag


class StoppedEarlyError(BaseException):
    """A signal came before the work began."""


class Signals:
    """The first SIGINT or SIGTERM stops in good order, the second at once.

    Before the work begins there is nothing to keep, but much to wait for: a download, another process's
    lock. A signal ends that by an exception; the work itself looks at the flag.
    """

    def __init__(self, stop: "StopFlag") -> None:
        self._stop = stop
        self._working = False
        self._first: int | None = None
        signal.signal(signal.SIGINT, self._handle)
        signal.signal(signal.SIGTERM, self._handle)

    @property
    def exit_code(self) -> int:
        """128 and the number of the first signal, as shells have it; 0 without one."""
        return 0 if self._first is None else 128 + self._first

    def leave_to_the_work(self) -> None:
        """From now on the work sees to its end."""
        self._working = True

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._first is not None:
            # The workers end with their parent; running trials are taken up at the next start.
            os._exit(128 + number)
        self._first = number
        self._stop.set("signal", signal.Signals(number).name)
        if not self._working:
            raise StoppedEarlyError


def resume_command() -> str:
    """The command as it was given, without --timeout."""
    return given_command(without=("--timeout",))


def given_command(*, without: tuple[str, ...] = ()) -> str:
    """The command as it was given, to copy; options named in `without` are left out, with their values."""
    arguments: list[str] = []
    skip = False
    for argument in sys.argv[1:]:
        if not skip and argument.partition("=")[0] not in without:
            arguments.append(argument)
        skip = argument in without
    return shlex.join([_program(), *arguments])


def _program() -> str:
    """How this program was called; by its bare name where the shell finds it so."""
    called = sys.argv[0]
    found = shutil.which("mc1opt")
    return "mc1opt" if found and Path(called).is_absolute() and Path(found).samefile(called) else called
