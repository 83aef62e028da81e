"""Trainings over seeds and folds, each stored as it ends: what is finished is never trained again.

`StoredTrainings` has a pool train what a store lacks; one that was interrupted goes on from its checkpoint.
Not here: the store (`mc1opt.measurement.store`), which trainings, and what their results mean
(retraining, presets).
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from mc1opt.errors import WorkerError
from mc1opt.machine.environment import commit, versions
from mc1opt.measurement.store import REPEATABLE, Failure, StoredTraining, TrainingKey, TrainingStore
from mc1opt.spec import EpochResult, Training, TrainingFailed
from mc1opt.text import SILENCE_SECONDS, duration, first_line
from mc1opt.training.model_folder import file_sha256
from mc1opt.workers.crew import run_crew
from mc1opt.workers.memory import train_within_memory
from mc1opt.workers.pool import Pool
from mc1opt.workers.stop import StopFlag


@dataclass(frozen=True)
class Job:
    """A training with a name for people."""

    label: str
    training: Training


@dataclass
class _Running:
    job: Job
    started: float = field(default_factory=time.monotonic)
    result: EpochResult | None = None

    @property
    def epochs(self) -> int:
        return 0 if self.result is None else self.result.epoch + 1

    def words(self) -> str:
        text = f"{self.job.label} {self.epochs}/{self.job.training.fidelity.epochs} epochs"
        value = None if self.result is None else self.result.validation_accuracy
        return text if value is None else f"{text} {value:.3f}"


OnResult = Callable[[Job, StoredTraining], None]
Wanted = Callable[[Job], bool]


@dataclass
class StoredTrainings:
    """Has a pool train what a store lacks, in as many threads as the pool has workers. A context manager.

    Args:
        store: where finished trainings are.
        new_pool: makes who trains, when something is missing. The pool is interrupted when `stop` is
            set, and closed at the end of the context.
        stop: why to stop; its deadline counts.
        write: takes a line of progress.
        total: trainings that there will be in all, for the lines.
    """

    store: TrainingStore
    new_pool: Callable[[], Pool]
    stop: StopFlag
    write: Callable[[str], None]
    total: int
    done: int = 0
    """Trainings that have ended, or were stored before."""
    _pool: Pool | None = None
    _running: list[_Running] = field(default_factory=list)
    _epochs: list[float] = field(default_factory=list)
    """When each epoch was trained, by the clock; the first entry is the first training's start. Those that
    come from checkpoints took no time now."""
    _restored: dict[str, int] = field(default_factory=dict)
    """Epochs that came from a checkpoint, by the label of their job."""
    _epochs_each: int = 0
    """Of a training; of the last one that began, where they differ."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _last_line: float = field(default_factory=time.monotonic)

    def train(self, jobs: Sequence[Job], on_result: OnResult, wanted: Wanted = lambda _job: True) -> bool:
        """Trains jobs in their order, and says the results of all of them, also of those stored before.

        Args:
            jobs: what shall be trained.
            on_result: takes each result, in this thread; first those that are stored, in the order of jobs.
            wanted: whether a job is still of use; one that is not is left out, or given up after an epoch.

        Returns:
            True when all is done, False if something stopped it.

        Raises:
            WorkerError: trainings failed that may go well at another time; the others are stored.
            StorageError: a result cannot be stored.
        """
        missing = []
        for job in jobs:
            stored = self.store.find(job.training)
            if stored is None:
                missing.append(job)
            else:
                self.done += 1
                self.store.remove_checkpoints(job.training)
                on_result(job, stored)
        missing = [job for job in missing if self._is_wanted(job, wanted)]
        if missing and not self.stop.is_set():
            self._pool = self._pool or self.new_pool()
            self._train_all(missing, self._pool, on_result, wanted)
        return not self.stop.is_set()

    def _train_all(self, jobs: Sequence[Job], pool: Pool, on_result: OnResult, wanted: Wanted) -> None:
        """Has the pool train until nothing is left, or something stops it."""
        left = list(reversed(jobs))
        results: queue.SimpleQueue[tuple[Job, StoredTraining]] = queue.SimpleQueue()
        failures: list[str] = []

        def work() -> None:
            while not self.stop.is_set():
                with self._lock:
                    if not left:
                        return
                    job = left.pop()
                if not self._is_wanted(job, wanted):
                    continue
                try:
                    stored = self._train_one(job, pool, wanted)
                except TrainingFailed as error:
                    # No result. It is told now, because work that is stopped raises no error.
                    failures.append(f"{job.label} ({error.kind}): {first_line(error.message)}")
                    self.write(f"failed: {failures[-1]}; the same command tries it again")
                else:
                    if stored is not None:
                        results.put((job, stored))

        def tick(seconds: float) -> None:
            with contextlib.suppress(queue.Empty):
                while True:
                    job, stored = results.get(timeout=seconds) if seconds else results.get_nowait()
                    seconds = 0.0
                    self.done += 1
                    self.say(f"{job.label}: {_outcome(stored)}")
                    on_result(job, stored)
            self.say_what_runs()

        run_crew(work, pool, self.stop, tick, min(pool.size, len(jobs)))
        if failures and not self.stop.is_set():
            raise WorkerError(
                f"{len(failures)} of the trainings failed: {'; '.join(failures)}. Finished ones are kept; "
                "the same command tries these again, with --workers 1 if memory is short."
            )

    def _train_one(self, job: Job, pool: Pool, wanted: Wanted) -> StoredTraining | None:
        """Trains a job, in smaller steps where memory is short, and stores the result; None if given up.

        Raises:
            TrainingFailed: in a way that is no result.
        """
        running = _Running(job)
        with self._lock:
            self._running.append(running)
            self._epochs_each = job.training.fidelity.epochs
            self._epochs = self._epochs or [time.monotonic()]
        try:
            return self._stored(job, running, pool, wanted)
        finally:
            with self._lock:
                self._running.remove(running)

    def _stored(self, job: Job, running: _Running, pool: Pool, wanted: Wanted) -> StoredTraining | None:
        def on_epoch(result: EpochResult) -> bool:
            with self._lock:
                running.result = result
                if result.restored:
                    self._restored[job.label] = result.epoch + 1
                else:
                    self._epochs.append(time.monotonic())
            # After its last epoch a training is finished, wanted or not.
            return result.epoch == job.training.fidelity.epochs - 1 or wanted(job)

        training = self._with_checkpoint(self.store.as_interrupted(job.training))
        failure = None
        try:
            trained = train_within_memory(pool, training, on_epoch, self._with_checkpoint)
            curve, training = trained.results, trained.training
            if not trained.whole:
                self.store.remove_checkpoints(job.training)
                with self._lock:  # it is not wanted any more
                    self.total -= 1
                return None
        except TrainingFailed as error:
            if error.kind not in REPEATABLE:
                raise
            failure = Failure(kind=error.kind, message=error.message)
            curve, training = error.results, error.training or training
        weights = training.weights
        stored = StoredTraining(
            key=TrainingKey.of(training),
            curve=tuple(result.model_copy(update={"restored": False}) for result in curve),
            failure=failure,
            seconds=max(time.monotonic() - running.started, sum(result.seconds for result in curve)),
            accumulation=training.accumulation,
            weights_sha256=file_sha256(Path(weights)) if weights and failure is None else None,
            versions=versions(training.threads, training.precision, training.device),
            commit=commit(),
            ended=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        with self._lock:
            self.store.add(stored)
        self.store.remove_checkpoints(job.training)
        return stored

    def _with_checkpoint(self, training: Training) -> Training:
        """A training with its place for a checkpoint, another one in smaller steps."""
        path = self.store.checkpoint_path(training).absolute()
        return training.model_copy(update={"checkpoint": str(path)})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.close()

    def _is_wanted(self, job: Job, wanted: Wanted) -> bool:
        """Asks, and leaves a job that is not wanted out of the total."""
        if wanted(job):
            return True
        self.store.remove_checkpoints(job.training)
        with self._lock:
            self.total -= 1
        return False

    def say(self, line: str) -> None:
        """Writes a line, with the count before it."""
        self._last_line = time.monotonic()
        left = self.seconds_left()
        after = "" if left is None else f" | {duration(left)} left"
        self.write(f"{self.done}/{self.total}  {line}{after}")

    def seconds_left(self) -> float | None:
        """How long the rest will take, at the pace of the epochs so far; None while there are none."""
        with self._lock:
            running = [entry.job.training.fidelity.epochs - entry.epochs for entry in self._running]
            trained = len(self._epochs) - 1
            if trained < 1 or self.done >= self.total:
                return None
            seconds = self._epochs[-1] - self._epochs[0]
            waiting = (self.total - self.done - len(running)) * self._epochs_each
        return seconds / trained * (sum(running) + max(waiting, 0))

    def say_what_runs(self) -> None:
        """Writes what is in training, if nothing was written for long."""
        if time.monotonic() - self._last_line < SILENCE_SECONDS:
            return
        with self._lock:
            running = ", ".join(entry.words() for entry in self._running)
        self.say(f"training {running}" if running else "waiting for a worker")


def _outcome(stored: StoredTraining) -> str:
    took = duration(stored.seconds)
    if stored.failure is not None:
        return f"failed ({stored.failure.kind}) after {took}: {first_line(stored.failure.message)}"
    if stored.value is None:
        return f"trained in {took}, loss {stored.curve[-1].loss:.4f}"
    return f"{stored.value:.4f} in {took}"
