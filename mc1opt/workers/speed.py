"""How fast this machine trains, measured with the trainer itself before a search says what it will cost.

A product of matrices would be cheaper, but says little: convolutions of few channels, augmentation and
validation reach another share of a CPU's peak on each machine, and two workers slow each other down.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

from mc1opt.config import Config
from mc1opt.spec import DataSet, Device, Fidelity, Precision, Training, TrainingFailed
from mc1opt.workers.memory import train
from mc1opt.workers.pool import Pool
from mc1opt.workers.protocol import TrainingInterrupted

SPEED_SEED = 2**63 - 1
"""Of the trainings that measure, which belong to no study."""
IMAGES = 1024
"""Training images of an epoch that measures, at most."""
VALIDATION_SHARE = 1 / 3
"""What validating an image costs, of what training it costs: a forward pass without a backward one."""
MOST_WORKERS = 8
"""Workers that measure at once: enough to see how they slow each other down."""
TICK_SECONDS = 0.2
"""How often it is asked whether to give up."""


def epoch_seconds(
    config: Config,
    pool: Pool,
    *,
    data: DataSet,
    fidelity: Fidelity,
    device: Device,
    precision: Precision,
    interrupted: Callable[[], bool] = lambda: False,
) -> float | None:
    """Seconds that an epoch of a config takes while all workers train.

    The second of two short epochs on each worker: the first one waits for libraries to settle.

    Args:
        config: what is trained.
        pool: who trains, with nothing else to do yet.
        data: the images.
        fidelity: of the epoch that is asked for.
        device: where.
        precision: in which.
        interrupted: whether to give up; the pool is interrupted then.

    Returns:
        None if a training failed, or was given up.

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
    )

    def second_epoch() -> float | None:
        try:
            return train(pool, training).results[1].seconds
        except (TrainingFailed, TrainingInterrupted):
            return None

    workers = min(pool.size, MOST_WORKERS)
    with ThreadPoolExecutor(workers, "speed") as threads:
        futures = [threads.submit(second_epoch) for _ in range(workers)]
        while wait(futures, TICK_SECONDS).not_done:
            if interrupted():
                pool.interrupt()
                break
    measured = [value for future in futures if (value := future.result()) is not None]
    if len(measured) < workers:
        return None
    validation = VALIDATION_SHARE * data.validation_images
    return sum(measured) / workers * (fidelity.train_images + validation) / (images + validation)
