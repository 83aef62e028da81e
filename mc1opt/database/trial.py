"""A trial that this process runs, and access to ids and system attributes that Optuna keeps private."""

from collections.abc import Iterable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from mc1opt.database import records
from mc1opt.database.ownership import LostTrialError
from mc1opt.database.storage import StudyStorage


def as_stored(study: optuna.Study, trial: FrozenTrial) -> FrozenTrial:
    """A trial with what was stored after its end, which Optuna's cache of ended trials lacks."""
    storage = getattr(study._storage, "_backend", study._storage)
    return storage.get_trial(trial._trial_id)


class OwnTrial:
    """A trial that this process runs: all writes from asking to telling.

    Each write raises `LostTrialError` once the trial belongs to another process or was ended from outside.

    Args:
        asked: the trial that Optuna's `ask` returned, for search space and pruner.
        storage: the study database, with this process as owner.
    """

    def __init__(self, asked: optuna.Trial, storage: StudyStorage) -> None:
        self.asked = asked
        self.number = asked.number
        self.id = asked._trial_id
        self._storage = storage
        self._reported = dict(asked._cached_frozen_trial.intermediate_values)

    def stored(self) -> FrozenTrial:
        """The trial as stored."""
        return self._storage.get_trial(self.id)

    def write(self, attributes: Mapping[str, Any]) -> None:
        """Writes user attributes in one transaction."""
        self._storage.set_own_attributes(self.id, dict(attributes))

    def claim_config(self, attributes: Mapping[str, Any]) -> bool:
        """Writes user attributes, the config id among them; returns whether the config is new to the study.

        See `StudyStorage.claim_config`.
        """
        trials = self.asked.study.get_trials(deepcopy=False)
        foreign = {other._trial_id for other in trials if records.foreign(other)}
        return self._storage.claim_config(self.id, dict(attributes), foreign) is None

    def set_constraint(self, key: str, violation: float) -> None:
        """Sets a constraint, unless an interrupted attempt has set it."""
        if key not in self.stored().constraints:
            self.asked.set_constraint(key, violation)

    def report(self, value: float, epoch: int) -> bool:
        """Reports the value of an epoch, once.

        An interrupted trial reports some epochs again. Different values are replaced: on a GPU, repeated
        training may differ in the last bits.

        Returns:
            Whether to ask the pruner. It was asked before if a later epoch was reported, and kept the trial.
        """
        before = self._reported.get(epoch)
        if before is None:
            self.asked.report(value, epoch)
        elif before != value:
            self._storage.set_trial_intermediate_value(self.id, epoch, value)
            self.asked._cached_frozen_trial.intermediate_values[epoch] = value  # what the pruner is shown
        self._reported[epoch] = value
        return epoch == max(self._reported)

    def tell(self, value: float | None = None, state: TrialState | None = None) -> FrozenTrial:
        """Ends the trial; returns it as stored."""
        try:
            self.asked.study.tell(self.asked, value, state=state)
        except ValueError as error:
            # Optuna checks the state before it writes, and so before the storage checks the owner.
            if self.stored().state == TrialState.RUNNING:
                raise
            raise LostTrialError(f"trial {self.number} is no longer running") from error
        return self.stored()

    def set_back(self) -> FrozenTrial:
        """Sets the trial back to waiting, so that it is asked for again; returns it as stored."""
        times = self.stored().user_attrs.get(records.INTERRUPTED, 0) + 1
        self._storage.set_back_to_waiting(self.id, self._storage.owner, {records.INTERRUPTED: times})
        return self.stored()


def trial_id(trial: FrozenTrial) -> int:
    """A trial's id in its database."""
    return trial._trial_id


def study_id(study: optuna.Study) -> int:
    """A study's id in its database."""
    return study._study_id


def frozen(trial: optuna.Trial) -> FrozenTrial:
    """A trial as stored."""
    return trial.study._storage.get_trial(trial._trial_id)


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a distribution can give a value."""
    return bool(distribution._contains(distribution.to_internal_repr(value)))


def trials_by_id(study: optuna.Study, ids: Iterable[int]) -> dict[int, optuna.Trial]:
    """The study's trials among these ids, writable."""
    own = {trial._trial_id for trial in study.get_trials(deepcopy=False)}
    return {each: optuna.Trial(study, each) for each in sorted(own.intersection(ids))}


def system_attributes(study: optuna.Study) -> dict[str, Any]:
    """A study's system attributes."""
    return study._storage.get_study_system_attrs(study._study_id)


def set_system_attributes(study: optuna.Study, trial: FrozenTrial, attributes: Mapping[str, Any]) -> None:
    """Writes system attributes of a trial."""
    for key, value in attributes.items():
        study._storage.set_trial_system_attr(trial._trial_id, key, value)
