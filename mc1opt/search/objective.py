"""One trial: ask, config, train, report, prune, tell.

Two halves, because they need different care. `propose` draws a config and settles what needs no training
(too large, infeasible, a duplicate); it must run under the search's lock, so that draws come one by one.
`train` has a worker train the config and tells the outcome; it runs in as many threads as there are workers.
"""

import contextlib
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from mc1opt.config import Config, config_id, config_to_json
from mc1opt.database import records
from mc1opt.database.ownership import LostTrialError
from mc1opt.database.storage import StudyStorage
from mc1opt.database.trial_files import checkpoint_path, keep_best_weights, weights_path
from mc1opt.describe import describe_config
from mc1opt.errors import StudyFileError, WorkerError
from mc1opt.files import remove_checkpoint
from mc1opt.machine.environment import commit, versions
from mc1opt.models.cost import cost
from mc1opt.search.definition import StudyDefinition
from mc1opt.search.observers import TrialStarted
from mc1opt.search.storable import given_values
from mc1opt.seeds import derive_seed
from mc1opt.spec import (
    CAUSED_BY_CONFIG,
    DataSet,
    Device,
    EpochResult,
    Fidelity,
    Precision,
    Training,
    TrainingFailed,
)
from mc1opt.workers.pool import Pool
from mc1opt.workers.protocol import TrainingInterrupted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochEvent:
    """A trial has trained an epoch."""

    number: int
    result: EpochResult


@dataclass(frozen=True)
class TrialEnded:
    """A trial is in its last state, or set back to waiting."""

    record: records.TrialRecord


@dataclass(frozen=True)
class Confirmed:
    """A trial's config was trained again with a new seed."""

    number: int
    value: float | None
    """Validation accuracy; None where the training failed."""


Event = TrialStarted | EpochEvent | TrialEnded | Confirmed


@dataclass(frozen=True)
class Proposal:
    """A trial that is to be trained."""

    trial: optuna.Trial
    training: Training
    summary: str


