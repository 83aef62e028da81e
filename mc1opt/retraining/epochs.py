"""How many epochs a retraining trains by default, from how long an epoch takes on this machine."""

import json
from collections.abc import Callable
from dataclasses import replace

from mc1opt.database.records import StudyRecord
from mc1opt.errors import StorageError
from mc1opt.files import read_object, write_whole
from mc1opt.machine.environment import versions
from mc1opt.retraining.plan import RetrainPlan
from mc1opt.workers.pool import Pool
from mc1opt.workers.speed import epoch_seconds

AIM_SECONDS = 3600.0
"""Seconds that all trainings shall take together by default."""
LEAST_EPOCHS = 5
MOST_EPOCHS = 200
UNKNOWN_EPOCHS = 20
"""Epochs where it is not known how long one takes."""
REMEMBERED = "epochs.json"
"""The default epochs of a study's retrainings, in the folder of its models."""


def timed_here(
    plan: RetrainPlan,
    record: StudyRecord,
    *,
    new_pool: Callable[[int], Pool],
    interrupted: Callable[[], bool],
    write: Callable[[str], None],
) -> RetrainPlan:
    """The plan with seconds of this machine: those of the search, or those of epochs that are timed now.

    The search ran on the same kind of machine where device, precision, the CPU's capability and the GPU's
    model are the same.

    Args:
        plan: of the retraining.
        record: the study.
        new_pool: makes the pool for a number of workers, where something is to be timed.
        interrupted: whether to give up.
        write: takes a line that says so.
    """
    here = {
        candidate.trial: versions(1, plan.precision, plan.device, candidate.config)
        for candidate in plan.candidates
    }
    known = {
        trial.number
        for trial in record.trials
        if trial.number in here
        and trial.device == plan.device
        and all(trial.versions.get(key) == here[trial.number].get(key) for key in ("cpu", "precision", "gpu"))
    }
    if plan.search is None or all(candidate.trial in known for candidate in plan.candidates):
        return plan
    write("The search ran on another kind of machine: timing an epoch of each candidate here.")
    timed = []
    pool = new_pool(plan.workers)
    try:
        for candidate in plan.candidates:
            seconds = candidate.epoch_seconds
            if candidate.trial not in known:
                seconds = epoch_seconds(
                    candidate.config,
                    pool,
                    data=plan.data,
                    fidelity=plan.search,
                    device=plan.device,
                    precision=plan.precision,
                    interrupted=interrupted,
                )
            timed.append(replace(candidate, epoch_seconds=seconds))
    finally:
        pool.close()
    return replace(plan, candidates=tuple(timed))


def default_epochs(plan: RetrainPlan) -> int:
    """As many epochs as let all trainings of a plan take `AIM_SECONDS` together."""
    plan = replace(plan, epochs=1)
    seconds = plan.seconds(plan.candidate_jobs(), plan.winner_jobs(plan.candidates[0]))
    if seconds is None:
        return UNKNOWN_EPOCHS
    return min(MOST_EPOCHS, max(LEAST_EPOCHS, int(AIM_SECONDS / seconds)))


def remembered_epochs(plan: RetrainPlan) -> int | None:
    """The default epochs of the first start of this retraining, on whatever machine; None before it."""
    epochs = read_object(plan.folder / REMEMBERED).get(plan.request)
    return epochs if isinstance(epochs, int) and epochs > 0 else None


def remember_epochs(plan: RetrainPlan) -> None:
    """Stores the epochs of a plan, so that the next start goes on with the same trainings.

    Raises:
        StorageError: they cannot be written.
    """
    path = plan.folder / REMEMBERED
    try:
        remembered = {**read_object(path), plan.request: plan.epochs}
        write_whole(path, f"{json.dumps(remembered, indent=2)}\n".encode())
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}.") from error
