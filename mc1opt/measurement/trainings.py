"""Trainings over seeds and folds, each stored as it ends: a finished one is never trained again.

`StoredTrainings` has a pool train what a store lacks; an interrupted training resumes from its checkpoint.
Not here: the store (`mc1opt.measurement.store`), which trainings (`mc1opt.measurement.plan`), and what their
results mean (retraining, published).
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
from mc1opt.measurement.plan import Job
from mc1opt.measurement.store import REPEATABLE, Failure, StoredTraining, TrainingKey, TrainingStore
from mc1opt.models.cost import cost
from mc1opt.spec import EpochResult, Training, TrainingFailed
from mc1opt.text import SILENCE_SECONDS, duration, first_line
from mc1opt.training.model_folder import file_sha256
from mc1opt.workers.pool import Pool
from mc1opt.workers.stop import StopFlag
from mc1opt.workers.threads import run_crew
from mc1opt.workers.train import train_within_memory

OVERHEAD_MACS = 2_000_000
"""Cost of an image besides its multiply-accumulates, in their unit: most of the cost of a small network."""


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
        value = None if self.result is None else self.result.judged
        return text if value is None else f"{text} {value:.3f}"


OnResult = Callable[[Job, StoredTraining], None]
Wanted = Callable[[Job], bool]


@dataclass
class StoredTrainings:
    """Has a pool train what a store lacks, in as many threads as the pool has workers. A context manager.

    Args:
        store: where finished trainings are.
        new_pool: makes the pool, when something is missing. It is interrupted when `stop` is set, and closed
            at the end of the context.
        stop: why to stop; its deadline counts.
        write: takes a line of progress.
        total: trainings of all calls of `train`, for the lines.
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
    _started: float = field(default_factory=time.monotonic)
    _first_started: float | None = None
    """When the first training began."""
    _trained: float = 0.0
    """Multiply-accumulates of the epochs that were trained since; those from checkpoints took no time."""
    _left: dict[str, float] = field(default_factory=dict)
    """Multiply-accumulates that are left, by the label of each job of this call that has not ended."""
    _later: float = 0.0
    """Multiply-accumulates expected for later calls, by the mean of this call's trainings."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _last_line: float = field(default_factory=time.monotonic)

    def train(self, jobs: Sequence[Job], on_result: OnResult, wanted: Wanted = lambda _job: True) -> bool:
        """Trains jobs in their order, and passes on the results of all, also of those that are stored.

        Args:
            jobs: what shall be trained.
            on_result: takes each result, in this thread; first those that are stored, in the order of jobs.
            wanted: whether a job is still of use; if not, it is left out, or stopped after an epoch.

        Returns:
            True when all jobs are done, False where they were stopped.

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
        self._left = {job.label: _macs(job) for job in missing}
        later = self.total - self.done - len(missing)
        self._later = later * sum(self._left.values()) / max(len(missing), 1)
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

        run_crew(work, pool, self.stop, tick, len(jobs))
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
            self._first_started = self._first_started or time.monotonic()
        try:
            return self._stored(job, running, pool, wanted)
        finally:
            with self._lock:
                self._running.remove(running)
                self._left.pop(job.label, None)

    def _stored(self, job: Job, running: _Running, pool: Pool, wanted: Wanted) -> StoredTraining | None:
        def on_epoch(result: EpochResult) -> bool:
            with self._lock:
                running.result = result
                macs, epochs = _macs(job), job.training.fidelity.epochs
                self._left[job.label] = macs * (1.0 - running.epochs / epochs)
                if not result.restored:
                    self._trained += macs / epochs
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
            versions=versions(training.threads, training.precision, training.device, training.config),
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

    @property
    def seconds(self) -> float:
        """Seconds since these trainings were begun."""
        return time.monotonic() - self._started

    def stopped_line(self) -> str:
        """Why the trainings were stopped, and after what time."""
        by = {"timeout": "because the time is up", "signal": f"by {self.stop.message}"}
        why = by.get(self.stop.reason, self.stop.message)
        return f"Stopped {why}, after {duration(self.seconds)}. Finished trainings are stored."

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.close()

    def _is_wanted(self, job: Job, wanted: Wanted) -> bool:
        """Whether a job is wanted; if not, it is left out of the total."""
        if wanted(job):
            return True
        self.store.remove_checkpoints(job.training)
        with self._lock:
            self.total -= 1
            self._left.pop(job.label, None)
        return False

    def say(self, line: str) -> None:
        """Writes a line between the count and the time left."""
        self._last_line = time.monotonic()
        left = self.seconds_left()
        after = "" if left is None else f" | {duration(left)} left"
        self.write(f"{self.done}/{self.total}  {line}{after}")

    def seconds_left(self) -> float | None:
        """Seconds that the rest will take at the pace so far; None before the first epoch has ended.

        By multiply-accumulates: an epoch of one config may cost hundreds of another's.
        """
        with self._lock:
            left = sum(self._left.values()) + self._later
            if self._first_started is None or not self._trained or not left:
                return None
            return (time.monotonic() - self._first_started) / self._trained * left

    def say_what_runs(self) -> None:
        """Writes what is in training, after a silence."""
        if time.monotonic() - self._last_line < SILENCE_SECONDS:
            return
        with self._lock:
            running = ", ".join(entry.words() for entry in self._running)
        self.say(f"training {running}" if running else "waiting for a worker")


def _macs(job: Job) -> float:
    """Multiply-accumulates of a training, with their overhead."""
    fidelity = job.training.fidelity
    image = cost(job.training.config.architecture, job.training.data.shape).macs + OVERHEAD_MACS
    return float(image * fidelity.train_images * fidelity.epochs)


def _outcome(stored: StoredTraining) -> str:
    took = duration(stored.seconds)
    if stored.failure is not None:
        return f"failed ({stored.failure.kind}) after {took}: {first_line(stored.failure.message)}"
    if stored.value is None:
        return f"trained in {took}, loss {stored.curve[-1].loss:.4f}"
    return f"{stored.value:.4f} in {took}"
