"""How long an epoch of a retraining takes on this machine, and so how many are trained if nobody says it."""

import heapq
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mc1opt.database.records import StudyRecord
from mc1opt.errors import StorageError
from mc1opt.files import read_object, write_whole
from mc1opt.machine.environment import versions
from mc1opt.retraining.comparison import Candidate
from mc1opt.spec import DataSet, Device, Fidelity, Precision
from mc1opt.workers.pool import Pool
from mc1opt.workers.speed import VALIDATION_SHARE, epoch_seconds

AIM_SECONDS = 3600.0
"""What all stages shall take together where nobody says how many epochs."""
LEAST_EPOCHS = 5
MOST_EPOCHS = 200
UNKNOWN_EPOCHS = 20
"""Where it is not known how long an epoch takes."""
REMEMBERED = "epochs.json"
"""The default epochs of a study's retrainings, in the folder of its models."""

Costs = tuple[tuple[float, ...], float]
"""Seconds of an epoch in stage 1, by candidate, and of one in stage 2."""


# ---- Seconds of an epoch ---------------------------------------------------------------------------------


def with_seconds_of_this_machine(
    candidates: Sequence[Candidate],
    record: StudyRecord,
    *,
    data: DataSet,
    device: Device,
    precision: Precision,
    new_pool: Callable[[], Pool],
    interrupted: Callable[[], bool],
    write: Callable[[str], None],
) -> list[Candidate]:
    """Candidates whose epochs were timed by the search on such a device, or else are timed now.

    That it was the same kind of machine is told by device, precision, the CPU's capability, the GPU's model.

    Args:
        candidates: of the study.
        record: the study.
        data: the images.
        device: where they will be trained.
        precision: in which.
        new_pool: makes who trains, when something is to be timed.
        interrupted: whether to give up.
        write: takes a line that says so.
    """
    here = versions(1, precision, device)
    timed_here = {
        trial.number
        for trial in record.trials
        if trial.device == device
        and all(trial.versions.get(key) == here.get(key) for key in ("cpu", "precision", "gpu"))
    }
    if record.fidelity is None or all(candidate.trial in timed_here for candidate in candidates):
        return list(candidates)
    write("The search ran on another kind of machine: timing an epoch of each candidate here.")
    timed = []
    pool = new_pool()
    try:
        for candidate in candidates:
            seconds = candidate.epoch_seconds
            if candidate.trial not in timed_here:
                seconds = epoch_seconds(
                    candidate.config,
                    pool,
                    data=data,
                    fidelity=record.fidelity,
                    device=device,
                    precision=precision,
                    interrupted=interrupted,
                )
            timed.append(replace(candidate, epoch_seconds=seconds))
    finally:
        pool.close()
    return timed


def epoch_costs(candidates: Sequence[Candidate], search: Fidelity | None, data: DataSet) -> Costs | None:
    """Seconds of an epoch in both stages, from those of the search; the slowest candidate may win.

    Args:
        candidates: with their seconds of an epoch.
        search: the fidelity that those seconds belong to; None if unknown.
        data: the images.

    Returns:
        None if nothing is known.
    """
    known = [c.epoch_seconds for c in candidates if c.epoch_seconds]
    if not known or search is None:
        return None
    validation = VALIDATION_SHARE * data.validation_images
    images = search.train_images + validation
    measured = [(c.epoch_seconds or max(known)) / images for c in candidates]
    first = data.train_images - data.validation_images + validation
    return tuple(each * first for each in measured), max(measured) * data.train_images


# ---- How many epochs -------------------------------------------------------------------------------------


def default_epochs(costs: Costs | None, *, seeds: int, folds: Sequence[float] = (), workers: int) -> int:
    """As many epochs as let all stages take `AIM_SECONDS` together, in rounds of trainings on workers.

    Args:
        costs: see `epoch_costs`.
        seeds: trainings of each candidate, and of the winner.
        folds: images of each fold's training, as a share of all.
        workers: trainings at once.
    """
    if costs is None:
        return UNKNOWN_EPOCHS
    first, second = costs
    of_winner = [second] * seeds + [share * second for share in folds]
    one_epoch = makespan(list(first) * seeds, workers) + makespan(of_winner, workers)
    return min(MOST_EPOCHS, max(LEAST_EPOCHS, int(AIM_SECONDS / one_epoch)))


def makespan(seconds: Sequence[float], workers: int) -> float:
    """How long trainings take that are begun in this order, each when a worker is free."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def remembered_epochs(folder: Path, request: str) -> int | None:
    """The default epochs that a request's first start chose, wherever it was; None if there was none.

    Args:
        folder: the study's models.
        request: see `RetrainPlan.request`.
    """
    epochs = read_object(folder / REMEMBERED).get(request)
    return epochs if isinstance(epochs, int) and epochs > 0 else None


def remember_epochs(folder: Path, request: str, epochs: int) -> None:
    """Stores the default epochs of a request, so that the next start goes on with the same trainings.

    Raises:
        StorageError: they cannot be written.
    """
    path = folder / REMEMBERED
    try:
        write_whole(path, f"{json.dumps({**read_object(path), request: epochs}, indent=2)}\n".encode())
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}.") from error
