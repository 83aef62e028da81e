"""Trainings over seeds and folds, each stored as it ends: a finished one is never trained again.

`StoredTrainings` has a pool train what a store lacks; an interrupted training resumes from its checkpoint.
Not here: the store (`mc1opt.measurement.store`), which trainings (`mc1opt.measurement.plan`), and what their
results mean (retraining, published).
"""

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
from mc1opt.text import SILENCE_SECONDS, duration
from mc1opt.training.model_folder import file_sha256
from mc1opt.workers.pool import Pool
from mc1opt.workers.protocol import TrainingInterrupted
from mc1opt.workers.stop import TICK_SECONDS, StopFlag

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
        value = None if self.result is None else self.result.validation_accuracy
        return text if value is None else f"{text} {value:.3f}"


OnResult = Callable[[Job, StoredTraining], None]
Wanted = Callable[[Job], bool]


@dataclass
class StoredTrainings:
    """Has a pool train what a store lacks, in as many threads as the pool has workers. A context manager.

    Args:
        store: where finished trainings are.
        new_pool: makes the pool, when something is missing. It is interrupted when `stop` is set or the time
            is up, and closed at the end of the context.
        stop: why to stop; it is set when the time is up.
        write: takes a line of progress.
        total: trainings of all calls of `train`, for the lines.
        timeout: seconds from now on; None for no limit.
    """

    store: TrainingStore
    new_pool: Callable[[], Pool]
    stop: StopFlag
    write: Callable[[str], None]
    total: int
    timeout: float | None = None
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
            _Session(self, self._pool, missing, on_result, wanted).run()
        return not self.stop.is_set()

    @property
    def seconds(self) -> float:
        """Seconds since these trainings were begun."""
        return time.monotonic() - self._started

    @property
    def deadline(self) -> float | None:
        """When the time is up, by `time.monotonic`."""
        return None if self.timeout is None else self._started + self.timeout

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


class _Session:
    """One call of `StoredTrainings.train`."""

    def __init__(
        self,
        owner: StoredTrainings,
        pool: Pool,
        jobs: Sequence[Job],
        on_result: OnResult,
        wanted: Wanted,
    ) -> None:
        self.owner = owner
        self.pool = pool
        self.left = list(reversed(jobs))
        self.on_result = on_result
        self.wanted = wanted
        self.results: queue.SimpleQueue[tuple[Job, StoredTraining]] = queue.SimpleQueue()
        self.failures: list[str] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        """Trains until nothing is left, or something stops it."""
        owner = self.owner
        size = min(self.pool.size, len(self.left))
        threads = [
            threading.Thread(target=self._guarded, name=f"training-{i}", daemon=True) for i in range(size)
        ]
        for thread in threads:
            thread.start()
        interrupted = False
        while any(thread.is_alive() for thread in threads):
            if owner.deadline is not None and time.monotonic() >= owner.deadline:
                owner.stop.set("timeout", "the time is up")
            if owner.stop.is_set() and not interrupted:
                interrupted = True
                self.pool.interrupt()
            self._pass_on(TICK_SECONDS)
            owner.say_what_runs()
        self._pass_on(0.0)
        if self.error is not None:
            raise self.error
        if self.failures and not owner.stop.is_set():
            raise WorkerError(
                f"{len(self.failures)} of the trainings failed: {'; '.join(self.failures)}. Finished ones "
                "are kept; the same command tries these again, with --workers 1 if memory is short."
            )

    def _pass_on(self, wait: float) -> None:
        try:
            while True:
                job, stored = self.results.get(timeout=wait) if wait else self.results.get_nowait()
                wait = 0.0
                self.owner.done += 1
                self.owner.say(f"{job.label}: {_outcome(stored)}")
                self.on_result(job, stored)
        except queue.Empty:
            return

    def _guarded(self) -> None:
        try:
            self._work()
        except TrainingInterrupted:
            return
        except BaseException as error:  # any thread's end is the end of all, and must be told
            self.error = self.error or error
            self.owner.stop.set("failures", str(error))

    def _work(self) -> None:
        owner = self.owner
        while not owner.stop.is_set():
            with owner._lock:
                if not self.left:
                    return
                job = self.left.pop()
            if not owner._is_wanted(job, self.wanted):
                continue
            running = _Running(job)
            with owner._lock:
                owner._running.append(running)
                owner._first_started = owner._first_started or time.monotonic()
            try:
                self._train(owner.store.as_interrupted(job.training), running)
            finally:
                with owner._lock:
                    owner._running.remove(running)
                    owner._left.pop(job.label, None)

    def _train(self, training: Training, running: _Running) -> None:
        """Trains a job, as itself or in smaller steps, and stores what came of it."""
        job, store = running.job, self.owner.store
        checkpoint = store.checkpoint_path(training)
        curve: list[EpochResult] = []
        failure = None

        def on_epoch(result: EpochResult) -> bool:
            curve.append(result.model_copy(update={"restored": False}))
            with self.owner._lock:
                running.result = result
                macs, epochs = _macs(job), training.fidelity.epochs
                self.owner._left[job.label] = macs * (1.0 - running.epochs / epochs)
                if not result.restored:
                    self.owner._trained += macs / epochs
            # After its last epoch a training is finished, wanted or not.
            return result.epoch == training.fidelity.epochs - 1 or self.wanted(job)

        try:
            finished = self.pool.train(
                training.model_copy(update={"checkpoint": str(checkpoint.absolute())}), on_epoch
            )
        except TrainingFailed as error:
            smaller = training.in_smaller_steps() if error.kind == "out_of_memory" else None
            if smaller is not None:
                return self._train(smaller, running)
            if error.kind not in REPEATABLE:
                return self._failed(job, error)
            failure = Failure(kind=error.kind, message=error.message)
        else:
            if not finished:
                store.remove_checkpoints(job.training)
                with self.owner._lock:  # it is not wanted any more
                    self.owner.total -= 1
                return None
        weights = training.weights
        stored = StoredTraining(
            key=TrainingKey.of(training),
            curve=tuple(curve),
            failure=failure,
            seconds=max(time.monotonic() - running.started, sum(result.seconds for result in curve)),
            accumulation=training.accumulation,
            weights_sha256=file_sha256(Path(weights)) if weights and failure is None else None,
            versions=versions(training.threads, training.precision, training.device),
            commit=commit(),
            ended=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        with self.owner._lock:
            store.add(stored)
        store.remove_checkpoints(job.training)
        self.results.put((job, stored))
        return None

    def _failed(self, job: Job, error: TrainingFailed) -> None:
        """Notes a failure that is no result; it is told now, because a run that is stopped has no error."""
        first_line = error.message.strip().split("\n")[0]
        failed = f"{job.label} ({error.kind}): {first_line}"
        with self.owner._lock:
            self.failures.append(failed)
        self.owner.write(f"failed: {failed}; the same command tries it again")


def _macs(job: Job) -> float:
    """Multiply-accumulates of a training, with their overhead."""
    fidelity = job.training.fidelity
    image = cost(job.training.config.architecture).macs + OVERHEAD_MACS
    return float(image * fidelity.train_images * fidelity.epochs)


def _outcome(stored: StoredTraining) -> str:
    took = duration(stored.seconds)
    if stored.failure is not None:
        first_line = stored.failure.message.strip().split("\n")[0]
        return f"failed ({stored.failure.kind}) after {took}: {first_line}"
    if stored.value is None:
        return f"trained in {took}, loss {stored.curve[-1].loss:.4f}"
    return f"{stored.value:.4f} in {took}"
