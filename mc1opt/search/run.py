"""A search from start to end: open, take up, ask, train, tell, stop.

One thread per worker loops *ask, train, tell*; the main thread passes events on to the observers and waits
for a stop: a signal, the deadline, nothing new, too many failures. `study.optimize` is not used, because its
totals are not exact and it loses interrupted trials; see DESIGN, section 3.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable

import optuna
from optuna.exceptions import StorageInternalError
from optuna.samplers import GridSampler
from optuna.trial import FrozenTrial

from mc1opt.database import records, study_attributes
from mc1opt.database.heartbeat import Heartbeat
from mc1opt.database.identity import make_own
from mc1opt.database.interrupted import take_up_interrupted, take_up_unanswered
from mc1opt.database.location import checkpoints_folder
from mc1opt.database.opening import load_study
from mc1opt.database.ownership import NoRoomError, alive
from mc1opt.database.retry import DatabaseError
from mc1opt.database.storage import StudyStorage
from mc1opt.database.trial_files import tidy
from mc1opt.dataset import DataSet
from mc1opt.search.confirm import (
    SEEDS,
    Confirmation,
    Repetition,
    missing_repetition,
    missing_repetitions,
)
from mc1opt.search.definition import StudyDefinition
from mc1opt.search.forecast import forecast
from mc1opt.search.importance import importances
from mc1opt.search.objective import Objective, Proposal
from mc1opt.search.observers import Observer, Observers, SearchEnded, SearchStarted
from mc1opt.search.plan import expected_bytes, expected_seconds, has_timings, typical_config
from mc1opt.search.settings import SearchSettings
from mc1opt.search.stop_conditions import StopConditions, enough
from mc1opt.search.study import open_study
from mc1opt.workers.pool import Pool
from mc1opt.workers.speed import epoch_seconds
from mc1opt.workers.stop import StopFlag
from mc1opt.workers.threads import run_crew


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
        definition: the study definition.
        settings: the settings of the search.
        storage: the study database, opened with this process as owner.
        data: the images.
        pool: the workers; its size is the number of trials at once. It is not closed.
        observers: receive the events.
        stop: ends the search when set, for example by a signal.

    Raises:
        UsageError: the study exists with another fidelity, data, seed or search space.
        StorageError: the database cannot be written.
    """
    try:
        with alive(storage.owner):
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
        self.definition = definition
        self.settings = settings
        self.pool = pool
        self.storage = storage
        self.observers = observers
        self.stop = stop
        self.lock = threading.Condition()
        self.enough = ""
        """Why `--patience` or `--until` has ended the search, or empty."""
        self.repeated: set[int] = set()
        """Numbers of trials that this process has trained again, or has left to another one."""
        self.study: optuna.Study = open_study(definition, settings, storage, data)
        self.conditions = StopConditions(self.study.get_trials(deepcopy=False), settings.max_failures)
        take_up_interrupted(self.study, storage)
        self.heartbeat = Heartbeat(self.study, storage)
        make_own(self.study, storage)
        name = study_attributes.study_folder_name(settings.study, self.study.user_attrs)
        folder = checkpoints_folder(storage.place) / name
        tidy(folder, self.study.get_trials(deepcopy=False), settings.keep)
        self.objective = Objective(
            definition, settings, self.study, storage, pool, data, folder, observers=observers
        )

    def run(self) -> SearchEnded:
        started = time.monotonic()
        self.stop.limit(self.settings.timeout)
        plan = self._plan()
        self.observers.emit(Observer.study_started, plan)
        self.observers.pass_on()
        failed: Exception | None = None
        record, shares, further = plan.record, {}, None
        try:
            with self.heartbeat:
                self._in_threads(self._work)
                if not self.stop.is_set():
                    self._confirm()
        except Exception as error:
            failed = error
        if self.conditions.exhausted:
            self.stop.set("exhausted", self.conditions.exhausted)
        if self.enough:
            self.stop.set("enough", self.enough)
        try:
            study = load_study(self.storage, self.settings.study)  # with what ended trials gained since
            record, shares = records.study_record(study), importances(study)
            if not self.conditions.exhausted and not self._no_more():
                further = forecast(record, self.pool.size)
        except StorageInternalError as error:
            failed = failed or error
        ended = SearchEnded(
            reason=self.stop.reason,
            message=self.stop.message,
            seconds=time.monotonic() - started,
            expected_seconds=plan.expected_seconds,
            record=record,
            importances=shares,
            forecast=further,
        )
        self.observers.emit(Observer.study_ended, ended)
        self.observers.pass_on()
        if failed is not None:  # only now: the display must end first
            raise failed
        return ended

    def _plan(self) -> SearchStarted:
        settings = self.settings
        record = records.study_record(self.study)
        outcomes = Counter(trial.outcome for trial in record.trials)
        counted = outcomes["complete"] + outcomes["pruned"]
        total = counted if self._enough(outcomes) else settings.trials
        confirmations = settings.confirm * SEEDS
        if counted >= total:  # some confirmations may be done as well
            trials = self.study.get_trials(deepcopy=False)
            confirmations = len(missing_repetitions(self.objective, trials, settings.confirm))
        return SearchStarted(
            study=settings.study,
            definition=self.definition.name,
            fidelity=settings.fidelity,
            trials=total,
            counted=counted,
            workers=self.pool.size,
            device=settings.device,
            timeout=settings.timeout,
            expected_seconds=expected_seconds(
                record,
                trials=total,
                fidelity=settings.fidelity,
                workers=self.pool.size,
                pruner=settings.pruner,
                typical_epoch=None if counted >= total else self._typical_epoch_seconds(record),
                confirmations=confirmations,
            ),
            expected_bytes=expected_bytes(total, settings.keep, record),
            max_macs=settings.max_macs,
            record=record,
        )

    def _typical_epoch_seconds(self, record: records.StudyRecord) -> float | None:
        """Measures an epoch of the typical config, unless the study's own trials have timings.

        Takes about 3 seconds on a CPU after the start of the workers, for which a search waits anyway.
        """
        if has_timings(record):
            return None
        return epoch_seconds(
            typical_config(self.definition, self.settings.max_macs, self.settings.aim),
            self.pool,
            data=self.objective.data,
            fidelity=self.settings.fidelity,
            device=self.settings.device,
            precision=self.settings.precision,
            threads=self.settings.threads,
            interrupted=self.stop.is_due,
        )

    def _confirm(self) -> None:
        """Trains the best trials again, until the deadline or a signal."""
        trials = self.study.get_trials(deepcopy=False)
        repetitions = missing_repetitions(self.objective, trials, self.settings.confirm)
        if repetitions:
            self._in_threads(Confirmation(self.objective, repetitions).work)

    def _in_threads(self, work: Callable[[], None]) -> None:
        """Runs `work` in one thread per worker, and passes events on until all threads have ended."""
        run_crew(work, self.pool, self.stop, self._tick)

    def _tick(self, seconds: float) -> None:
        if self.stop.is_set():
            self.storage.outage.stop_waiting()
            # Without blocking: a thread that draws a trial holds the lock, and may wait for an absent server.
            if self.lock.acquire(blocking=False):
                self.lock.notify_all()
                self.lock.release()
        self.observers.pass_on(seconds)

    # ---- The threads of the workers --------------------------------------------------------------------

    def _work(self) -> None:
        while (proposal := self._next()) is not None:
            if isinstance(proposal, Repetition):
                Confirmation(self.objective, [proposal]).work()
                continue
            try:
                ended = self.objective.train(proposal)
            finally:
                with self.lock:
                    self.storage.release(proposal.trial.id)
                    self.lock.notify_all()
            with self.lock:
                self._ended(ended)

    def _next(self) -> Proposal | Repetition | None:
        """The next trial to train, or again; None when this thread has nothing left to do."""
        with self.lock:
            while not self.stop.is_set() and not self.conditions.exhausted:
                no_more = self._no_more()
                trials = self.study.get_trials(deepcopy=False)
                if (again := missing_repetition(self.objective, self.repeated)) is not None:
                    self.repeated.add(again.number)
                    return again
                outcomes = Counter(records.outcome(trial) for trial in trials)
                counted, running = outcomes["complete"] + outcomes["pruned"], outcomes["running"]
                if counted >= self.settings.trials:
                    return None
                reached = self._enough(outcomes)
                if (no_more or reached) and not running:
                    self.enough = reached
                    return None
                result = None
                if not (no_more or reached) and counted + running < self.settings.trials:
                    uncounted = len(trials) - outcomes["waiting"] - counted - running
                    result = self._propose(self.settings.trials + uncounted)
                if isinstance(result, Proposal):
                    self.conditions.trial_begins()
                    self.storage.hold(result.trial.id)
                    return result
                if result is not None:
                    self._ended(result)
                    continue
                # A running trial of any process may turn out not to count, or to be the best: then others are
                # needed. Trials that no process trains any more are taken up here.
                take_up_interrupted(self.study, self.storage)
                take_up_unanswered(self.study, self.storage)
                self.lock.wait(timeout=1.0)
            return None

    def _no_more(self) -> bool:
        """Whether the sampler has nothing left to draw."""
        sampler = self.study.sampler
        return isinstance(sampler, GridSampler) and sampler.is_exhausted(self.study)

    def _enough(self, outcomes: Counter[records.Outcome]) -> str:
        """See `enough`. What waits comes first: a search that nothing interrupted would have trained it."""
        return "" if outcomes["waiting"] else enough(self.study, self.settings)

    def _propose(self, begun: int) -> Proposal | FrozenTrial | None:
        """See `Objective.propose`; None if other processes have meanwhile begun too many trials."""
        try:
            with self.storage.room_for(begun):
                return self.objective.propose()
        except NoRoomError:
            return None

    def _ended(self, trial: FrozenTrial) -> None:
        """Ends the search if too many trials in a row have failed."""
        self.conditions.trial_ended(trial)
        if self.conditions.failed:
            self.stop.set("failures", self.conditions.failed)
