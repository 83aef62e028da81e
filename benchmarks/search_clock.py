"""A clock for the threads of a search: what each second of a worker went to, as `overhead.py` reports it.

The search itself is not changed: its pool is wrapped, and the calls of its database are. Not here: running a
search, and what the figures mean.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from types import FunctionType
from typing import Any

from optuna.storages import RDBStorage

from mc1opt.database.storage import StudyStorage
from mc1opt.spec import EpochResult, Training
from mc1opt.workers.pool import Pool

EPOCHS, BETWEEN_EPOCHS, BETWEEN_TRIALS, WORKER = "epochs", "between epochs", "between trials", "worker"
DATABASE = ", database"
PARTS = {
    EPOCHS: "epochs",
    BETWEEN_EPOCHS + DATABASE: "between epochs: database",
    BETWEEN_EPOCHS: "between epochs: pruner and the rest",
    BETWEEN_TRIALS + DATABASE: "between trials: database",
    BETWEEN_TRIALS: "between trials: sampler, waiting for the other's draw, the rest",
    WORKER: "messages, beginning and end of a training in the worker",
}


class Clock(threading.local):
    """Adds up what each thread does, for each thread apart."""

    def __init__(self) -> None:
        self.part = BETWEEN_TRIALS
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.cpu_seconds: defaultdict[str, float] = defaultdict(float)
        """Of the thread alone: what other work on the machine does not lengthen, and no wait counts in."""
        self._since = time.monotonic(), time.thread_time()

    def switch(self, part: str) -> None:
        """From now on this thread does `part`."""
        now = time.monotonic(), time.thread_time()
        for seconds, before, after in zip((self.seconds, self.cpu_seconds), self._since, now, strict=True):
            seconds[self.part] += after - before
        self.part, self._since = part, now


class TimedPool:
    """A pool that tells the clock when a training begins and ends, and when an epoch has ended."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self.size = pool.size
        self.interrupt = pool.interrupt
        self.close = pool.close
        self.seconds: defaultdict[str, float] = defaultdict(float)
        """Of all threads, each up to the end of its last training: what follows is waiting for the others."""
        self.cpu_seconds: defaultdict[str, float] = defaultdict(float)
        """Likewise; the epochs of other processes are not in it."""
        self.trainings = self.epochs = 0
        self._pool = pool
        self._clock = clock
        self._lock = threading.Lock()

    def train(self, training: Training, on_epoch: Callable[[EpochResult], bool]) -> bool:
        """See `Pool.train`."""
        clock = self._clock
        epochs = 0

        def timed(result: EpochResult) -> bool:
            nonlocal epochs
            epochs += 1
            clock.switch(BETWEEN_EPOCHS)
            clock.seconds[EPOCHS] += result.seconds
            clock.seconds[WORKER] -= result.seconds
            try:
                return on_epoch(result)
            finally:
                clock.switch(WORKER)

        clock.switch(WORKER)
        try:
            return self._pool.train(training, timed)
        finally:
            clock.switch(BETWEEN_TRIALS)
            with self._lock:
                self.trainings += 1
                self.epochs += epochs
                for part in clock.seconds:
                    self.seconds[part] += clock.seconds[part]
                    self.cpu_seconds[part] += clock.cpu_seconds[part]
            clock.seconds.clear()
            clock.cpu_seconds.clear()


def time_database(storage: StudyStorage, clock: Clock) -> None:
    """Has all calls of the database, however Optuna and mc1opt make them, tell the thread's clock."""

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **named: Any) -> Any:
            part = clock.part
            if part.endswith(DATABASE):  # a call within a call
                return call(*arguments, **named)
            clock.switch(part + DATABASE)
            try:
                return call(*arguments, **named)
            finally:
                clock.switch(part)

        return wrapper

    for kind in (RDBStorage, StudyStorage):
        for name, value in vars(kind).items():
            if isinstance(value, FunctionType) and not name.startswith("__"):
                setattr(storage, name, timed(getattr(storage, name)))
