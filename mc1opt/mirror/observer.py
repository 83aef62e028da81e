"""Mirroring a search, while it goes on and as it ends, and a retraining as it ends.

W&B must never matter to a study. A search waits for it only when its results are shown, and while it moves:
at most `WAIT_SECONDS` a step. Until then it mirrors in the background, if the best trials have changed.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from mc1opt.database.records import StudyRecord, TrialRecord
from mc1opt.mirror.command import (
    STEP_SECONDS,
    Mirroring,
    MirrorOptions,
    mirror_study,
    report_lines,
    study_identity,
    warning_line,
)
from mc1opt.mirror.messages import Mode
from mc1opt.mirror.process import Limits
from mc1opt.mirror.runs import best_trials
from mc1opt.search.observers import Observer, SearchEnded, SearchStarted

WAIT_SECONDS = 4.5
"""What the end of a search or a retraining waits for a mirroring that does not move: with the killing, it
stays below five seconds."""
BACKGROUND_SECONDS = 300.0
"""Between the beginnings of two mirrorings in the background, at least."""


class WandbMirror(Observer):
    """Mirrors a search: in the background when its best trials have changed, and at its end.

    Args:
        options: what is mirrored; the study's name is the search's.
        now: the clock, monotonic, in seconds.
    """

    def __init__(self, options: MirrorOptions, now: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._now = now
        self._record: StudyRecord | None = None
        self._trials: dict[int, TrialRecord] = {}
        self._identity = ""
        self._mirrored: list[int] = []
        self._begun = now()
        self._mirroring: Mirroring | None = None
        self._error: str | None = None
        self._ended = False

    def study_started(self, search: SearchStarted) -> None:
        """See `Observer`."""
        self._options = replace(self._options, study=search.study)
        self._record = search.record
        self._trials = {trial.number: trial for trial in search.record.trials}
        self._mirrored = self._best()
        self._begun = self._now()
        with self._noting_errors():
            self._identity = study_identity(self._options.storage, search.study)

    def trial_ended(self, trial: TrialRecord) -> None:
        """See `Observer`."""
        self._trials[trial.number] = trial

    def tick(self) -> None:
        """See `Observer`."""
        if self._mirroring is not None:
            report = self._mirroring.poll()
            if report is not None:
                self._mirroring = None
                self._error = report.error
        elif self._is_due():
            self._begin(Limits(step=STEP_SECONDS))

    def study_ended(self, search: SearchEnded) -> None:
        """See `Observer`."""
        self.close()
        self._ended = True
        self._trials = {trial.number: trial for trial in search.record.trials}
        if self._identity:
            self._error = None  # what went wrong before may go well now
            self._begin(Limits(step=WAIT_SECONDS))

    def finish(self) -> list[str]:
        """Waits for the mirroring that began at the search's end, within its limit; says what came of it.

        Nothing where the search has not come to its end: then it is not waited for either.
        """
        if not self._ended:
            self.close()
            return []
        with self._noting_errors():
            if self._mirroring is not None:
                return report_lines(self._mirroring.finish(), self._options.storage)
        return [] if self._error is None else [warning_line(self._error, self._options)]

    @property
    def is_busy(self) -> bool:
        """Whether a mirroring is in progress."""
        return self._mirroring is not None

    def close(self) -> None:
        """Ends what is in progress. Safe to repeat."""
        if self._mirroring is not None:
            self._mirroring.kill()
            self._mirroring = None

    def _is_due(self) -> bool:
        """Whether to mirror in the background; not again once that went wrong."""
        if not self._identity or self._error is not None:
            return False
        return self._now() - self._begun >= BACKGROUND_SECONDS and self._best() != self._mirrored

    def _best(self) -> list[int]:
        return [trial.number for trial in best_trials(self._trials.values(), self._options.top)]

    def _begin(self, limits: Limits) -> None:
        self._begun, self._mirrored = self._now(), self._best()
        with self._noting_errors():
            assert self._record is not None
            trials = [trial for _, trial in sorted(self._trials.items())]
            record = replace(self._record, trials=trials)
            self._mirroring = Mirroring(self._options, record, self._identity, limits)

    @contextlib.contextmanager
    def _noting_errors(self) -> Iterator[None]:
        """Whatever goes wrong with a mirror is told at the end, in one line."""
        try:
            yield
        except Exception as error:
            self._error = str(error).strip().split("\n")[0] or type(error).__name__


@contextlib.contextmanager
def mirrored_search(
    mode: Mode | None, storage: str, write: Callable[[str], None]
) -> Iterator[tuple[Observer, ...]]:
    """Gives the observer that mirrors a search; afterwards waits for it, and tells what it did.

    Where a mirroring does not move for five seconds, it is given up.

    Args:
        mode: None for no mirror, and no observer.
        storage: the study database.
        write: takes a line, when the search's results have been shown.
    """
    if mode is None:
        yield ()
        return
    mirror = WandbMirror(MirrorOptions(study="", storage=storage, mode=mode))
    try:
        yield (mirror,)
    finally:
        for line in mirror.finish():
            write(line)


def mirror_retraining(mode: Mode | None, storage: str, study: str, write: Callable[[str], None]) -> None:
    """Mirrors a study after a retraining, and tells what it did.

    Where it does not move for five seconds, it is given up.

    Args:
        mode: None for no mirror.
        storage: the study database.
        study: its name.
        write: takes a line.
    """
    if mode is None:
        return
    options = MirrorOptions(study=study, storage=storage, mode=mode)
    try:
        lines = report_lines(mirror_study(options, Limits(WAIT_SECONDS)), storage)
    except Exception as error:  # the retraining is done, whatever becomes of its mirror
        lines = [warning_line(str(error).strip().split("\n")[0] or type(error).__name__, options)]
    for line in lines:
        write(line)
