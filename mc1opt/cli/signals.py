"""Signals that stop long commands in good order, and the command that goes on later."""

import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

from mc1opt.program import program

if TYPE_CHECKING:
    from mc1opt.workers.stop import StopFlag

ECHO_SECONDS = 0.1
"""Within which the same signal again is the same request: timeout(1) signals its child, then its group."""
SHOW_CURSOR = "\x1b[?25h"
AGAIN_SECONDS = 0.5
"""After which the end of a command that has not begun to work is asked for again, if it had no effect."""


class StoppedEarlyError(BaseException):
    """A signal came before the work began."""


class Signals:
    """The first SIGINT or SIGTERM stops in good order, the second at once.

    Before the work begins there is nothing to keep, but much to wait for, such as a download. A signal ends
    that by an exception; the work itself looks at the flag.
    """

    def __init__(self, stop: "StopFlag") -> None:
        self._stop = stop
        self._working = False
        self._first: int | None = None
        self._since = 0.0
        signal.signal(signal.SIGINT, self._handle)
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGALRM, self._end_early)

    @property
    def exit_code(self) -> int:
        """128 and the number of the first signal, as shells have it; 0 without one."""
        return 0 if self._first is None else 128 + self._first

    def leave_to_the_work(self) -> None:
        """From now on the work sees to its end."""
        self._working = True

    @contextlib.contextmanager
    def ending_early(self, what: str) -> Iterator[None]:
        """Ends the command where a signal comes inside, before the work begins.

        Args:
            what: what has not begun, for people: "the search".

        Raises:
            typer.Exit: with the signal's exit code.
        """
        try:
            yield
        except StoppedEarlyError:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            import typer

            typer.echo(f"Stopped before {what} began.", err=True)
            raise typer.Exit(self.exit_code) from None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is not None:
            if number == self._first and now - self._since < ECHO_SECONDS:
                return
            if sys.stdout.isatty():  # whose progress may hide it
                os.write(sys.stdout.fileno(), SHOW_CURSOR.encode())
            # The workers end with their parent; running trials are taken up at the next start.
            os._exit(128 + number)
        self._first, self._since = number, now
        self._stop.set("signal", signal.Signals(number).name)
        self._end_early(number, frame)

    def _end_early(self, _number: int, _frame: FrameType | None) -> None:
        if self._working:
            return
        # Python drops an exception within a callback of its own, such as those of weak references, of which
        # imports have many: then it comes again, until it ends what is waited for.
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        raise StoppedEarlyError


def resume_command() -> str:
    """The command as it was given, without --timeout."""
    return given_command(without=("--timeout",))


def given_command(*, without: tuple[str, ...] = ()) -> str:
    """The command as it was given, to copy, without passwords of databases.

    Options named in `without` are left out, with their values.
    """
    arguments: list[str] = []
    skip = False
    for argument in sys.argv[1:]:
        if not skip and argument.partition("=")[0] not in without:
            arguments.append(_shown(argument))
        skip = argument in without
    return " ".join([program(), shlex.join(arguments)]).rstrip()


def _shown(argument: str) -> str:
    """An argument without the password of a database's URL, which may stand behind an option's name."""
    if "://" not in argument:
        return argument
    from sqlalchemy.exc import ArgumentError

    from mc1opt.database.location import shown_storage

    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    try:
        return f"{option}{equals}{shown_storage(value)}"
    except ArgumentError:  # another text with :// in it
        return argument