@dataclass(frozen=True)
class Objective:
    """What all trials of a search have in common.

    Args:
        definition: what to search.
        study: the Optuna study, on `storage`.
        storage: the study database.
        pool: who trains.
        data: what on.
        fidelity: how much.
        study_seed: which trial seeds are derived from.
        device: where.
        precision: what is computed in.
        max_macs: multiply-accumulates an image, above which a network is too large.
        weights_folder: where the weights of the best trials are kept, and the checkpoints of running ones.
        keep: how many of the best trials keep their weights (`keep_best_weights`).
        checkpoint_seconds: how often a running trial's state is written, at most.
        emit: is called with what happens, from any thread.
    """

    definition: StudyDefinition
    study: optuna.Study
    storage: StudyStorage
    pool: Pool
    data: DataSet
    fidelity: Fidelity
    study_seed: int
    device: Device
    precision: Precision
    max_macs: int
    weights_folder: Path
    keep: int
    checkpoint_seconds: float
    emit: Callable[[Event], None]

    def propose(self) -> Proposal | FrozenTrial:
        """Asks for a trial and gives it a config; a trial that needs no training is ended at once.

        Returns:
            What to train, or the trial that has ended.

        Raises:
            NoRoomError: see `StudyStorage.room_for`.
        """
        trial = self.study.ask()
        try:
            return self._propose(trial)
        except (LostTrialError, UpdateFinishedTrialError):
            return self._lost(trial)

    def _propose(self, trial: optuna.Trial) -> Proposal | FrozenTrial:
        if (told := trial.user_attrs.get(records.FAILURE)) is not None:
            # It had failed, and the process died before it could tell.
            return self._fail(trial, TrainingFailed(told["kind"], told["message"]))
        seed = derive_seed(self.study_seed, trial.number)
        attributes: dict[str, Any] = {
            records.SEED: seed,
            records.FIDELITY: self.fidelity.model_dump(),
            records.DATA: {"name": self.data.name, "sha256": self.data.sha256},
            records.DEVICE: self.device,
            records.VERSIONS: versions(1, self.precision, self.device),
            records.COMMIT: commit(),
        }
        try:
            with self.storage.writing_parameters_together():
                config = self.definition.config(trial)
        except optuna.TrialPruned as reason:
            attributes |= {records.INFEASIBLE: str(reason)} | _outcome("infeasible")
            return self._tell_untrained(trial, attributes, records.INFEASIBLE, 1.0)
        except (StudyFileError, ValueError) as error:
            self.storage.set_own_attributes(trial._trial_id, attributes)
            return self._fail(trial, TrainingFailed("search_space", str(error)))
        _warn_of_no_effect(trial)
        size = cost(config.architecture)
        identity = config_id(config)
        attributes |= {
            records.CONFIG: config_to_json(config),
            records.CONFIG_ID: identity,
            records.PARAMETERS: size.parameters,
            records.MACS: size.macs,
            records.SUMMARY: describe_config(config),
        }
        if size.macs > self.max_macs:
            # How much too large, so that TPE can rank what it must avoid.
            excess = size.macs / self.max_macs - 1.0
            return self._tell_untrained(trial, attributes | _outcome("too_large"), records.TOO_LARGE, excess)
        others = self.study.get_trials(deepcopy=False)
        passed_over = {other._trial_id for other in others if records.foreign(other)}
        if self.storage.claim_config(trial._trial_id, attributes, passed_over) is not None:
            self.storage.set_own_attributes(trial._trial_id, _outcome("duplicate"))
            return self._tell(trial, state=TrialState.PRUNED)
        accumulation = trial.user_attrs.get(records.ACCUMULATION, 1)
        training = self._training(trial.number, seed, config, accumulation)
        return Proposal(trial, training, attributes[records.SUMMARY])

    def train(self, proposal: Proposal) -> FrozenTrial:
        """Trains a proposal to its end, to the pruner's verdict or to an interruption, and tells it.

        One that another process has taken over meanwhile, because it took this one for dead, is left to that
        process.
        """
        self.emit(TrialStarted(proposal.trial.number, proposal.summary))
        try:
            return self._train(proposal.trial, proposal.training)
        except (LostTrialError, UpdateFinishedTrialError):
            return self._lost(proposal.trial)
        except WorkerError:
            # The world's fault: the trial waits until a worker can be started again.
            self.set_back(proposal.trial._trial_id)
            raise

    def _train(self, trial: optuna.Trial, training: Training) -> FrozenTrial:
        reports = _Reports(trial, self.fidelity.epochs, self.emit)
        try:
            finished = self.pool.train(training, reports.on_epoch)
        except TrainingInterrupted:
            return self.set_back(trial._trial_id)
        except TrainingFailed as failure:
            smaller = training.in_smaller_steps() if failure.kind == "out_of_memory" else None
            if smaller is not None:
                # Known before it begins: whoever takes the trial up trains it so.
                steps = {records.ACCUMULATION: smaller.accumulation}
                self.storage.set_own_attributes(trial._trial_id, steps)
                remove_checkpoint(checkpoint_path(self.weights_folder, trial.number))
                return self._train(trial, smaller)
            self.storage.set_own_attributes(trial._trial_id, reports.attributes())
            return self._fail(trial, failure)
        outcome = _outcome("complete" if finished else "pruned")
        self.storage.set_own_attributes(trial._trial_id, reports.attributes() | outcome)
        if not finished:
            return self._tell(trial, state=TrialState.PRUNED)
        ended = self._tell(trial, value=reports.results[-1].accuracy)
        trials = self.study.get_trials(deepcopy=False)
        keep_best_weights(self.weights_folder, trials, self.keep)
        return ended

    def _training(self, number: int, seed: int, config: Config, accumulation: int) -> Training:
        return Training(
            config=config,
            fidelity=self.fidelity,
            seed=seed,
            data=self.data,
            device=self.device,
            precision=self.precision,
            accumulation=accumulation,
            weights=str(weights_path(self.weights_folder, number)),
            checkpoint=str(checkpoint_path(self.weights_folder, number)),
            checkpoint_seconds=self.checkpoint_seconds,
        )

    def _lost(self, trial: optuna.Trial) -> FrozenTrial:
        stored = self.storage.get_trial(trial._trial_id)
        if stored.user_attrs.get(records.OWNER) == self.storage.owner:
            what = "was ended from outside"
        else:
            what = "was taken over by another process, which had not heard of this one for long"
        logger.warning("trial %d %s. What was trained of it here is dropped.", trial.number, what)
        self.emit(TrialEnded(records.trial_record(stored)))
        return stored

    def set_back(self, trial_id: int) -> FrozenTrial:
        """Sets a trial of this process back to waiting, so that it is asked for again."""
        stored = self.storage.get_trial(trial_id)
        times = stored.user_attrs.get(records.INTERRUPTED, 0) + 1
        self.storage.set_back_to_waiting(trial_id, self.storage.owner, {records.INTERRUPTED: times})
        return self._ended(trial_id)

    def _tell_untrained(
        self, trial: optuna.Trial, attributes: dict[str, Any], constraint: str, violation: float
    ) -> FrozenTrial:
        """Ends a trial that violates a constraint: without reports, so that TPE ranks it as infeasible."""
        self.storage.set_own_attributes(trial._trial_id, attributes)
        self._set_constraint(trial, constraint, violation)
        return self._tell(trial, state=TrialState.PRUNED)

    def _fail(self, trial: optuna.Trial, failure: TrainingFailed) -> FrozenTrial:
        what = {"kind": failure.kind, "message": failure.message}
        self.storage.set_own_attributes(trial._trial_id, {records.FAILURE: what} | _outcome("failed"))
        if failure.kind in CAUSED_BY_CONFIG:  # the sampler shall learn from it
            self._set_constraint(trial, records.FAILED, 1.0)
            return self._tell(trial, state=TrialState.PRUNED)
        return self._tell(trial, state=TrialState.FAIL)

    def _set_constraint(self, trial: optuna.Trial, key: str, value: float) -> None:
        """Sets a constraint that an interrupted attempt may have set before."""
        if key not in self.storage.get_trial(trial._trial_id).constraints:
            trial.set_constraint(key, value)

    def _tell(
        self, trial: optuna.Trial, *, value: float | None = None, state: TrialState | None = None
    ) -> FrozenTrial:
        try:
            self.study.tell(trial, value, state=state)
        except ValueError as error:
            # Optuna looks before it writes, and so before our storage can say whose trial it is.
            if self.storage.get_trial(trial._trial_id).state == TrialState.RUNNING:
                raise
            raise LostTrialError(f"trial {trial.number} is not running any more") from error
        return self._ended(trial._trial_id)

    def _ended(self, trial_id: int) -> FrozenTrial:
        ended = self.storage.get_trial(trial_id)
        if ended.state.is_finished():
            remove_checkpoint(checkpoint_path(self.weights_folder, ended.number))
            if ended.state != TrialState.COMPLETE:
                with contextlib.suppress(OSError):
                    weights_path(self.weights_folder, ended.number).unlink(missing_ok=True)
        self.emit(TrialEnded(records.trial_record(ended)))
        return ended


