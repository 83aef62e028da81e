"""What optuna-dashboard shows of a study beside Optuna's plots: notes, figures, files of the best trials.

All of it is derived from stored records and kept in the study database and the artifacts folder, where the
dashboard reads it. `update_dashboard` brings it up to date; `DashboardWriter` does so during a search, in its
own thread, so that nothing waits for it.
"""

import contextlib
import math
import re
import threading
import time
from collections.abc import Callable, Mapping

import optuna
from optuna.trial import FrozenTrial

from mc1opt.config import config_from_json
from mc1opt.dashboard.files import keep_files, retraining_files, trial_files
from mc1opt.dashboard.notes import best_trials, merged_note, study_note, trial_note
from mc1opt.database import records
from mc1opt.database.artifacts import artifacts_folder
from mc1opt.database.opening import load_study, open_storage
from mc1opt.database.records import TrialRecord, study_record
from mc1opt.database.storage import StudyStorage
from mc1opt.database.trial import study_id, system_attributes, trial_id, trials_by_id
from mc1opt.describe import describe_config
from mc1opt.display.figures import study_figures
from mc1opt.errors import ConfigError
from mc1opt.inference.retrained import retrained_model
from mc1opt.measurement.final_test import misclassified_path
from mc1opt.search.observers import Observer, SearchEnded, SearchStarted

SHARE = 0.01
"""Largest share of a search's time spent on writing, in CPU seconds; first and last write are exempt."""
LEAST_SECONDS = 20.0
"""Seconds of searching before the first write. `mc1opt dashboard` writes the pages of shorter searches when
it starts: importing the plotting libraries takes a second or two."""
EVERY = 5
"""Complete or pruned trials between two writes; a new best trial is written sooner."""
LAST_SECONDS = 60.0
"""Seconds that the end of a search waits for the last write."""
_NOTE = re.compile(r"dashboard:(\d+):note_str:0")
"""System attribute of a study with the beginning of the note on a trial, by the trial's id."""


def study_page(study: optuna.Study) -> str:
    """The path of a study's page in the dashboard."""
    return f"/dashboard/studies/{study_id(study)}"


# ---- Bringing up to date ---------------------------------------------------------------------------------


def update_dashboard(storage: str, study: str) -> None:
    """Brings all that the dashboard shows of a stored study up to date; rewrites only what changed.

    Args:
        storage: the study database, a path or a URL.
        study: the name of a study.

    Raises:
        StorageError: there is no such database or study.
    """
    database = open_storage(storage, create=False)
    stored = load_study(database, study)
    update_study(stored, database, storage)
    for trial in records.own_trials(stored):
        _mark(trial, database)


def _mark(trial: FrozenTrial, database: StudyStorage) -> None:
    """Adds outcome and summary, for people, to a trial of an older mc1opt."""
    config = trial.user_attrs.get(records.CONFIG)
    if config is None or not trial.state.is_finished() or records.OUTCOME in trial.user_attrs:
        return
    with contextlib.suppress(ConfigError):  # of a newer mc1opt
        summary = describe_config(config_from_json(config))
        attributes = {records.OUTCOME: records.outcome(trial), records.SUMMARY: summary}
        database.set_user_attributes(trial_id(trial), attributes)


def update_or_warn(storage: str, study: str, warn: Callable[[str], None]) -> None:
    """As `update_dashboard`, but errors become warnings."""
    try:
        update_dashboard(storage, study)
    except Exception as error:
        warn(f"Warning: the dashboard's notes and figures of study {study!r} are not up to date: {error}")


def update_study(study: optuna.Study, database: StudyStorage, storage: str) -> None:
    """As `update_dashboard`, for an open study.

    Args:
        study: the study, on `database`.
        database: the opened study database.
        storage: its path or URL.
    """
    from optuna_dashboard import save_plotly_graph_object
    from plotly.graph_objects import Figure

    record = study_record(study)
    ids = {trial.number: trial_id(trial) for trial in study.get_trials(deepcopy=False)}
    model = retrained_model(storage, record)
    found = model.found if model else None
    shown = {trial.number: trial for trial in best_trials(record)}
    shown |= {trial.number: trial for trial in record.trials if found and trial.number == found.trial}
    with database.writing_study_attributes_together():
        for name, figure in study_figures(record).items():
            save_plotly_graph_object(study, Figure(figure), graph_object_id=name)
        files = {ids[number]: trial_files(trial, record.metric) for number, trial in shown.items()}
        if model:
            wrong = misclassified_path(model.folder.path, model.folder.weights_sha256)
            files[ids[model.found.trial]] += retraining_files(model.folder.metrics, wrong)
        keep_files(study, artifacts_folder(storage), files)
    # Last and apart: a person must have no time to change a note between its reading and its writing.
    with database.writing_study_attributes_together():
        _write_note(study, study_note(record, storage=storage, page=study_page(study), found=found))
        _write_trial_notes(
            study,
            {
                ids[number]: trial_note(record, trial, storage=storage, found=found)
                for number, trial in shown.items()
            },
        )


