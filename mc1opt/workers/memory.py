"""A training with its results, in smaller steps where memory runs out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mc1opt.files import remove_checkpoint
from mc1opt.spec import EpochResult, Training, TrainingFailed
from mc1opt.workers.pool import Pool


@dataclass(frozen=True)
class Trained:
    """What a training gave."""

    training: Training
    """As it was trained in the end: perhaps in smaller steps than asked for."""
    results: tuple[EpochResult, ...]
    """One an epoch, in their order."""
    whole: bool
    """Whether it went to its end; False where `on_epoch` ended it."""


def train(
    pool: Pool, training: Training, on_epoch: Callable[[EpochResult], bool] = lambda _result: True
) -> Trained:
    """Trains; see `Pool.train`.

    Raises:
        TrainingFailed: with the training and the results of its epochs.
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
    """Trains; once more from the start and in smaller steps where that has run out of memory.

    Args:
        pool: who trains.
        training: what; its checkpoint is removed before it starts anew.
        on_epoch: see `Pool.train`.
        anew: takes the training in smaller steps before it starts anew, to note them: whoever goes on with
            it after an interruption trains it in the same steps. Returns it as it shall be trained.

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
