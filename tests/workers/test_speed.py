"""How fast the machine trains: with which config, and what comes of failures and of a stop."""

from collections.abc import Callable

import pytest

from mc1opt.dataset import CIFAR10_SHAPE, DataSet
from mc1opt.models.cost import cost
from mc1opt.search.definition import load_definition
from mc1opt.search.plan import typical_config
from mc1opt.spec import EpochResult, Fidelity, Training, TrainingFailed
from mc1opt.workers.protocol import TrainingInterrupted
from mc1opt.workers.speed import epoch_seconds
from tests.support.curves import CurvePool

CNN = load_definition("cnn")
DATA = DataSet(name="x", folder="", sha256="0" * 64, train_images=50_000, validation_images=3_000)


class TimedPool(CurvePool):
    """Its trainings take 1 s an epoch for 1,000 images and 1,000 more; the first epoch takes 60 s more."""

    def __init__(self, size: int, fail: int = 0) -> None:
        super().__init__(size)
        self.trainings: list[Training] = []
        self.fail = fail

    def train(self, training: Training, on_epoch: Callable[[EpochResult], bool]) -> bool:
        self.trainings.append(training)
        if len(self.trainings) == self.fail:
            raise TrainingFailed("crashed", "on request")
        for epoch in range(training.fidelity.epochs):
            seconds = (training.fidelity.train_images + 1000) / 1000 + 60.0 * (epoch == 0)
            if not on_epoch(EpochResult(epoch=epoch, loss=1.0, validation_accuracy=0.5, seconds=seconds)):
                return False
        return True


def measure(
    pool: CurvePool, interrupted: Callable[[], bool] = lambda: False, images: int = 20_000
) -> float | None:
    return epoch_seconds(
        typical_config(CNN, 20_000_000),
        pool,
        data=DATA,
        fidelity=Fidelity(train_images=images, epochs=4),
        device="cpu",
        precision="float32",
        interrupted=interrupted,
    )


def test_where_nothing_is_affordable_it_is_the_cheapest() -> None:
    config = typical_config(CNN, 1)
    assert 1 < cost(config.architecture, CIFAR10_SHAPE).macs < 3_000_000


@pytest.mark.parametrize("images", [500, 20_000])
def test_a_settled_epoch_is_scaled_to_the_images_of_the_search(images: int) -> None:
    # 3,000 validation images cost as much as 1,000 in training.
    assert measure(TimedPool(2), images=images) == pytest.approx((images + 1000) / 1000)


def test_all_workers_measure_in_the_data_and_precision_of_the_search() -> None:
    pool = TimedPool(3)
    measure(pool)
    assert len(pool.trainings) == 3
    (training,) = set(pool.trainings)
    assert training.data == DATA
    assert training.checkpoint is None
    assert training.weights is None


def test_a_training_that_fails_leaves_the_speed_unknown() -> None:
    assert measure(TimedPool(2, fail=2)) is None


class HangingPool(CurvePool):
    """Its trainings end only when it is interrupted."""

    def train(self, training: Training, on_epoch: Callable[[EpochResult], bool]) -> bool:
        assert self._stopped.wait(60)
        raise TrainingInterrupted


def test_a_stop_ends_it_within_an_epoch() -> None:
    assert measure(HangingPool(2), interrupted=lambda: True) is None


def test_a_curve_pool_says_how_long_its_epochs_take() -> None:
    seconds = measure(CurvePool(2))
    assert seconds is not None
    assert seconds > 0.01
