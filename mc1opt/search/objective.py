"""One trial: ask, config, train, report, prune, tell.

Two halves with different locking. `propose` draws a config, and ends the trial if it needs no training (too
large, infeasible, a duplicate); it must run under the search's lock, so that draws come one by one. `train`
has a worker train the config and tells the outcome; it runs in one thread per worker.
"""

import contextlib
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from mc1opt.config import Config, config_id, config_to_json
from mc1opt.database import records
from mc1opt.database.ownership import LostTrialError
from mc1opt.database.storage import StudyStorage
from mc1opt.database.trial import OwnTrial
from mc1opt.database.trial_files import checkpoint_path, keep_best_weights, weights_path
from mc1opt.dataset import DataSet
from mc1opt.describe import describe_config
from mc1opt.errors import NetworkError, StudyFileError, WorkerError
from mc1opt.files import remove_checkpoint
from mc1opt.machine.environment import commit, versions
from mc1opt.models.cost import cost
from mc1opt.search.definition import StudyDefinition
from mc1opt.search.json_values import given_values
from mc1opt.search.local import describe_changes
from mc1opt.search.observers import Observer, Observers
from mc1opt.search.settings import SearchSettings
from mc1opt.seeds import derive_seed
from mc1opt.spec import CAUSED_BY_CONFIG, EpochResult, FailureKind, Training, TrainingFailed
from mc1opt.workers.pool import Pool
from mc1opt.workers.protocol import TrainingInterrupted
from mc1opt.workers.train import train_within_memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Proposal:
    """A trial to train."""

    trial: OwnTrial
    training: Training
    summary: str


