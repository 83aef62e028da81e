"""The study database: Optuna's RDBStorage with a few atomic writes for several threads and processes.

A waiting trial is taken by compare-and-swap, together with its owner; an interrupted one is set back only if
its owner is still the dead one; and a process that was presumed dead finds out when it writes.

A SQLite file keeps its rollback journal. Write-ahead logging would let others read during a write, which
takes milliseconds; it would add two files without which the database is incomplete, and a bug that damages
databases in the SQLite of most Pythons (the WAL-reset bug, before 3.51.3).
"""

import contextlib
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import optuna
import sqlalchemy
from optuna._typing import JSONSerializable
from optuna.distributions import BaseDistribution, check_distribution_compatibility, json_to_distribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import TrialModel
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from mc1opt.database import statements
from mc1opt.database.commit import end_silent_sessions, make_commits_certain
from mc1opt.database.location import locked_database, server_arguments, sqlite_path, storage_url
from mc1opt.database.ownership import LostTrialError, NoRoomError
from mc1opt.database.records import CONFIG_ID, DUPLICATE_OF, OWNER
from mc1opt.database.retry import DatabaseError, Outage, retried, through_outages

BUSY_TIMEOUT_SECONDS = 20.0
"""Seconds that a statement waits for another process's lock on a SQLite file."""


