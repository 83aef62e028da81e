"""A training with its results, in micro-batches when out of memory."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mc1opt.files import remove_checkpoint
from mc1opt.spec import EpochResult, Training, TrainingFailed
from mc1opt.workers.pool import Pool


@dataclass(frozen=True)
class Trained:
    """The results of a training."""

    training: Training
    """As trained in the end, perhaps with more accumulation than requested."""
    results: tuple[EpochResult, ...]
    """One per epoch, in order."""
    whole: bool
    """Whether it was trained to its end; False if `on_epoch` ended it."""


def train(
    pool: Pool, training: Training, on_epoch: Callable[[EpochResult], bool] = lambda _result: True
) -> Trained:
    """Trains; see `Pool.train`.

    Raises:
        TrainingFailed: has the training and the results of its epochs.
        TrainingInterrupted, WorkerError: see `Pool.train`.
    """
    results: list[EpochResult] = []

    def collect(result: EpochResult) -> bool:
        results.append(result)
        return on_epoch(result)

    try:
        whole = pool.train(training, collect)
    except TrainingFailed as failure:
        failure.training, failure.results = training, tuple(results)
        raise
    return Trained(training, tuple(results), whole)


def train_within_memory(
    pool: Pool,
    training: Training,
    on_epoch: Callable[[EpochResult], bool],
    anew: Callable[[Training], Training],
) -> Trained:
    """Trains; after running out of memory, once more from the start in micro-batches.

    Args:
        pool: the workers.
        training: what to train; its checkpoint is deleted before a second start.
        on_epoch: see `Pool.train`.
        anew: called with the training in micro-batches before its second start, to store its accumulation,
            with which an interrupted training must go on. Returns the training to start.

    Raises:
        TrainingFailed, TrainingInterrupted, WorkerError: see `train`.
    """
    try:
        return train(pool, training, on_epoch)
    except TrainingFailed as failure:
        smaller = training.in_smaller_steps() if failure.kind == "out_of_memory" else None
        if smaller is None:
            raise
    smaller = anew(smaller)
    if training.checkpoint is not None:
        remove_checkpoint(Path(training.checkpoint))
    return train(pool, smaller, on_epoch)
