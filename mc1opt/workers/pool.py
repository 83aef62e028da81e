"""The workers: who trains what, and what happens when one of them fails, dies, hangs or is interrupted.

`Pool` is what the search needs; `ProcessPool` does it with processes of this machine. Not here: how to talk
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
"""How often a waiting `train` looks whether the pool was interrupted."""

HALTED_SECONDS = 1.0
"""A look that comes so much too late means that this process was halted (Ctrl-Z, a paused container): that
time is not the training's, whose worker has waited for it."""

STARTS = 3
"""So many workers may die before they are ready until a `train` gives up."""

START_SECONDS = 300.0
"""How long a worker may take to become ready: importing torch from a slow disk takes a minute or more."""

SAVE_SECONDS = 2.0
"""How long an interrupted worker may take to write its training's checkpoint before it is killed."""

STOP_SECONDS = 5.0
"""How long a worker may take to give a training up before it is killed."""

CLOSE_SECONDS = 2.0
"""How long workers may take to end when they are asked to, before they are killed."""


class Pool(Protocol):
    """Where trainings happen. `train` is called from up to `size` threads at once."""

    size: int

    def train(self, training: Training, on_epoch: Callable[[EpochResult], bool]) -> bool:
        """Trains, and blocks until that has ended.

        Args:
            training: what to train.
            on_epoch: called in this thread after each epoch, with its result; False ends the training there.
                What it raises goes through, and ends the training too.

        Returns:
            True if the training went to its end, False if `on_epoch` ended it.

        Raises:
            TrainingFailed: there is no result, and why.
            TrainingInterrupted: `interrupt` or `close` was called.
            WorkerError: no worker can be started.
        """
        ...

    def interrupt(self) -> None:
        """Ends every `train`, in progress or to come, with `TrainingInterrupted` within a second.

        A training that has a place for its checkpoint has it written first, for which it has `SAVE_SECONDS`.
        """
        ...

    def close(self) -> None:
        """Interrupts, and ends the workers. Safe to call twice, and while `train` runs in other threads."""
        ...


class ProcessPool:
    """Worker processes of this machine. They start at once, in the background, and are a context manager.

    A worker that dies fails its training and is replaced at once; the others don't notice. The processes end
    with this one, however it ends.

    Args:
        size: how many processes, at least 1.
        trainer: "module:function", a function from a `Training` to an iterator of its `EpochResult`s.
        threads: intra-op threads of each worker.
        max_training_seconds: a training that takes longer fails as "timed_out". Waiting for a worker and the
            time spent in `on_epoch` do not count, epochs that come from a checkpoint do. None is no limit.
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
        # All processes are started by one thread, which outlives them: see `Child`.
        self._starter = ThreadPoolExecutor(1, "worker-starter", initializer=_block_signals)
        self._changed = threading.Condition()  # guards the next four
        self._free: deque[Future[Child]] = deque()  # the newest at the left: it is ready last
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
        """See `Pool.train`. When a worker dies: "killed" (SIGKILL) or "crashed", with its last output."""
        for attempt in range(1, STARTS + 1):
            with self._worker() as child:
                try:
                    if child.ready:
                        child.receive(0)  # it may have died since its last training
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
        """See `Pool.interrupt`. Workers in a training end with it."""
        self._stop("the pool was interrupted")

    def close(self) -> None:
        """See `Pool.close`. Afterwards no process, thread or descriptor of the pool is left.

        The exception is a `train` that is inside its `on_epoch` for longer than `CLOSE_SECONDS`: its worker
        is ended, its pipes are closed when it comes back.
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

    # ---- Which thread has which worker -------------------------------------------------------------------

    def _start(self) -> "Future[Child]":
        return self._starter.submit(Child, self._trainer, self._threads)

    @contextlib.contextmanager
    def _worker(self) -> Iterator[Child]:
        """Takes a worker, ready or not, when one is free; afterwards gives it back, or replaces it."""
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
                if message.result.epoch < training.fidelity.epochs - 1:  # else it is as good as done
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
            WorkerDied, TrainingInterrupted, _OutOfTime: it will not come.
        """
        while True:
            before = time.monotonic()
            left = deadline.at - before
            wait = min(POLL_SECONDS, max(0.0, left))
            # What is there already is taken first: a result is not thrown away for an interrupt.
            message = child.receive(wait)
            late = time.monotonic() - before - wait
            if late >= HALTED_SECONDS:  # nobody has asked the worker to go on meanwhile
                deadline.at += late
            if message is not None:
                return message
            self._raise_if_stopped()
            if left <= 0:
                raise _OutOfTime

    def _give_up(self, child: Child) -> None:
        """Has the worker stop its training. If it does not soon, it stays busy, and so will be replaced."""
        with contextlib.suppress(WorkerDied, TrainingInterrupted, _OutOfTime):
            child.send(Stop())
            deadline = _Deadline(STOP_SECONDS)
            while not isinstance(self._receive(child, deadline), Finished | Failed):
                pass


class _Deadline:
    """When a training must be finished, by the monotonic clock; it moves while nobody could train."""

    def __init__(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds


class _OutOfTime(Exception):  # noqa: N818  (never leaves this module)
    """The deadline has passed."""


def _started(slots: list[Future[Child]]) -> list[Child]:
    return [
        slot.result() for slot in slots if slot.done() and not slot.cancelled() and slot.exception() is None
    ]


def _block_signals() -> None:
    # A process inherits the mask of the thread that starts it: workers ignore these from their first
    # instruction on, not only when Python has come up.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
