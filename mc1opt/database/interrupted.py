"""Sets trials whose owner has died back to waiting, so that they are asked for again."""

from collections.abc import Callable

import optuna
from optuna.trial import FrozenTrial, TrialState

from mc1opt.database import records
from mc1opt.database.ownership import is_dead
from mc1opt.database.storage import StudyStorage

MAX_STALLED = 5
"""Consecutive deaths of a trial's owners without a new epoch after which the trial fails."""


def take_up_interrupted(
    study: optuna.Study,
    storage: StudyStorage,
    is_silent: Callable[[FrozenTrial], bool] = lambda _trial: False,
) -> int:
    """Sets trials whose owner has died back to waiting; foreign trials are left alone.

    Optuna's own check of stale trials is not used: it ends them as FAIL for good.

    Args:
        study: the study.
        storage: the study database, with this process as owner.
        is_silent: whether a trial's owner on another machine has been silent for too long.

    Returns:
        The number of trials set back.
    """
    taken = 0
    for trial in records.own_trials(study, (TrialState.RUNNING,)):
        owner = trial.user_attrs.get(records.OWNER)
        dead = is_dead(owner)
        if dead is False or (dead is None and not is_silent(trial)):
            continue
        times = deaths_without_epoch(trial)
        attributes = {
            records.INTERRUPTED: trial.user_attrs.get(records.INTERRUPTED, 0) + 1,
            records.STALLED: {"times": times, "epochs": len(trial.intermediate_values)},
        }
        if times < MAX_STALLED:
            taken += storage.set_back_to_waiting(trial._trial_id, owner, attributes)
            continue
        if not storage.take_over(trial._trial_id, owner):
            continue
        message = f"its process died {times} times without a new epoch"
        storage.set_own_attributes(
            trial._trial_id,
            {
                **attributes,
                records.FAILURE: {"kind": "killed", "message": message},
                records.OUTCOME: "failed",
            },
        )
        study.tell(trial.number, state=TrialState.FAIL)
    return taken


def deaths_without_epoch(trial: FrozenTrial) -> int:
    """How many owners of a trial have died in a row without a new epoch, the present one included."""
    stalled = trial.user_attrs.get(records.STALLED, {"times": 0, "epochs": 0})
    return stalled["times"] + 1 if stalled["epochs"] == len(trial.intermediate_values) else 1


def take_up_unanswered(study: optuna.Study, storage: StudyStorage) -> None:
    """Sets trials of this process that none of its threads trains back to waiting.

    The database's answer to `ask` was lost. Must not be called while a thread asks.
    """
    held = storage.trials_in_training()
    for trial in records.own_trials(study, (TrialState.RUNNING,)):
        if trial.user_attrs.get(records.OWNER) == storage.owner and trial._trial_id not in held:
            times = trial.user_attrs.get(records.INTERRUPTED, 0) + 1
            storage.set_back_to_waiting(trial._trial_id, storage.owner, {records.INTERRUPTED: times})