def _write_trial_notes(study: optuna.Study, notes: Mapping[int, str]) -> None:
    """Writes the notes on trials, by their ids, and removes ours from trials that have left the best."""
    stored = system_attributes(study)
    begun = [match for key, text in stored.items() if text and (match := _NOTE.fullmatch(key))]
    # A copy of a study also carries the notes on the original's trials.
    ids = notes.keys() | {int(match.group(1)) for match in begun}
    for number, trial in trials_by_id(study, ids).items():
        _write_note(trial, notes.get(number, ""))


def _write_note(owner: optuna.Study | optuna.Trial, note: str) -> None:
    from optuna_dashboard import get_note, save_note

    stored = get_note(owner)
    merged = merged_note(stored, note)
    if merged != stored:
        save_note(owner, merged)


# ---- During a search -------------------------------------------------------------------------------------


class DashboardWriter(Observer):
    """Keeps a study's pages up to date during a search.

    Writes after the first complete or pruned trial, after every fifth and each new best one as long as all
    writes have taken less than 1 % of the search's time, and at the end; never in a search of a few seconds.

    Args:
        storage: the study database, a path or a URL.
        now: monotonic clock, in seconds.
        busy: CPU seconds of the calling thread. While it waits, the trainings go on.
    """

    def __init__(
        self,
        storage: str,
        now: Callable[[], float] = time.monotonic,
        busy: Callable[[], float] = time.thread_time,
    ) -> None:
        self._storage = storage
        self._now = now
        self._busy = busy
        self._name = ""
        self._database: StudyStorage | None = None
        self._study: optuna.Study | None = None
        self._started = now()
        self._spent = 0.0
        self._writes = 0
        self._best = -math.inf  # a score
        self._trials = 0  # since the last write
        self._better = False
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def study_started(self, search: SearchStarted) -> None:
        """See `Observer`."""
        self._name = search.study
        self._started = self._now()
        self._best = -math.inf if search.record.best is None else search.record.best.score

    def trial_ended(self, trial: TrialRecord) -> None:
        """See `Observer`."""
        self._trials += trial.outcome in ("complete", "pruned")
        if trial.score > self._best:
            self._best = trial.score
            self._better = True

    def tick(self) -> None:
        """See `Observer`."""
        self._raise_error()
        if self._is_due():
            self._start(anew=False)

    def study_ended(self, search: SearchEnded) -> None:
        """See `Observer`."""
        if self._now() - self._started < LEAST_SECONDS:
            return
        deadline = time.monotonic() + LAST_SECONDS
        self._wait(deadline)
        self._start(anew=True)
        self._wait(deadline)
        self._raise_error()

    def update(self, *, anew: bool) -> None:
        """As `update_dashboard`, over one connection for all updates.

        Args:
            anew: whether to read finished trials again, which may have been confirmed since.
        """
        if self._database is None:
            self._database = open_storage(self._storage, create=False)
        if self._study is None or anew:
            self._study = load_study(self._database, self._name)
        update_study(self._study, self._database, self._storage)

    def _is_due(self) -> bool:
        seconds = self._now() - self._started
        if seconds < LEAST_SECONDS or (self._thread is not None and self._thread.is_alive()):
            return False
        if self._writes == 0:
            return self._trials > 0
        if self._trials < EVERY and not self._better:
            return False
        return self._spent <= SHARE * seconds

    def _start(self, *, anew: bool) -> None:
        self._trials, self._better = 0, False
        self._writes += 1
        self._thread = threading.Thread(target=self._write, args=(anew,), name="dashboard", daemon=True)
        self._thread.start()

    def _write(self, anew: bool) -> None:
        before = self._busy()
        try:
            self.update(anew=anew)
        except Exception as error:  # becomes a warning in the thread of the observers
            self._error = error
        self._spent += self._busy() - before

    def _wait(self, deadline: float) -> None:
        if self._thread is None:
            return
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            raise TimeoutError(
                f"the dashboard's notes and figures were not written within {LAST_SECONDS:.0f} s; "
                "`mc1opt dashboard` writes them when it starts"
            )

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
