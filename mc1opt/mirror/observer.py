"""When a search or a retraining is mirrored: by `mc1opt mirror`, in a process that ends with this one.

wandb must never matter to a study. A search waits for its mirror only when its results are shown, and while
the mirror makes progress: at most `WAIT_SECONDS` a step.
"""

import contextlib
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from mc1opt.database.location import storage_arguments
from mc1opt.database.records import TrialRecord, by_value
from mc1opt.mirror.command import try_again
from mc1opt.mirror.runs import TOP
from mc1opt.mirror.writer import Mode, kill_children
from mc1opt.program import search_path
from mc1opt.search.observers import Observer, SearchEnded, SearchStarted

STEP_SECONDS = 60.0
"""Seconds that a mirroring in the background may take without progress."""
WAIT_SECONDS = 4.5
"""The same at the end of a search or a retraining, which waits for it."""
BACKGROUND_SECONDS = 300.0
"""Least seconds between the starts of two mirrorings in the background."""


class MirrorProcess:
    """`mc1opt mirror` as a child process.

    Args:
        study: the study's name.
        storage: the study database.
        mode: offline or online.
        seconds: the command's --timeout.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, study: str, storage: str, mode: Mode, seconds: float) -> None:
        self._study, self._storage = study, storage
        # A file rather than a pipe, which would need a reader.
        self._output = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        # It gives commands to copy, which begin with this program's name.
        code = (
            f"import sys; sys.argv[0] = {sys.argv[0]!r}; sys.argv += sys.stdin.read().split('\\0')[:-1]; "
            "from mc1opt.cli.main import main; main()"
        )
        options = [f"--study={study}", f"--wandb={mode}", f"--timeout={seconds}s", f"--parent={os.getpid()}"]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, "mirror", *options],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": search_path()},
            start_new_session=True,  # a terminal's Ctrl-C does not reach it
        )
        assert self._process.stdin is not None
        with (
            self._process.stdin as pipe
        ):  # not as arguments: a URL's password would be in the list of processes
            pipe.write("".join(f"{each}\0" for each in storage_arguments(storage)).encode())

    def exit_code(self) -> int | None:
        """0 if all went well; None while it runs."""
        return self._process.poll()

    def finish(self) -> str:
        """Waits for its end, and returns what people are told of it in one line."""
        code = self._process.wait()
        with self._output as output:
            output.seek(0)
            said = [line for line in output.read().splitlines() if line.startswith(("W&B: ", "Error: "))]
        line = said[-1] if said else f"its process ended with exit code {code}"
        return line if line.startswith("W&B: ") else _failure(line, self._study, self._storage)

    def kill(self) -> None:
        """Ends it at once, with wandb's service. The next mirroring deletes what it leaves unfinished."""
        kill_children(self._process.pid)
        self._process.kill()
        self.finish()


class WandbMirror(Observer):
    """Mirrors a search: in the background when its best trials have changed, and at its end.

    Args:
        mode: offline or online.
        storage: the study database.
        now: the clock, monotonic, in seconds.
    """

    def __init__(self, mode: Mode, storage: str, now: Callable[[], float] = time.monotonic) -> None:
        self.background: MirrorProcess | None = None
        """The mirroring in progress, while the search goes on."""
        self.last: MirrorProcess | None = None
        """The mirroring of the whole study, from the search's end on."""
        self._start = functools.partial(MirrorProcess, storage=storage, mode=mode)
        self._now = now
        self._study = ""
        self._trials: dict[int, TrialRecord] = {}
        self._mirrored: list[TrialRecord] = []
        self._begun = now()
        self._failed = False

    def study_started(self, search: SearchStarted) -> None:
        """See `Observer`."""
        self._study = search.study
        self._trials = {trial.number: trial for trial in search.record.trials}
        self._mirrored = by_value(search.record.trials)[:TOP]

    def trial_ended(self, trial: TrialRecord) -> None:
        """See `Observer`."""
        self._trials[trial.number] = trial

    def tick(self) -> None:
        """See `Observer`."""
        if self.background is not None:
            code = self.background.exit_code()
            if code is not None:
                self.close()
                self._failed = code != 0
        elif not self._failed and self._now() - self._begun >= BACKGROUND_SECONDS:
            best = by_value(self._trials.values())[:TOP]
            if best != self._mirrored:
                self._mirrored, self._begun = best, self._now()
                self.background = self._start(self._study, seconds=STEP_SECONDS)

    def study_ended(self, _search: SearchEnded) -> None:
        """See `Observer`."""
        self.close()
        self.last = self._start(self._study, seconds=WAIT_SECONDS)

    def close(self) -> None:
        """Ends what is in the background. Safe to repeat."""
        if self.background is not None:
            self.background.kill()
            self.background = None


@contextlib.contextmanager
def mirrored_search(
    mode: Mode | None, storage: str, write: Callable[[str], None]
) -> Iterator[tuple[Observer, ...]]:
    """Yields the observer that mirrors a search; then waits for it, and tells what it did.

    Args:
        mode: None for no mirror, and no observer.
        storage: the study database.
        write: takes a line, after the search's results were shown.
    """
    if mode is None:
        yield ()
        return
    mirror = WandbMirror(mode, storage)
    try:
        yield (mirror,)
    finally:
        mirror.close()
        if mirror.last is not None:
            write(mirror.last.finish())


def mirror_retraining(mode: Mode | None, storage: str, study: str, write: Callable[[str], None]) -> None:
    """Mirrors a study after a retraining, and tells what it did.

    Args:
        mode: None for no mirror.
        storage: the study database.
        study: its name.
        write: takes a line.
    """
    if mode is None:
        return
    try:
        line = MirrorProcess(study, storage, mode, WAIT_SECONDS).finish()
    except OSError as error:  # the retraining is done, whatever becomes of its mirror
        line = _failure(str(error), study, storage)
    write(line)


def _failure(error: str, study: str, storage: str) -> str:
    reason = error.removeprefix("Error: ").rstrip(".")
    return f"W&B: nothing was mirrored: {reason}. {try_again(study, storage)}"
