"""The pool of workers: assigns trainings, and handles workers that fail, die, hang or are interrupted.

`Pool` is what the search needs; `ProcessPool` implements it with processes of this machine. Not here: talking
to one process (`child.py`), and what a failed training means for a study (the search). No torch.
"""

import contextlib
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

from mc1opt.errors import WorkerError
from mc1opt.spec import EpochResult, Training, TrainingFailed
from mc1opt.workers.child import Child, WorkerDied
from mc1opt.workers.protocol import (
    Continue,
    EpochDone,
    Failed,
    Finished,
    Message,
    Stop,
    Train,
    TrainingInterrupted,
)

POLL_SECONDS = 0.1
"""Seconds between two checks of a waiting `train` for an interrupt."""

HALTED_SECONDS = 1.0
"""Seconds by which a poll must be late to show that this process was halted (Ctrl-Z, a paused container).
The worker has waited meanwhile, so this time does not count as training."""

STARTS = 3
"""Workers that may die before they are ready until a `train` gives up."""

START_SECONDS = 300.0
"""Seconds that a worker has to become ready: importing torch from a slow disk takes a minute or more."""

SAVE_SECONDS = 2.0
"""Seconds that an interrupted worker has to write its training's checkpoint before it is killed."""

STOP_SECONDS = 5.0
"""Seconds that a worker has to stop a training before it is killed."""

CLOSE_SECONDS = 2.0
"""Seconds that workers have to end by themselves before they are killed."""


class Pool(Protocol):
    """Trains. `train` is called from up to `size` threads at once."""

    size: int

    def train(self, training: Training, on_epoch: Callable[[EpochResult], bool]) -> bool:
        """Trains, and blocks until the training has ended.

        Args:
            training: what to train.
            on_epoch: called in this thread after each epoch, with its result; False ends the training. An
                exception ends the training and is raised here.

        Returns:
            True if the training reached its end, False if `on_epoch` ended it.

        Raises:
            TrainingFailed: the training has no result.
            TrainingInterrupted: `interrupt` or `close` was called.
            WorkerError: no worker can be started.
        """
        ...

    def interrupt(self) -> None:
        """Ends every present and future `train` with `TrainingInterrupted` within a second.

        A training with a checkpoint path writes its checkpoint first, within `SAVE_SECONDS`.
        """
        ...

    def close(self) -> None:
        """Interrupts, and ends the workers. Safe to repeat, and while `train` runs in other threads."""
        ...