def _warn_of_no_effect(trial: optuna.Trial) -> None:
    """Warns of what a trial was enqueued with in vain; starting points have been looked at before."""
    if records.STARTING_POINT in trial.user_attrs:
        return
    for name in sorted(given_values(trial).keys() - trial.params.keys()):
        warnings.warn(
            f"{name!r} of an enqueued trial has no effect: the search space does not ask for it there.",
            stacklevel=1,
        )


def _outcome(outcome: records.Outcome) -> dict[str, Any]:
    return {records.OUTCOME: outcome}


@dataclass
class _Reports:
    """Reports each epoch once, and asks the pruner."""

    trial: optuna.Trial
    epochs: int
    emit: Callable[[Event], None]
    results: list[EpochResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        stored = self.trial.study._storage.get_trial(self.trial._trial_id)
        self.reported = dict(stored.intermediate_values)

    def on_epoch(self, result: EpochResult) -> bool:
        """Whether to go on after an epoch."""
        self.results.append(result)
        # An interrupted trial comes through epochs that it reported before, from its checkpoint or trained
        # again. The pruner let it go on after each but the last, for which it may not have been asked.
        before = result.epoch < max(self.reported, default=-1)
        if result.epoch not in self.reported:
            self.trial.report(result.accuracy, result.epoch)
        elif self.reported[result.epoch] != result.accuracy:
            # Not on the CPU: trained again, a GPU gives other last bits. Value and weights are those of now.
            self.trial.study._storage.set_trial_intermediate_value(
                self.trial._trial_id, result.epoch, result.accuracy
            )
            # The pruner sees what this process remembers of the trial.
            self.trial._cached_frozen_trial.intermediate_values[result.epoch] = result.accuracy
        self.emit(EpochEvent(self.trial.number, result))
        if before or result.epoch == self.epochs - 1:
            return True
        return not self.trial.should_prune()

    def attributes(self) -> dict[str, Any]:
        """What the epochs say beside their accuracies."""
        if not self.results:
            return {}
        return {
            records.LOSSES: [result.loss for result in self.results],
            records.EPOCH_SECONDS: sum(result.seconds for result in self.results) / len(self.results),
        }
