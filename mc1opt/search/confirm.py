"""Confirmation: trains the best trials again with new seeds, because one good value may be luck.

The results are attributes of the trials, not trials of their own, so the sampler does not see them.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from mc1opt.config import config_from_json
from mc1opt.database import records
from mc1opt.database.ownership import is_dead
from mc1opt.database.trial import trial_id
from mc1opt.database.trial_files import confirmation_checkpoint_path
from mc1opt.files import remove_checkpoint
from mc1opt.search.incumbents import Incumbents, confirmation_seed, incumbents, repeats
from mc1opt.search.objective import Objective
from mc1opt.search.observers import Observer
from mc1opt.spec import CAUSED_BY_CONFIG, EpochResult, Training, TrainingFailed
from mc1opt.workers.train import train_within_memory

SEEDS = 2
"""New seeds per trial."""


@dataclass(frozen=True)
class Repetition:
    """A trial's config, to be trained with a new seed."""

    number: int
    trial_id: int
    training: Training


def missing_repetitions(objective: Objective, trials: Sequence[FrozenTrial], best: int) -> list[Repetition]:
    """The trainings still missing to confirm the `best` best trials; the first seeds of all come first.

    Where incumbents are repeated, the best starting point is among them, so that the search can say what it
    has added.
    """
    ranked = records.by_value(map(records.trial_record, trials))
    given: list[records.TrialRecord] = []
    if best and repeats(objective.study):
        worth = _incumbents(objective).scores
        ranked.sort(key=lambda trial: -worth[trial.number])
        given = [trial for trial in ranked if trial.starting_point][:1]
    chosen = [trials[number] for number in {trial.number: None for trial in [*ranked[:best], *given]}]
    return [
        repetition
        for index in range(SEEDS)
        for trial in chosen
        if (repetition := _missing(objective, trial, index)) is not None
    ]


def missing_repetition(objective: Objective, tried: set[int]) -> Repetition | None:
    """The training still missing of a trial that is just ahead of all before it; not of those in `tried`.

    None where incumbents are not repeated.
    """
    if not repeats(objective.study):
        return None
    unrepeated = _incumbents(objective).unrepeated
    trials = objective.study.get_trials(deepcopy=False)
    left = (_missing(objective, trials[number], 0) for number in unrepeated if number not in tried)
    return next(left, None)


def _incumbents(objective: Objective) -> Incumbents:
    settings = objective.settings
    return incumbents(objective.study, settings.seed, settings.aim.metric, settings.target)


def _missing(objective: Objective, trial: FrozenTrial, index: int) -> Repetition | None:
    seed = confirmation_seed(objective.settings.seed, trial.number, index)
    if seed in _seeds(trial):
        return None
    return Repetition(trial.number, trial_id(trial), _training(objective, trial, seed))


def _seeds(trial: FrozenTrial) -> Iterator[int]:
    """The new seeds of a trial that are done; a failure that the config did not cause is repeated."""
    for confirmation in trial.user_attrs.get(records.CONFIRMATIONS, []):
        if (
            confirmation["value"] is not None
            or confirmation.get("failure", {}).get("kind") in CAUSED_BY_CONFIG
        ):
            yield confirmation["seed"]


def _training(objective: Objective, trial: FrozenTrial, seed: int) -> Training:
    training = objective.training(
        config_from_json(trial.user_attrs[records.CONFIG]),
        seed,
        checkpoint=str(confirmation_checkpoint_path(objective.weights_folder, trial.number, seed)),
        accumulation=trial.user_attrs.get(records.CONFIRMING_STEPS, {}).get(
            str(seed), trial.user_attrs.get(records.ACCUMULATION, 1)
        ),
    )
    # The short schedule decides which trials go on; these do.
    whole = training.fidelity.model_copy(update={"short_epochs": 0})
    return training.model_copy(update={"fidelity": whole})