class ProcessPool:
    """A pool of worker processes of this machine, and a context manager. They start in the background.

    A worker that dies fails its training and is replaced; the others are not affected. The processes end
    with this one, however it ends.

    Args:
        size: number of processes, at least 1.
        trainer: "module:function", a function from a `Training` to an iterator of its `EpochResult`s.
        threads: intra-op threads of each worker.
        max_training_seconds: seconds of a training, after which it fails as "timed_out"; None for no limit.
            Waiting for a worker and time in `on_epoch` do not count, epochs from a checkpoint do.
    """

    def __init__(
        self,
        size: int,
        *,
        trainer: str = "mc1opt.training.loop:train",
        threads: int = 1,
        max_training_seconds: float | None = None,
    ) -> None:
        if size < 1:
            raise ValueError(f"a pool needs at least 1 worker, not {size}")
        self.size = size
        self._trainer = trainer
        self._threads = threads
        self._seconds = math.inf if max_training_seconds is None else max_training_seconds
        # One thread starts all processes and outlives them: see `Child`.
        self._starter = ThreadPoolExecutor(1, "worker-starter", initializer=_block_signals)
        self._changed = threading.Condition()  # guards the next four
        self._free: deque[Future[Child]] = deque()  # the newest, which is ready last, at the left
        self._taken: set[Future[Child]] = set()
        self._stopped: str | None = None
        self._closing = threading.RLock()
        self._free.extend(self._start() for _ in range(size))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        self.close()

    def train(self, training: Training, on_epoch: Callable[[EpochResult], bool]) -> bool:
        """See `Pool.train`. If the worker dies, the failure has its last output."""
        for attempt in range(1, STARTS + 1):
            with self._worker() as child:
                try:
                    if child.ready:
                        child.receive(0)  # raises if it has died since its last training
                    else:
                        self._receive(child, _Deadline(START_SECONDS))
                except (WorkerDied, _OutOfTime) as error:
                    self._raise_if_stopped()
                    if attempt == STARTS:
                        reason = str(error) or f"the worker was not ready after {START_SECONDS:g} seconds"
                        raise WorkerError(
                            f"no worker can be started ({STARTS} attempts): {reason}"
                        ) from error
                    continue
                return self._train_on(child, training, on_epoch)
        raise AssertionError("the last attempt returns or raises")

    def interrupt(self) -> None:
        """See `Pool.interrupt`. Training workers end as well."""
        self._stop("the pool was interrupted")

    def close(self) -> None:
        """See `Pool.close`. Leaves no process, thread or descriptor of the pool behind.

        Except for a `train` that stays in `on_epoch` for more than `CLOSE_SECONDS`: its worker is ended now,
        but its pipes are closed only when `on_epoch` returns.
        """
        with self._closing:
            self._stop("the pool is closed")
            with self._changed:
                self._changed.wait_for(lambda: not self._taken, CLOSE_SECONDS)
                late = list(self._taken)
                free = [slot for slot in self._free if not slot.cancel()]
                self._free.clear()
            for child in _started(late):
                child.reap()
            children = [slot.result() for slot in free if slot.exception() is None]
            for child in children:
                child.hang_up()
            deadline = time.monotonic() + CLOSE_SECONDS
            for child in children:
                child.wait_for_end(deadline - time.monotonic())
            self._starter.shutdown()

    # ---- Assigning workers to threads --------------------------------------------------------------------

    def _start(self) -> "Future[Child]":
        return self._starter.submit(Child, self._trainer, self._threads)

    @contextlib.contextmanager
    def _worker(self) -> Iterator[Child]:
        """Waits for a free worker, ready or not, and lends it; takes it back or replaces it afterwards."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._stopped)
            self._raise_if_stopped()
            slot = self._free.pop()
            self._taken.add(slot)
        child = None
        try:
            try:
                child = slot.result()
            except OSError as error:
                raise WorkerError(f"a worker process cannot be started: {error}") from error
            yield child
        finally:
            usable = child is not None and child.usable and not self._stopped
            if child is not None and not usable:
                child.close()
            with self._changed:
                self._taken.discard(slot)
                if usable:
                    self._free.append(slot)
                elif not self._stopped:
                    self._free.appendleft(self._start())
                self._changed.notify_all()

    def _stop(self, reason: str) -> None:
        with self._changed:
            self._stopped = self._stopped or reason
            self._changed.notify_all()

    def _raise_if_stopped(self) -> None:
        if self._stopped:
            raise TrainingInterrupted(self._stopped)

    # ---- One training on one worker ----------------------------------------------------------------------

    def _train_on(self, child: Child, training: Training, on_epoch: Callable[[EpochResult], bool]) -> bool:
        try:
            return self._train_to_end(child, training, on_epoch)
        except TrainingInterrupted:
            if training.checkpoint is not None:
                child.interrupt(SAVE_SECONDS)
            raise

    def _train_to_end(
        self, child: Child, training: Training, on_epoch: Callable[[EpochResult], bool]
    ) -> bool:
        deadline = _Deadline(self._seconds)
        try:
            child.send(Train(training=training))
            while isinstance(message := self._receive(child, deadline), EpochDone):
                if message.result.restored:
                    deadline.at -= message.result.seconds
                before = time.monotonic()
                try:
                    go_on = on_epoch(message.result)
                except BaseException:
                    self._give_up(child)
                    raise
                if not go_on:
                    self._give_up(child)
                    return False
                deadline.at += time.monotonic() - before
                if message.result.epoch < training.fidelity.all_epochs - 1:  # else the training is complete
                    self._raise_if_stopped()
                child.send(Continue())
        except WorkerDied as error:
            self._raise_if_stopped()
            raise TrainingFailed(error.kind, error.message) from None
        except _OutOfTime:
            raise TrainingFailed(
                "timed_out", f"the training was not finished after {self._seconds:g} seconds"
            ) from None
        if isinstance(message, Failed):
            traceback = f"\n{message.traceback}" if message.traceback else ""
            raise TrainingFailed(message.kind, message.message + traceback)
        return True

    def _receive(self, child: Child, deadline: "_Deadline") -> Message:
        """The next message.

        Raises:
            WorkerDied, TrainingInterrupted, _OutOfTime: no message will come.
        """
        while True:
            before = time.monotonic()
            left = deadline.at - before
            wait = min(POLL_SECONDS, max(0.0, left))
            # A message comes before an interrupt, so that no result is lost.
            message = child.receive(wait)
            late = time.monotonic() - before - wait
            if late >= HALTED_SECONDS:  # the worker has waited meanwhile
                deadline.at += late
            if message is not None:
                return message
            self._raise_if_stopped()
            if left <= 0:
                raise _OutOfTime

    def _give_up(self, child: Child) -> None:
        """Makes the worker stop its training. If it takes too long, it stays busy and is replaced."""
        with contextlib.suppress(WorkerDied, TrainingInterrupted, _OutOfTime):
            child.send(Stop())
            deadline = _Deadline(STOP_SECONDS)
            while not isinstance(self._receive(child, deadline), Finished | Failed):
                pass


class _Deadline:
    """The time by which a training must end, on the monotonic clock; moved by time that does not count."""

    def __init__(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds


class _OutOfTime(Exception):  # noqa: N818  (never leaves this module)
    """The deadline has passed."""


def _started(slots: list[Future[Child]]) -> list[Child]:
    return [
        slot.result() for slot in slots if slot.done() and not slot.cancelled() and slot.exception() is None
    ]


def _block_signals() -> None:
    # A process inherits the signal mask of the thread that starts it, so workers ignore these signals from
    # the first instruction on, before Python has started.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
