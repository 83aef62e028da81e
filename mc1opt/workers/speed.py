"""Measures the seconds of an epoch on this machine with the trainer itself, to plan a search.

A matrix product would be cheaper but says little: convolutions with few channels, augmentation and validation
reach a different share of a CPU's peak on each machine, and workers slow each other down.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

from mc1opt.config import Config
from mc1opt.dataset import DataSet
from mc1opt.spec import Device, Fidelity, Precision, Training, TrainingFailed
from mc1opt.workers.pool import Pool
from mc1opt.workers.protocol import TrainingInterrupted
from mc1opt.workers.stop import TICK_SECONDS
from mc1opt.workers.train import train

SPEED_SEED = 2**63 - 1
"""Seed of the measuring trainings, which belong to no study."""
IMAGES = 1024
"""Most training images of a measuring epoch."""
VALIDATION_SHARE = 1 / 3
"""Cost of validating an image relative to training it: a forward pass without a backward pass."""
MOST_WORKERS = 8
"""Most workers that measure at once: enough to show how they slow each other down."""


def epoch_seconds(
    config: Config,
    pool: Pool,
    *,
    data: DataSet,
    fidelity: Fidelity,
    device: Device,
    precision: Precision,
    threads: int = 1,
    interrupted: Callable[[], bool] = lambda: False,
) -> float | None:
    """Seconds of an epoch of a config while all workers train.

    Measures the second of two short epochs on each worker: in the first, libraries warm up.

    Args:
        config: what to train.
        pool: the workers, all idle.
        data: the images.
        fidelity: fidelity of the epoch in question.
        device: the device of the training.
        precision: its precision.
        threads: its intra-op threads.
        interrupted: whether to stop; the pool is then interrupted.

    Returns:
        None if a training failed or was interrupted.

    Raises:
        WorkerError: no worker can be started.
    """
    images = min(IMAGES, fidelity.train_images)
    training = Training(
        config=config,
        fidelity=Fidelity(train_images=images, epochs=2),
        seed=SPEED_SEED,
        data=data,
        device=device,
        precision=precision,
        threads=threads,
    )

    def second_epoch() -> float | None:
        try:
            return train(pool, training).results[1].seconds
        except (TrainingFailed, TrainingInterrupted):
            return None

    workers = min(pool.size, MOST_WORKERS)
    with ThreadPoolExecutor(workers, "speed") as measuring:
        futures = [measuring.submit(second_epoch) for _ in range(workers)]
        while wait(futures, TICK_SECONDS).not_done:
            if interrupted():
                pool.interrupt()
                break
    measured = [value for future in futures if (value := future.result()) is not None]
    if len(measured) < workers:
        return None
    validation = VALIDATION_SHARE * data.validation_images
    return sum(measured) / workers * (fidelity.train_images + validation) / (images + validation)
