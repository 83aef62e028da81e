"""The stand-in for training must be a fair one: tests of the search rest on it."""

import math
import statistics

import pytest

from mc1opt.config import AdamW
from mc1opt.spec import TrainingFailed
from mc1opt.workers.pool import ProcessPool
from tests.support.curves import (
    NOISE,
    SWITCHES_VARIABLE,
    TRAINER,
    CurvePool,
    Switches,
    accuracy,
    curve,
    example_training,
)


def last(**changes) -> float:
    return curve(example_training(**changes))[-1].validation_accuracy


def test_a_curve_is_always_the_same():
    assert curve(example_training()) == curve(example_training())


def test_another_seed_gives_noise_of_the_stated_size():
    values = [accuracy(example_training(seed=seed), 2) for seed in range(200)]
    assert statistics.stdev(values) == pytest.approx(NOISE, rel=0.2)


def test_curves_rise_to_their_asymptote():
    values = [result.validation_accuracy for result in curve(example_training(epochs=30))]
    assert values[-1] > values[3] > values[0] > 0.1
    assert abs(values[-1] - values[-2]) < 6 * NOISE


def test_the_first_epochs_do_not_depend_on_their_number():
    assert curve(example_training(epochs=5))[:3] == curve(example_training(epochs=3))


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.3, 1.0])
def test_there_is_a_best_learning_rate(rate):
    assert last(learning_rate=0.05, epochs=10) > last(learning_rate=rate, epochs=10)


def test_wider_is_better_and_so_are_more_images():
    assert last(width=1024) > last(width=64) > last(width=8)
    assert last(train_images=45_000) > last(train_images=10_000) > last(train_images=1000)


def test_the_best_learning_rate_depends_on_the_optimizer():
    training = example_training(learning_rate=0.1, epochs=10)
    adamw = training.config.model_copy(update={"optimizer": AdamW(learning_rate=0.1)})
    assert accuracy(training.model_copy(update={"config": adamw}), 9) < accuracy(training, 9) - 0.05


def test_the_pool_of_curves_fails_as_processes_do(tmp_path, monkeypatch):
    monkeypatch.setenv(SWITCHES_VARIABLE, str(tmp_path))
    switches = Switches(tmp_path)
    with ProcessPool(1, trainer=TRAINER) as processes, CurvePool() as curves:
        for action in ("diverge", "raise", "out_of_memory", "crash", "kill"):
            switches.clear()
            switches.add(action, value=3, epoch=1)
            kinds = []
            for pool in (processes, curves):
                with pytest.raises(TrainingFailed) as caught:
                    pool.train(example_training(), lambda result: True)
                kinds.append(caught.value.kind)
            assert kinds[0] == kinds[1], action


def test_a_rule_holds_as_often_as_it_says(tmp_path, monkeypatch):
    monkeypatch.setenv(SWITCHES_VARIABLE, str(tmp_path))
    Switches(tmp_path).add("diverge", times=2)
    outcomes = []
    for _ in range(3):
        try:
            outcomes.append(CurvePool().train(example_training(), lambda result: True))
        except TrainingFailed as error:
            outcomes.append(error.kind)
    assert outcomes == ["diverged", "diverged", True]


def test_weights_are_there_when_the_last_result_is(tmp_path):
    from safetensors.numpy import load_file

    path = tmp_path / "weights.safetensors"
    seen = []
    training = example_training(weights=str(path))
    CurvePool().train(training, lambda result: seen.append(path.exists()) or True)
    assert seen == [False, False, True]
    assert math.isclose(load_file(path)["validation_accuracy"][0], accuracy(training, 2))