@dataclass(frozen=True)
class Objective:
    """Proposes and trains the trials of a search.

    Args:
        definition: the study definition.
        settings: the settings of the search.
        study: the Optuna study, on `storage`.
        storage: the study database.
        pool: the workers.
        data: the images.
        weights_folder: holds the weights of the best trials and the checkpoints of running ones.
        observers: receive the events.
    """

    definition: StudyDefinition
    settings: SearchSettings
    study: optuna.Study
    storage: StudyStorage
    pool: Pool
    data: DataSet
    weights_folder: Path
    observers: Observers

    def propose(self) -> Proposal | FrozenTrial:
        """Asks for a trial and draws its config; ends the trial at once if it needs no training.

        Returns:
            What to train, or the ended trial.

        Raises:
            NoRoomError: see `StudyStorage.room_for`.
        """
        trial = OwnTrial(self.study.ask(), self.storage)
        try:
            return self._propose(trial)
        except (LostTrialError, UpdateFinishedTrialError):
            return self._lost(trial)

    def _propose(self, trial: OwnTrial) -> Proposal | FrozenTrial:
        if (told := trial.asked.user_attrs.get(records.FAILURE)) is not None:
            # It failed before, and the process died before telling.
            return self._fail(trial, TrainingFailed(told["kind"], told["message"]))
        settings = self.settings
        seed = derive_seed(settings.seed, trial.number)
        attributes: dict[str, Any] = {
            records.SEED: seed,
            records.FIDELITY: settings.fidelity.model_dump(),
            records.DATA: {"name": self.data.name, "sha256": self.data.sha256},
            records.DEVICE: settings.device,
            records.VERSIONS: versions(settings.threads, settings.precision, settings.device),
            records.COMMIT: commit(),
        }
        if not (metric := settings.aim.metric).is_accuracy:
            attributes[records.METRIC] = {"name": metric.name, "direction": metric.direction}
        try:
            with self.storage.writing_parameters_together():
                config = self.definition.config(trial.asked)
            identity = config_id(config)
            attributes |= self._drawn(trial.asked) | {
                records.VERSIONS: versions(settings.threads, settings.precision, settings.device, config),
                records.CONFIG: config_to_json(config),
                records.CONFIG_ID: identity,
                records.SUMMARY: describe_config(config),
            }
            size = cost(config.architecture, self.data.shape)
        except optuna.TrialPruned as reason:
            attributes |= {records.INFEASIBLE: str(reason)} | _outcome("infeasible")
            return self._tell_untrained(trial, attributes, {records.INFEASIBLE: 1.0})
        except (StudyFileError, ValueError) as error:
            trial.write(attributes)
            kind: FailureKind = "network" if isinstance(error, NetworkError) else "search_space"
            return self._fail(trial, TrainingFailed(kind, str(error)))
        _warn_of_no_effect(trial.asked)
        attributes |= {records.PARAMETERS: size.parameters, records.MACS: size.macs}
        if excess := settings.excess(size):
            return self._tell_untrained(trial, attributes | _outcome("too_large"), excess)
        if not trial.claim_config(attributes):
            trial.write(_outcome("duplicate"))
            return self._tell(trial, state=TrialState.PRUNED)
        training = self.training(
            config,
            seed,
            accumulation=trial.asked.user_attrs.get(records.ACCUMULATION, 1),
            weights=str(weights_path(self.weights_folder, trial.number)),
            checkpoint=str(checkpoint_path(self.weights_folder, trial.number)),
        )
        return Proposal(trial, training, attributes[records.SUMMARY])

    def train(self, proposal: Proposal) -> FrozenTrial:
        """Trains a proposal until it ends, is pruned or is interrupted, and tells the outcome.

        A trial that another process has taken over meanwhile, presuming this one dead, is left to it.
        """
        self.observers.emit(Observer.trial_started, proposal.trial.number, proposal.summary)
        try:
            return self._train(proposal.trial, proposal.training)
        except (LostTrialError, UpdateFinishedTrialError):
            return self._lost(proposal.trial)
        except WorkerError:
            # Not the config's fault: the trial waits for a start that has a worker.
            self._ended(proposal.trial.set_back())
            raise

    def _train(self, trial: OwnTrial, training: Training) -> FrozenTrial:
        last = training.fidelity.all_epochs - 1

        def on_epoch(result: EpochResult) -> bool:
            may_ask = trial.report(result.value, result.epoch)
            self.observers.emit(Observer.epoch, trial.number, result)
            return result.epoch == last or not may_ask or not trial.asked.should_prune()

        def anew(smaller: Training) -> Training:
            trial.write({records.ACCUMULATION: smaller.accumulation})
            return smaller

        try:
            trained = train_within_memory(self.pool, training, on_epoch, anew)
        except TrainingInterrupted:
            return self._ended(trial.set_back())
        except TrainingFailed as failure:
            trial.write(_measured(failure.results))
            return self._fail(trial, failure)
        trial.write(_measured(trained.results) | _outcome("complete" if trained.whole else "pruned"))
        if not trained.whole:
            return self._tell(trial, state=TrialState.PRUNED)
        ended = self._tell(trial, value=trained.results[-1].value)
        keep_best_weights(self.weights_folder, self.study.get_trials(deepcopy=False), self.settings.keep)
        return ended

    def training(self, config: Config, seed: int, **more: Any) -> Training:
        """A training of a config at the search's fidelity; `more` are further fields of `Training`."""
        return Training(
            config=config,
            fidelity=self.settings.fidelity,
            seed=seed,
            data=self.data,
            device=self.settings.device,
            precision=self.settings.precision,
            threads=self.settings.threads,
            metric=self.settings.aim.metric,
            class_weights=self.settings.aim.class_weights,
            checkpoint_seconds=self.settings.checkpoint_seconds,
            **more,
        )

    def _drawn(self, trial: optuna.Trial) -> dict[str, Any]:
        """How the sampler came to the parameters, if it can say and no earlier attempt has."""
        parent = getattr(self.study.sampler, "parent", None)
        if parent is None or records.DRAWN in trial.user_attrs or given_values(trial):
            return {}
        return {records.DRAWN: describe_changes(trial.params, parent)}

    def _lost(self, trial: OwnTrial) -> FrozenTrial:
        stored = trial.stored()
        if stored.user_attrs.get(records.OWNER) == self.storage.owner:
            what = "was ended from outside"
        else:
            what = "was taken over by another process, because this one had been silent for too long"
        logger.warning("trial %d %s. Its training here is dropped.", trial.number, what)
        self.observers.emit(Observer.trial_ended, records.trial_record(stored))
        return stored

    def _tell_untrained(
        self, trial: OwnTrial, attributes: dict[str, Any], violations: Mapping[str, float]
    ) -> FrozenTrial:
        """Ends a trial that violates constraints without a report, so that TPE ranks it as infeasible."""
        trial.write(attributes)
        for constraint, violation in violations.items():
            trial.set_constraint(constraint, violation)
        return self._tell(trial, state=TrialState.PRUNED)

    def _fail(self, trial: OwnTrial, failure: TrainingFailed) -> FrozenTrial:
        what = {"kind": failure.kind, "message": failure.message}
        trial.write({records.FAILURE: what} | _outcome("failed"))
        if failure.kind in CAUSED_BY_CONFIG:  # the sampler learns from it
            trial.set_constraint(records.FAILED, 1.0)
            return self._tell(trial, state=TrialState.PRUNED)
        return self._tell(trial, state=TrialState.FAIL)

    def _tell(
        self, trial: OwnTrial, *, value: float | None = None, state: TrialState | None = None
    ) -> FrozenTrial:
        return self._ended(trial.tell(value, state))

    def _ended(self, trial: FrozenTrial) -> FrozenTrial:
        """Deletes the files that an ended trial no longer needs, and tells the observers."""
        if trial.state.is_finished():
            remove_checkpoint(checkpoint_path(self.weights_folder, trial.number))
            if trial.state != TrialState.COMPLETE:
                with contextlib.suppress(OSError):
                    weights_path(self.weights_folder, trial.number).unlink(missing_ok=True)
        self.observers.emit(Observer.trial_ended, records.trial_record(trial))
        return trial


def _warn_of_no_effect(trial: optuna.Trial) -> None:
    """Warns of enqueued values that the search space does not use; starting points are checked earlier."""
    if records.STARTING_POINT in trial.user_attrs:
        return
    for name in sorted(given_values(trial).keys() - trial.params.keys()):
        warnings.warn(
            f"{name!r} of an enqueued trial has no effect: the search space does not suggest it there.",
            stacklevel=1,
        )


def _outcome(outcome: records.Outcome) -> dict[str, Any]:
    return {records.OUTCOME: outcome}


def _measured(results: Sequence[EpochResult]) -> dict[str, Any]:
    """The attributes that a trial's epochs give, besides the reports."""
    if not results:
        return {}
    measured: dict[str, Any] = {
        records.LOSSES: [result.loss for result in results],
        records.EPOCH_SECONDS: sum(result.seconds for result in results) / len(results),
    }
    if results[-1].metric_value is not None:
        measured[records.ACCURACIES] = [result.accuracy for result in results]
    return measured
