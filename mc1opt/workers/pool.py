"""The pool of workers: assigns trainings, and handles workers that fail, die, hang or are interrupted.

`Pool` is what the search needs. `WorkerPool` implements it with any workers, `ProcessPool` with processes of
this machine. Not here: talking to one process (`child.py`), workers on other machines (`ray_pool.py`), and
what a failed training means for a study (the search). No torch.
"""

import contextlib
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

from mc1opt.errors import WorkerError
from mc1opt.spec import EpochResult, Training, TrainingFailed
from mc1opt.workers.child import Child, WorkerDied, block_signals
from mc1opt.workers.protocol import (
    Command,
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
    """Workers; it may change."""

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


class Worker(Protocol):
    """What trains for a pool, one training at a time: `Child` has the methods' meanings."""

    @property
    def ready(self) -> bool: ...  # noqa: D102
    @property
    def usable(self) -> bool: ...  # noqa: D102
    def send(self, command: Command) -> None: ...  # noqa: D102
    def receive(self, seconds: float) -> Message | None: ...  # noqa: D102
    def interrupt(self, seconds: float) -> None: ...  # noqa: D102
    def reap(self) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102
    def hang_up(self) -> None: ...  # noqa: D102
    def wait_for_end(self, seconds: float) -> None: ...  # noqa: D102


class WorkerPool:
    """A pool of workers, and a context manager. They start in the background.

    A worker that dies fails its training and is replaced; the others are not affected.

    Args:
        size: number of workers, at least 1.
        start: starts a worker; always called in the same thread, which outlives the workers (see `Child`).
        max_training_seconds: seconds of a training, after which it fails as "timed_out"; None for no limit.
            Waiting for a worker and time in `on_epoch` do not count, epochs from a checkpoint do.
    """

    start_seconds = START_SECONDS
    """Seconds that a worker has to become ready."""

    def __init__(
        self, size: int, start: Callable[[], Worker], *, max_training_seconds: float | None = None
    ) -> None:
        if size < 1:
            raise ValueError(f"a pool needs at least 1 worker, not {size}")
        self.size = self._wanted = size
        self._start_worker = start
        self._seconds = math.inf if max_training_seconds is None else max_training_seconds
        self._starter = ThreadPoolExecutor(1, "worker-starter", initializer=block_signals)
        self._changed = threading.Condition()  # guards the next three
        self._free: deque[Future[Worker]] = deque()  # the newest, which is ready last, at the left
        self._taken: set[Future[Worker]] = set()
        self._stopped: str | None = None
        self._closing = threading.RLock()
        self._grow(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        self.close()

    def train(self, training: Training, on_epoch: Callable[[EpochResult], bool]) -> bool:
        """See `Pool.train`. If the worker dies, the failure has its last output."""
        for attempt in range(1, STARTS + 1):
            with self._worker() as worker:
                try:
                    if worker.ready:
                        worker.receive(0)  # raises if it has died since its last training
                    else:
                        self._receive(worker, _Deadline(self.start_seconds))
                except (WorkerDied, _OutOfTime) as error:
                    self._raise_if_stopped()
                    if attempt == STARTS:
                        reason = str(error) or f"it was not ready after {self.start_seconds:g} seconds"
                        raise WorkerError(
                            f"no worker can be started ({STARTS} attempts): {reason}"
                        ) from error
                    continue
                return self._train_on(worker, training, on_epoch)
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
            for worker in _started(late):
                worker.reap()
            workers = [slot.result() for slot in free if slot.exception() is None]
            for worker in workers:
                worker.hang_up()
            deadline = time.monotonic() + CLOSE_SECONDS
            for worker in workers:
                worker.wait_for_end(deadline - time.monotonic())
            self._starter.shutdown()

    # ---- Assigning workers to threads --------------------------------------------------------------------

    def _start(self) -> "Future[Worker]":
        return self._starter.submit(self._start_worker)

    @contextlib.contextmanager
    def _worker(self) -> Iterator[Worker]:
        """Waits for a free worker, ready or not, and lends it; takes it back or replaces it afterwards."""
        with self._changed:
            self._raise_if_stopped()
            while (slot := self._next_slot()) is None:
                self._changed.wait()
                self._raise_if_stopped()
            self._free.remove(slot)
            self._taken.add(slot)
        worker = None
        try:
            try:
                worker = slot.result()
            except OSError as error:
                raise WorkerError(f"a worker process cannot be started: {error}") from error
            yield worker
        finally:
            usable = worker is not None and worker.usable and not self._stopped
            if worker is not None and not usable:
                worker.close()
            with self._changed:
                self._taken.discard(slot)
                if usable:
                    self._free.append(slot)
                self._grow(self._wanted)

    def _next_slot(self) -> "Future[Worker] | None":
        return self._free[-1] if self._free else None

    def _grow(self, wanted: int) -> None:
        """Starts as many workers as are missing to `wanted`."""
        with self._changed:
            self._wanted = wanted
            while not self._stopped and len(self._free) + len(self._taken) < wanted:
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

    def _train_on(self, worker: Worker, training: Training, on_epoch: Callable[[EpochResult], bool]) -> bool:
        try:
            return self._train_to_end(worker, training, on_epoch)
        except TrainingInterrupted:
            if training.checkpoint is not None:
                worker.interrupt(SAVE_SECONDS)
            raise

    def _train_to_end(
        self, worker: Worker, training: Training, on_epoch: Callable[[EpochResult], bool]
    ) -> bool:
        deadline = _Deadline(self._seconds)
        patience = 0.0
        try:
            worker.send(Train(training=training))
            while isinstance(message := self._receive(worker, deadline, patience), EpochDone):
                if message.result.restored:
                    deadline.at -= message.result.seconds
                before = time.monotonic()
                try:
                    go_on = on_epoch(message.result)
                except BaseException:
                    self._give_up(worker)
                    raise
                if not go_on:
                    self._give_up(worker)
                    return False
                deadline.at += time.monotonic() - before
                if message.result.epoch < training.fidelity.all_epochs - 1:
                    self._raise_if_stopped()
                else:  # it is complete, and its worker will say so
                    patience = SAVE_SECONDS
                worker.send(Continue())
        except WorkerDied as error:
            self._raise_if_stopped()
            raise TrainingFailed(error.kind, error.message) from error
        except _OutOfTime:
            raise TrainingFailed(
                "timed_out", f"the training was not finished after {self._seconds:g} seconds"
            ) from None
        if isinstance(message, Failed):
            traceback = f"\n{message.traceback}" if message.traceback else ""
            raise TrainingFailed(message.kind, message.message + traceback)
        return True

    def _receive(self, worker: Worker, deadline: "_Deadline", patience: float = 0.0) -> Message:
        """The next message; an interrupt is noticed after `patience` seconds.

        Raises:
            WorkerDied, TrainingInterrupted, _OutOfTime: no message will come.
        """
        started = time.monotonic()
        while True:
            before = time.monotonic()
            left = deadline.at - before
            wait = min(POLL_SECONDS, max(0.0, left))
            # A message comes before an interrupt, so that no result is lost.
            message = worker.receive(wait)
            late = time.monotonic() - before - wait
            if late >= HALTED_SECONDS:  # the worker has waited meanwhile
                deadline.at += late
            if message is not None:
                return message
            if before - started >= patience:
                self._raise_if_stopped()
            if left <= 0:
                raise _OutOfTime

    def _give_up(self, worker: Worker) -> None:
        """Makes the worker stop its training. If it takes too long, it stays busy and is replaced."""
        with contextlib.suppress(WorkerDied, TrainingInterrupted, _OutOfTime):
            worker.send(Stop())
            deadline = _Deadline(STOP_SECONDS)
            while not isinstance(self._receive(worker, deadline), Finished | Failed):
                pass


class ProcessPool(WorkerPool):
    """A pool of worker processes of this machine. They end with this one, however it ends.

    Args:
        size: number of processes, at least 1.
        trainer: "module:function", a function from a `Training` to an iterator of its `EpochResult`s.
        threads: intra-op threads of each worker.
        gpus: what CUDA_VISIBLE_DEVICES calls the GPUs, which get equally many workers; none for no choice.
        max_training_seconds: see `WorkerPool`.
    """

    def __init__(
        self,
        size: int,
        *,
        trainer: str = "mc1opt.training.loop:train",
        threads: int = 1,
        gpus: Sequence[str] = (),
        max_training_seconds: float | None = None,
    ) -> None:
        living: list[Child] = []

        def start() -> Child:
            living[:] = [child for child in living if not child.closed]
            taken = Counter(child.gpu for child in living)
            living.append(Child(trainer, threads, min(gpus, key=lambda gpu: taken[gpu], default=None)))
            return living[-1]

        super().__init__(size, start, max_training_seconds=max_training_seconds)


class _Deadline:
    """The time by which a training must end, on the monotonic clock; moved by time that does not count."""

    def __init__(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds


class _OutOfTime(Exception):  # noqa: N818  (never leaves this module)
    """The deadline has passed."""


def _started(slots: list[Future[Worker]]) -> list[Worker]:
    return [
        slot.result() for slot in slots if slot.done() and not slot.cancelled() and slot.exception() is None
    ]
