"""A search from its beginning to its end: open, take up, ask, train, tell, stop.

One thread a worker loops *ask, train, tell*; the main thread passes events on to the observers and waits for
a stop: a signal, the deadline, nothing new, too many failures. Why not `study.optimize`: see DESIGN's
section 3; in short, totals would not be exact and interrupted trials would be lost.
"""

import contextlib
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna
from optuna.exceptions import StorageInternalError
from optuna.samplers import GridSampler
from optuna.trial import FrozenTrial

from mc1opt.database import records
from mc1opt.database.heartbeat import Heartbeat
from mc1opt.database.identity import make_own
from mc1opt.database.interrupted import take_up_interrupted
from mc1opt.database.location import checkpoints_folder
from mc1opt.database.opening import load_study
from mc1opt.database.ownership import NoRoomError
from mc1opt.database.retry import DatabaseError
from mc1opt.database.storage import StudyStorage
from mc1opt.database.trial_files import tidy
from mc1opt.search.confirm import SEEDS, Confirmation, missing_repetitions
from mc1opt.search.definition import StudyDefinition
from mc1opt.search.endings import Endings
from mc1opt.search.importance import importances
from mc1opt.search.objective import Confirmed, EpochEvent, Event, Objective, Proposal
from mc1opt.search.observers import Observer, Observers, SearchEnded, SearchStarted, TrialStarted
from mc1opt.search.plan import expected_bytes, expected_seconds, has_timings, typical_epoch_seconds
from mc1opt.search.study import StudySettings, open_study
from mc1opt.spec import CHECKPOINT_SECONDS, DataSet, Device, Fidelity, Precision
from mc1opt.workers.pool import Pool
from mc1opt.workers.protocol import TrainingInterrupted
from mc1opt.workers.stop import TICK_SECONDS, StopFlag


@dataclass(frozen=True)
class SearchSettings:
    """What a search is told, apart from what to search and where it is stored."""

    study: str
    """The name under which the study is stored."""
    trials: int
    """The total that the study shall have."""
    fidelity: Fidelity
    seed: int
    device: Device
    max_macs: int
    precision: Precision = "float32"
    timeout: float | None = None
    """Seconds."""
    sampler: str = "tpe"
    pruner: str = "narrowing"
    max_failures: int = 10
    """Failed trials in a row that end the search."""
    confirm: int = 3
    """How many of the best trials are trained again with new seeds at the end."""
    keep: int = 5
    """How many of the best trials keep their weights, by value and as many by promise."""
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    """How often a running trial's state is written, at most."""


def run_search(
    definition: StudyDefinition,
    settings: SearchSettings,
    storage: StudyStorage,
    data: DataSet,
    pool: Pool,
    *,
    observers: tuple[Observer, ...] = (),
    stop: StopFlag | None = None,
) -> SearchEnded:
    """Creates or resumes a study and trains trials until it has `settings.trials`, or something stops it.

    Args:
        definition: what to search.
        settings: how.
        storage: the study database, opened with this process as owner.
        data: the images.
        pool: who trains; as many trials at once as its size. It is not closed.
        observers: who is told.
        stop: lets others end the search; signals, for example.

    Raises:
        UsageError: the study exists with another fidelity, data, seed or search space.
        StorageError: the database cannot be written.
    """
    try:
        return _Search(
            definition, settings, storage, data, pool, Observers(observers), stop or StopFlag()
        ).run()
    except StorageInternalError as error:
        if isinstance(error, DatabaseError):
            raise
        raise DatabaseError(error) from error