class StudyStorage(RDBStorage):
    """Optuna's database storage, with an owner for each running trial.

    Args:
        place: a path or a URL; of `with_files` where `--files` was given.
        owner: owner of the trials that this process takes (`this_owner`); None for a process that only reads.
        threads: number of threads that use it, beside the main one and the heartbeat: a connection each.
    """

    def __init__(self, place: str, owner: dict[str, Any] | None, threads: int) -> None:
        self.place = place
        self.owner = owner
        self.outage = Outage(patient=owner is not None)
        self._in_training: set[int] = set()
        self._lock = threading.Lock()
        self._drawn = threading.local()
        self._noted = threading.local()
        self._room = threading.local()
        url = storage_url(place)
        is_sqlite = sqlite_path(url) is not None
        arguments = {"timeout": BUSY_TIMEOUT_SECONDS} if is_sqlite else server_arguments(url)
        options: dict[str, Any] = {"connect_args": arguments, "pool_pre_ping": not is_sqlite}
        options |= {"pool_size": threads + 2, "max_overflow": 0}
        # `inspected` has checked it; Optuna loads all its migrations for that, each time.
        super().__init__(url, engine_kwargs=options, skip_compatibility_check=True)
        if self.engine.dialect.name == "postgresql":
            make_commits_certain(self.engine, self.outage)
            end_silent_sessions(self.engine)

    # Optuna's methods that a search uses, with retries.
    get_all_studies = retried(RDBStorage.get_all_studies)
    get_study_id_from_name = retried(RDBStorage.get_study_id_from_name)
    get_study_name_from_id = retried(RDBStorage.get_study_name_from_id)
    get_study_directions = retried(RDBStorage.get_study_directions)
    get_trial = retried(RDBStorage.get_trial)
    _get_trials = retried(RDBStorage._get_trials)
    get_study_user_attrs = retried(RDBStorage.get_study_user_attrs)
    get_study_system_attrs = retried(RDBStorage.get_study_system_attrs)
    create_new_study = retried(RDBStorage.create_new_study)
    set_study_user_attr = retried(RDBStorage.set_study_user_attr)
    set_trial_user_attr = retried(RDBStorage.set_trial_user_attr)
    set_trial_system_attr = retried(RDBStorage.set_trial_system_attr)
    record_heartbeat = retried(RDBStorage.record_heartbeat)

    @through_outages  # Optuna itself retries while the file is locked
    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        """Creates a trial with its owner in one transaction: a kill in between would leave it ownerless."""
        if template_trial is None:
            template_trial = optuna.trial.create_trial(state=TrialState.RUNNING)
            template_trial.datetime_start = datetime.now()
            template_trial.user_attrs = {OWNER: self.owner}
        return super()._create_new_trial(study_id, template_trial)

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> TrialModel:
        self._require_room(session.connection(), study_id)
        return super()._get_prepared_new_trial(study_id, template_trial, session)

    @contextlib.contextmanager
    def room_for(self, begun: int) -> Iterator[None]:
        """Inside the block, this thread takes a trial only if fewer than `begun` of the study have begun.

        It counts and takes in one transaction: processes that count at the same time do not all take one.

        Args:
            begun: trials in any state but WAITING, of all processes.

        Raises:
            NoRoomError: from `ask`.
        """
        self._room.most = begun
        try:
            yield
        finally:
            self._room.most = None

    def _require_room(self, connection: sqlalchemy.Connection, study_id: int) -> None:
        most = getattr(self._room, "most", None)
        if most is not None:
            statements.one_after_the_other(connection, study_id)
            if statements.begun_trials(connection, study_id) >= most:
                raise NoRoomError

    @contextlib.contextmanager
    def writing_parameters_together(self) -> Iterator[None]:
        """Writes the parameters that this thread sets inside the block in one transaction at its end.

        A search space has some 25 parameters, and each transaction waits for the disk. A process that dies
        inside leaves a trial without parameters, which draws the same ones when it is taken up.

        Raises:
            ValueError: a parameter has another range than in earlier trials of mc1opt's in the study.
        """
        rows: list[Any] = []
        self._drawn.rows = rows
        try:
            yield
        finally:
            self._drawn.rows = None
            if rows:
                self._write_parameters(rows)

    @retried
    def _write_parameters(self, rows: list[Any]) -> None:
        with _create_scoped_session(self.scoped_session, True) as session:
            for trial_id, name, value, distribution, known in rows:
                # Optuna compares with any trial: a foreign one would make it refuse all of ours.
                before = known or _own_distribution(session.connection(), trial_id, name) or distribution
                self._set_trial_param_without_commit(session, trial_id, name, value, distribution, before)

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        row = (trial_id, param_name, param_value_internal, distribution, previous_distribution)
        rows = getattr(self._drawn, "rows", None)
        if rows is None:
            super()._set_trial_param(*row)
            return
        # Checked now: without an error, Optuna would compare later trials with this distribution.
        if previous_distribution is None:
            previous_distribution = self._read_own_distribution(trial_id, param_name)
        if previous_distribution is not None:
            check_distribution_compatibility(previous_distribution, distribution)
        rows.append(row)

    @retried
    def _read_own_distribution(self, trial_id: int, name: str) -> BaseDistribution | None:
        with self._transaction() as connection:
            return _own_distribution(connection, trial_id, name)

    @contextlib.contextmanager
    def writing_study_attributes_together(self) -> Iterator[None]:
        """Writes the study system attributes that this thread sets inside the block in one transaction.

        Unchanged ones are not written. optuna-dashboard stores notes and figures in pieces of 2,045
        characters: each would wait for the disk, and a reader in between would see pieces of two figures.
        Reads inside the block do not see the writes.
        """
        attributes: dict[tuple[int, str], Any] = {}
        self._noted.attributes = attributes
        try:
            yield
        finally:
            self._noted.attributes = None
        stored = {study: self.get_study_system_attrs(study) for study in {study for study, _ in attributes}}
        changed = {
            (study, key): value
            for (study, key), value in attributes.items()
            if key not in stored[study] or stored[study][key] != value
        }
        if changed:
            self._write_study_attributes(changed)

    @retried
    def _write_study_attributes(self, attributes: dict[tuple[int, str], Any]) -> None:
        with self._transaction() as connection:
            for (study, key), value in attributes.items():
                statements.write_study_attribute(connection, study, key, value)

    @retried
    def set_study_system_attr(self, study_id: int, key: str, value: JSONSerializable) -> None:
        """As Optuna's, but see `writing_study_attributes_together`."""
        attributes = getattr(self._noted, "attributes", None)
        if attributes is None:
            super().set_study_system_attr(study_id, key, value)
        else:
            attributes[study_id, key] = value

    @retried
    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """As Optuna's, for a trial of this process.

        Raises:
            LostTrialError: the trial now belongs to another process.
        """
        with _create_scoped_session(self.scoped_session, True) as session:
            self._require_own(session.connection(), trial_id)
            self._set_trial_intermediate_value_without_commit(session, trial_id, step, intermediate_value)

    @retried
    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna's, but WAITING -> RUNNING is one transaction that also sets the owner.

        Optuna reads the state and then writes it; on SQLite, which has no SELECT FOR UPDATE, two processes
        that read WAITING at the same time would both train the trial.

        Raises:
            LostTrialError: a trial to end now belongs to another process.
        """
        if state == TrialState.RUNNING and trial_id in self._in_training:
            # Set back because this process was silent, while a thread of it still trains the trial. That
            # thread finds out when it writes, but not if this process became the owner again.
            return False
        if state != TrialState.RUNNING:
            with _create_scoped_session(self.scoped_session) as session:
                self._require_own(session.connection(), trial_id)
                # The same transaction: sessions are per thread.
                return super().set_trial_state_values(trial_id, state, values)
        now = datetime.now(UTC).replace(tzinfo=None)
        with self._transaction() as connection:
            self._require_room(connection, statements.study_of(connection, trial_id))
            if statements.begin(connection, trial_id, now):
                statements.write_attribute(connection, trial_id, OWNER, self.owner)
                return True
        if self.get_trial(trial_id).state.is_finished():
            raise UpdateFinishedTrialError(f"trial {trial_id} is finished")
        return False

    def hold(self, trial_id: int) -> None:
        """Notes that a thread of this process trains the trial; until `release` it is not taken again."""
        with self._lock:
            self._in_training.add(trial_id)

    def release(self, trial_id: int) -> None:
        """Notes that no thread of this process trains the trial any more."""
        with self._lock:
            self._in_training.discard(trial_id)

    def trials_in_training(self) -> list[int]:
        """The ids of the trials that this process is training."""
        with self._lock:
            return sorted(self._in_training)

    @retried
    def set_back_to_waiting(
        self, trial_id: int, expected_owner: dict[str, Any] | None, attributes: dict[str, Any]
    ) -> bool:
        """RUNNING -> WAITING with `attributes` in one transaction, if the owner is still `expected_owner`.

        Returns whether it was: of several processes only the first one succeeds.
        """
        with self._transaction() as connection:
            if not statements.change_owner(connection, trial_id, expected_owner, None):
                return False
            if not statements.set_back(connection, trial_id):
                connection.rollback()
                return False
            for key, value in attributes.items():
                statements.write_attribute(connection, trial_id, key, value)
        return True

    @retried
    def take_over(self, trial_id: int, expected_owner: dict[str, Any] | None) -> bool:
        """Makes this process the owner, if the owner is still `expected_owner`; returns whether it was."""
        with self._transaction() as connection:
            return statements.change_owner(connection, trial_id, expected_owner, self.owner)

    @retried
    def set_user_attributes(self, trial_id: int, attributes: dict[str, Any]) -> None:
        """Writes user attributes of any trial in one transaction."""
        with self._transaction() as connection:
            for key, value in attributes.items():
                statements.write_attribute(connection, trial_id, key, value)

    @retried
    def set_own_attributes(self, trial_id: int, attributes: dict[str, Any]) -> None:
        """Writes user attributes of a trial of this process in one transaction.

        Raises:
            LostTrialError: the trial now belongs to another process.
        """
        with self._transaction() as connection:
            self._require_own(connection, trial_id)
            for key, value in attributes.items():
                statements.write_attribute(connection, trial_id, key, value)

    @retried
    def claim_config(
        self, trial_id: int, attributes: dict[str, Any], passed_over: Container[int] = ()
    ) -> int | None:
        """Writes attributes of a trial of this process, its config id among them, and its original if any.

        One transaction: of two processes that have drawn the same config one is first, and a process that
        dies leaves no trial that is taken for the original of its own original.

        Args:
            trial_id: the trial's id.
            attributes: user attributes to write.
            passed_over: ids of foreign trials, which are never the original.

        Returns:
            The number of the other trial of the study that trains or trained this config; None without one.
            Neither a FAIL nor a duplicate counts.

        Raises:
            LostTrialError: the trial now belongs to another process.
        """
        with self._transaction() as connection:
            study_id = statements.study_of(connection, trial_id)
            statements.one_after_the_other(connection, study_id)
            self._require_own(connection, trial_id)
            config = attributes[CONFIG_ID]
            original = statements.original_of(connection, study_id, trial_id, config, passed_over)
            connection.execute(  # an interrupted attempt may have had another original
                sqlalchemy.text("DELETE FROM trial_user_attributes WHERE trial_id = :trial AND key = :key"),
                {"trial": trial_id, "key": DUPLICATE_OF},
            )
            mark = {} if original is None else {DUPLICATE_OF: original}
            for key, value in (attributes | mark).items():
                statements.write_attribute(connection, trial_id, key, value)
        return original

    @retried
    def change_user_attribute(self, trial_id: int, key: str, change: Callable[[Any], Any]) -> None:
        """Replaces a user attribute of any trial by `change` of it (None if missing), in one transaction.

        Concurrent writes of other processes are not lost.
        """
        with self._transaction() as connection:
            value = change(statements.read_attribute(connection, trial_id, key))
            statements.write_attribute(connection, trial_id, key, value)

    @retried
    def heartbeats(self, study_id: int) -> dict[int, str]:
        """The last heartbeat of each running trial that has one, by trial id: a time as text.

        Only its changes are meaningful: clocks of two machines differ, and jump.
        """
        with self._transaction() as connection:
            return statements.heartbeats(connection, study_id)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lets one process at a time create a study with all its parts, on SQLite and PostgreSQL."""
        try:
            with locked_database(self.url):
                yield
        except SQLAlchemyError as error:
            raise DatabaseError(error) from error

    def _require_own(self, connection: sqlalchemy.Connection, trial_id: int) -> None:
        """Locks the trial's owner until the end of the transaction.

        Raises:
            LostTrialError: the trial now belongs to another process.
        """
        if not statements.change_owner(connection, trial_id, self.owner, self.owner):
            raise LostTrialError(f"trial {trial_id} belongs to another process")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlalchemy.Connection]:
        """A transaction that raises Optuna's errors instead of SQLAlchemy's."""
        try:
            with self.engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StorageInternalError(str(error)) from error


def _own_distribution(connection: sqlalchemy.Connection, trial_id: int, name: str) -> BaseDistribution | None:
    """The distribution of a parameter in another trial of mc1opt's; None without one."""
    stored = statements.own_distribution(connection, trial_id, name)
    return None if stored is None else json_to_distribution(stored)
