"""A training gives its results, and takes smaller steps where memory runs out."""

from pathlib import Path

import pytest

from mc1opt.spec import Training, TrainingFailed
from mc1opt.workers.train import train, train_within_memory
from tests.support.curves import CurvePool, Switches, curve, example_training

TRAINING = example_training()


def test_the_results_are_the_epochs_until_the_end_or_until_it_was_ended() -> None:
    whole = train(CurvePool(), TRAINING)
    assert (whole.whole, list(whole.results)) == (True, curve(TRAINING))
    ended = train(CurvePool(), TRAINING, lambda result: result.epoch < 1)
    assert (ended.whole, list(ended.results)) == (False, curve(TRAINING)[:2])


def test_a_failure_has_the_results_before_it(switches: Switches) -> None:
    switches.add("raise", epoch=1)
    with pytest.raises(TrainingFailed) as failure:
        train(CurvePool(), TRAINING)
    assert (failure.value.training, list(failure.value.results)) == (TRAINING, curve(TRAINING)[:1])


def test_memory_that_runs_out_once_is_noted_before_the_training_starts_anew(switches: Switches) -> None:
    switches.add("out_of_memory", epoch=1, times=1)
    noted: list[Training] = []

    def anew(smaller: Training) -> Training:
        noted.append(smaller)
        assert len(switches.epochs()) == 2
        return smaller

    trained = train_within_memory(CurvePool(), TRAINING, lambda _: True, anew)
    assert noted == [trained.training]
    assert trained.training == TRAINING.in_smaller_steps()
    assert len(trained.results) == TRAINING.fidelity.epochs


def test_it_starts_anew_without_the_checkpoint_and_fails_where_that_is_too_much_too(
    switches: Switches,
) -> None:
    switches.add("out_of_memory", epoch=1, times=2)
    training = TRAINING.model_copy(update={"checkpoint": str(Path("own.checkpoint").absolute())})
    with pytest.raises(TrainingFailed) as failure:
        train_within_memory(CurvePool(), training, lambda _: True, lambda smaller: smaller)
    assert failure.value.kind == "out_of_memory"
    assert failure.value.training == training.in_smaller_steps()
    assert [epoch["epoch"] for epoch in switches.epochs()] == [0, 1, 0, 1]