class _Search:
    def __init__(
        self,
        definition: StudyDefinition,
        settings: SearchSettings,
        storage: StudyStorage,
        data: DataSet,
        pool: Pool,
        observers: Observers,
        stop: StopFlag,
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.storage = storage
        self.observers = observers
        self.stop = stop
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.lock = threading.Condition()
        self.in_training: set[int] = set()  # ids of this process's trials
        self.error: BaseException | None = None
        self.study: optuna.Study = open_study(
            definition,
            StudySettings(
                name=settings.study,
                fidelity=settings.fidelity,
                seed=settings.seed,
                max_macs=settings.max_macs,
                sampler=settings.sampler,
                pruner=settings.pruner,
            ),
            storage,
            data,
        )
        self.endings = Endings(self.study.get_trials(deepcopy=False), settings.max_failures)
        self.definition = definition
        self.taken_up = take_up_interrupted(self.study, storage)
        self.heartbeat = Heartbeat(self.study, storage)
        make_own(self.study, storage)
        name = records.study_folder_name(settings.study, self.study.user_attrs)
        folder = checkpoints_folder(str(storage.url)) / name
        tidy(folder, self.study.get_trials(deepcopy=False), settings.keep)
        self.objective = Objective(
            definition=definition,
            study=self.study,
            storage=storage,
            pool=pool,
            data=data,
            fidelity=settings.fidelity,
            study_seed=settings.seed,
            device=settings.device,
            precision=settings.precision,
            max_macs=settings.max_macs,
            weights_folder=folder,
            keep=settings.keep,
            checkpoint_seconds=settings.checkpoint_seconds,
            emit=self.events.put,
        )

    def run(self) -> SearchEnded:
        started = time.monotonic()
        timeout = self.settings.timeout
        deadline = None if timeout is None else started + timeout
        plan = self._plan(deadline)
        self.observers.study_started(plan)
        with self.heartbeat:
            self._in_threads(self._work, deadline)
            if not self.stop.is_set():
                self._confirm(deadline)
        if self.endings.exhausted and not self.stop.is_set():
            self.stop.set("exhausted", self.endings.exhausted)
        record, shares = plan.record, {}
        try:
            study = load_study(self.storage, self.settings.study)  # anew: what finished trials gained since
            record, shares = records.study_record(study), importances(study)
        except StorageInternalError as error:
            # A display must end nevertheless.
            self.error = self.error or error
        ended = SearchEnded(
            reason=self.stop.reason,
            message=self.stop.message,
            seconds=time.monotonic() - started,
            expected_seconds=plan.expected_seconds,
            record=record,
            importances=shares,
        )
        self.observers.study_ended(ended)
        self._raise_errors()
        return ended

    def _plan(self, deadline: float | None) -> SearchStarted:
        settings = self.settings
        record = records.study_record(self.study)
        counted = self._counted()
        confirmations = settings.confirm * SEEDS
        if counted >= settings.trials:  # perhaps they are done, too
            trials = self.study.get_trials(deepcopy=False)
            confirmations = len(missing_repetitions(self.objective, trials, settings.confirm))
        return SearchStarted(
            study=settings.study,
            definition=self.definition.name,
            fidelity=settings.fidelity,
            trials=settings.trials,
            counted=counted,
            taken_up=self.taken_up,
            workers=self.pool.size,
            device=settings.device,
            timeout=settings.timeout,
            expected_seconds=expected_seconds(
                record,
                trials=settings.trials,
                fidelity=settings.fidelity,
                workers=self.pool.size,
                pruner=settings.pruner,
                typical_epoch=self._typical_epoch_seconds(record, deadline),
                confirmations=confirmations,
            ),
            expected_bytes=expected_bytes(settings.trials, settings.keep, record),
            record=record,
        )

    def _typical_epoch_seconds(self, record: records.StudyRecord, deadline: float | None) -> float | None:
        """Measured only where the study's own trials don't tell how long others take."""
        if has_timings(record) or self._counted() >= self.settings.trials:
            return None
        return typical_epoch_seconds(
            self.definition,
            self.pool,
            data=self.objective.data,
            fidelity=self.settings.fidelity,
            max_macs=self.settings.max_macs,
            device=self.settings.device,
            precision=self.settings.precision,
            interrupted=lambda: self._shall_stop(deadline),
        )

    def _shall_stop(self, deadline: float | None) -> bool:
        if deadline is not None and time.monotonic() >= deadline:
            self.stop.set("timeout", "the time is up")
        return self.stop.is_set()

    def _confirm(self, deadline: float | None) -> None:
        """Trains the best trials again; the deadline and signals end that, too."""
        trials = self.storage.get_all_trials(self.study._study_id, deepcopy=False)
        repetitions = missing_repetitions(self.objective, trials, self.settings.confirm)
        if not repetitions:
            return
        confirmation = Confirmation(self.objective, repetitions)

        def work() -> None:
            with contextlib.suppress(TrainingInterrupted):
                confirmation.work()

        self._in_threads(work, deadline)

    # ---- The main thread -------------------------------------------------------------------------------

    def _in_threads(self, work: Callable[[], None], deadline: float | None) -> None:
        """Runs `work` in a thread a worker, and passes events on until all threads have ended.

        Interrupts the pool when the search shall stop.
        """

        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # any thread's end is the search's end, and must be told
                with self.lock:
                    self.error = self.error or error
                self.stop.set("failures", str(error))
            finally:
                with self.lock:
                    self.lock.notify_all()

        threads = [
            threading.Thread(target=guarded, name=f"trial-{i}", daemon=True) for i in range(self.pool.size)
        ]
        for thread in threads:
            thread.start()
        interrupted = woken = False
        while any(thread.is_alive() for thread in threads):
            if self._shall_stop(deadline) and not interrupted:
                interrupted = True
                self.pool.interrupt()
                self.storage.outage.stop_waiting()
            # Not waited for: whoever draws a trial holds it, and may wait for an absent server.
            if interrupted and not woken and self.lock.acquire(blocking=False):
                woken = True
                self.lock.notify_all()
                self.lock.release()
            self._pass_on_events(wait=TICK_SECONDS)
            self.observers.tick()
        for thread in threads:
            thread.join()
        self._pass_on_events()
        self.observers.tick()

    def _pass_on_events(self, wait: float = 0.0) -> None:
        try:
            self._pass_on(self.events.get(timeout=wait) if wait else self.events.get_nowait())
            while True:
                self._pass_on(self.events.get_nowait())
        except queue.Empty:
            return

    def _pass_on(self, event: Event) -> None:
        if isinstance(event, TrialStarted):
            self.observers.trial_started(event)
        elif isinstance(event, EpochEvent):
            self.observers.epoch(event.number, event.result)
        elif isinstance(event, Confirmed):
            self.observers.confirmed(event.number, event.value)
        else:
            self.observers.trial_ended(event.record)

    def _raise_errors(self) -> None:
        if self.error is not None:
            raise self.error

    # ---- The threads of the workers --------------------------------------------------------------------

    def _work(self) -> None:
        while (proposal := self._next()) is not None:
            try:
                with self.storage.in_training(proposal.trial._trial_id):
                    ended = self.objective.train(proposal)
            finally:
                with self.lock:
                    self.in_training.discard(proposal.trial._trial_id)
                    self.lock.notify_all()
            with self.lock:
                self._ended(ended)

    def _next(self) -> Proposal | None:
        """The next trial to train, or None when the search is over for this thread."""
        with self.lock:
            while not self.stop.is_set() and not self.endings.exhausted:
                sampler = self.study.sampler
                no_more = isinstance(sampler, GridSampler) and sampler.is_exhausted(self.study)
                trials = self.study.get_trials(deepcopy=False)
                outcomes = Counter(records.outcome(trial) for trial in trials)
                counted, running = outcomes["complete"] + outcomes["pruned"], outcomes["running"]
                if counted >= self.settings.trials or (no_more and not running):
                    return None
                result = None
                if not no_more and counted + running < self.settings.trials:
                    uncounted = len(trials) - outcomes["waiting"] - counted - running
                    result = self._propose(self.settings.trials + uncounted)
                if isinstance(result, Proposal):
                    self.endings.trial_begins()
                    self.in_training.add(result.trial._trial_id)
                    return result
                if result is not None:
                    self._ended(result)
                    continue
                # A running trial, of whatever process, may turn out not to count; then another one is needed.
                self._take_up(trials)
                self.lock.wait(timeout=1.0)
            return None

    def _propose(self, begun: int) -> Proposal | FrozenTrial | None:
        """What `Objective.propose` gives; None where other processes have begun so many trials meanwhile."""
        try:
            with self.storage.room_for(begun):
                return self.objective.propose()
        except NoRoomError:
            return None

    def _take_up(self, trials: Sequence[FrozenTrial]) -> None:
        """Sets trials back to waiting that nobody trains, so that this search waits for none of them.

        Their process has died; or it is this one, and the database's answer to its asking was lost.
        """
        take_up_interrupted(self.study, self.storage)
        for trial in trials:
            is_own = trial.user_attrs.get(records.OWNER) == self.storage.owner
            if records.outcome(trial) == "running" and is_own and trial._trial_id not in self.in_training:
                self.objective.set_back(trial._trial_id)

    def _counted(self) -> int:
        return sum(records.is_counted(trial) for trial in self.study.get_trials(deepcopy=False))

    def _ended(self, trial: FrozenTrial) -> None:
        """Looks whether a trial's end is the search's end, too."""
        self.endings.trial_ended(trial)
        if self.endings.failed:
            self.stop.set("failures", self.endings.failed)
