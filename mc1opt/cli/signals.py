"""Signals that stop long commands cleanly, and the command that continues them."""

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
"""Seconds within which a repeated signal is ignored: timeout(1) signals its child, then its group."""
SHOW_CURSOR = "\x1b[?25h"
AGAIN_SECONDS = 0.5
"""Seconds until the exception that ends a command before its work is raised again, if it was lost."""


class StoppedEarlyError(BaseException):
    """A signal came before the work began."""


class Signals:
    """The first SIGINT or SIGTERM stops cleanly, the second at once.

    Before the work begins, a signal raises an exception, which ends waiting for a download, for example; the
    work itself checks the flag.
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
        """128 + number of the first signal, as in shells; 0 without one."""
        return 0 if self._first is None else 128 + self._first

    def leave_to_the_work(self) -> None:
        """From now on the work checks the flag."""
        self._working = True

    @contextlib.contextmanager
    def ending_early(self, what: str) -> Iterator[None]:
        """Ends the command on a signal before the work begins.

        Args:
            what: the work, for people: "the search".

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
            if sys.stdout.isatty():  # the progress display may hide it
                os.write(sys.stdout.fileno(), SHOW_CURSOR.encode())
            # Workers end with their parent; the next start resumes running trials.
            os._exit(128 + number)
        self._first, self._since = number, now
        self._stop.set("signal", signal.Signals(number).name)
        self._end_early(number, frame)

    def _end_early(self, _number: int, _frame: FrameType | None) -> None:
        if self._working:
            return
        # Python drops exceptions raised in callbacks of weak references, which imports have many of: it is
        # raised again until it has an effect.
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        raise StoppedEarlyError


def resume_command() -> str:
    """The given command without --timeout."""
    return given_command(without=("--timeout",))


def given_command(*, without: tuple[str, ...] = ()) -> str:
    """The given command, to copy, without passwords of databases and the options in `without`."""
    arguments: list[str] = []
    skip = False
    for argument in sys.argv[1:]:
        if not skip and argument.partition("=")[0] not in without:
            arguments.append(_shown(argument))
        skip = argument in without
    return " ".join([program(), shlex.join(arguments)]).rstrip()


def _shown(argument: str) -> str:
    """An argument, or the value of an option in it, without the password of a database's URL."""
    if "://" not in argument:
        return argument
    from mc1opt.database.location import shown_storage

    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    shown = shown_storage(value)
    # Nothing goes on with a database whose URL cannot be read: this is another text with :// in it.
    return argument if shown.endswith("://***") else f"{option}{equals}{shown}"