class Confirmation:
    """Trains repetitions, in one thread per worker."""

    def __init__(self, objective: Objective, repetitions: Sequence[Repetition]) -> None:
        self._objective = objective
        self._left = list(reversed(repetitions))
        self._lock = threading.Lock()

    def work(self) -> None:
        """Trains until nothing is left.

        Raises:
            TrainingInterrupted: the pool was interrupted; the next start trains the rest.
        """
        while True:
            with self._lock:
                if not self._left:
                    return
                repetition = self._left.pop()
            if self._claim(repetition):
                try:
                    # Only with the claim, for its last owner releases it when the value is stored.
                    if not self._is_done(repetition):
                        self._train(repetition)
                finally:
                    self._release(repetition)

    def _claim(self, repetition: Repetition) -> bool:
        """Whether no other process of this machine is training it.

        The state of processes on other machines is unknown: training twice is better than never.
        """
        seed, owner = repetition.training.seed, self._objective.storage.owner
        taken = False

        def claimed(others: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
            nonlocal taken
            living = [
                entry for entry in others or [] if entry["owner"] == owner or is_dead(entry["owner"]) is False
            ]
            taken = any(entry["seed"] == seed and entry["owner"] != owner for entry in living)
            return living if taken else [*living, {"seed": seed, "owner": owner}]

        self._objective.storage.change_user_attribute(repetition.trial_id, records.CONFIRMING, claimed)
        return not taken

    def _is_done(self, repetition: Repetition) -> bool:
        return repetition.training.seed in _seeds(self._objective.storage.get_trial(repetition.trial_id))

    def _release(self, repetition: Repetition) -> None:
        claim = {"seed": repetition.training.seed, "owner": self._objective.storage.owner}

        def released(claims: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
            return [entry for entry in claims or [] if entry != claim]

        self._objective.storage.change_user_attribute(repetition.trial_id, records.CONFIRMING, released)

    def _train(self, repetition: Repetition) -> None:
        self._objective.observers.emit(Observer.trial_started, repetition.number, "again, with a new seed")
        confirmation: dict[str, object] = {"seed": repetition.training.seed, "value": None}
        value = None
        try:
            result, confirmation["accumulation"] = self._result(repetition)
            value = confirmation["value"] = result.value
            if result.metric_value is not None:
                confirmation["accuracy"] = result.accuracy
        except TrainingFailed as failure:
            confirmation["failure"] = {"kind": failure.kind, "message": failure.message}

        def added(others: list[dict[str, object]] | None) -> list[dict[str, object]]:
            # Another process may have trained it at the same time: the same training counts once.
            return [*(other for other in others or [] if other["seed"] != confirmation["seed"]), confirmation]

        storage = self._objective.storage
        storage.change_user_attribute(repetition.trial_id, records.CONFIRMATIONS, added)
        if repetition.training.checkpoint is not None:
            remove_checkpoint(Path(repetition.training.checkpoint))
        self._objective.observers.emit(Observer.confirmed, repetition.number, value)

    def _result(self, repetition: Repetition) -> tuple[EpochResult, int]:
        """Trains to the end, in micro-batches when out of memory; returns the last result and accumulation.

        Raises:
            TrainingFailed: there is none.
        """

        # Counted as in the search, where a short schedule comes before.
        before = self._objective.settings.fidelity.short_epochs

        def on_epoch(result: EpochResult) -> bool:
            counted = result.model_copy(update={"epoch": before + result.epoch})
            self._objective.observers.emit(Observer.epoch, repetition.number, counted)
            return True

        def anew(smaller: Training) -> Training:
            steps = {str(smaller.seed): smaller.accumulation}
            self._objective.storage.change_user_attribute(
                repetition.trial_id, records.CONFIRMING_STEPS, lambda others: {**(others or {}), **steps}
            )
            return smaller

        trained = train_within_memory(self._objective.pool, repetition.training, on_epoch, anew)
        return trained.results[-1], trained.training.accumulation
