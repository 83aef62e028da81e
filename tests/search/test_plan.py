"""What a search will cost."""

import statistics
from typing import Any

import optuna
import pytest

from mc1opt.database.records import StudyRecord
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.models.cost import cost
from mc1opt.search.definition import load_definition
from mc1opt.search.plan import (
    LEAST_TRIALS,
    SHARE_TRAINED,
    TRIAL_BYTES,
    expected_bytes,
    expected_seconds,
    has_timings,
    typical_config,
)
from mc1opt.spec import Fidelity
from tests.support.display import study, trial
from tests.support.studies import choosy_space, definition_of, run_study, stored

SECONDS = [1.0, 2.0, 3.0, 4.0, 5.0]
"""Of an epoch, in five complete trials of five epochs."""
OWN = study(*(trial(number, epoch_seconds=seconds) for number, seconds in enumerate(SECONDS)))


def plan(record: StudyRecord, **changes: Any) -> float | None:
    fields: dict[str, Any] = {
        "trials": 100,
        "fidelity": Fidelity(train_images=20_000, epochs=5),
        "workers": 2,
        "pruner": "narrowing",
    }
    return expected_seconds(record, **(fields | changes))


def test_five_trials_of_the_study_say_how_long_the_others_take() -> None:
    assert (
        plan(OWN) == plan(OWN, typical_epoch=1000.0) == pytest.approx(95 * 5 * statistics.mean(SECONDS) / 2)
    )


def test_what_pruning_saves_is_in_the_mean() -> None:
    pruned = study(*OWN.trials, trial(5, "pruned", epoch_seconds=3.0))
    assert plan(pruned) == pytest.approx(94 * statistics.mean([*(5 * s for s in SECONDS), 9.0]) / 2)


def test_trials_that_were_not_trained_say_nothing() -> None:
    others = [trial(9, "too_large"), trial(10, "duplicate"), trial(11, "failed"), trial(12, "waiting")]
    assert plan(study(*OWN.trials, *others)) == plan(OWN)


def test_the_last_trial_is_not_divided_among_workers() -> None:
    assert plan(OWN, trials=6, workers=4) == pytest.approx(15.0)
    assert plan(OWN, trials=5) == plan(OWN, trials=3) == 0.0


@pytest.mark.parametrize(("record", "typical_epoch"), [(OWN, None), (study(), 2.0)])
def test_confirmations_are_whole_trainings_besides(record: StudyRecord, typical_epoch: float | None) -> None:
    without = plan(record, typical_epoch=typical_epoch)
    two = plan(record, typical_epoch=typical_epoch, confirmations=2)
    six = plan(record, typical_epoch=typical_epoch, confirmations=6)
    assert without is not None
    assert two is not None
    assert six is not None
    assert six - without == pytest.approx(3 * (two - without))
    assert two > without
    assert plan(OWN, trials=5, confirmations=1) == pytest.approx(5 * statistics.mean(SECONDS))


@pytest.mark.parametrize("count", [0, LEAST_TRIALS - 1])
def test_with_fewer_trials_the_time_comes_from_a_typical_epoch(count: int) -> None:
    few = study(*OWN.trials[:count])
    assert not has_timings(few)
    one, two = plan(few, typical_epoch=1.0), plan(few, typical_epoch=2.0)
    assert one is not None
    assert two == pytest.approx(2 * one)
    assert plan(few) is None


def test_without_a_pruner_all_epochs_are_trained() -> None:
    pruned, whole = plan(study(), typical_epoch=1.0), plan(study(), typical_epoch=1.0, pruner="none")
    assert pruned is not None
    assert whole == pytest.approx(pruned / SHARE_TRAINED)


def test_disk_is_the_trials_and_the_kept_weights() -> None:
    record = study(
        trial(0, parameters=1000),
        trial(1, "pruned", parameters=5000),
        trial(2, "too_large", parameters=10**9),
    )
    assert expected_bytes(100, 5, record) == 100 * TRIAL_BYTES + 5 * 4 * 5000
    assert expected_bytes(1, 5, study()) > 1_000_000


def test_a_study_takes_about_as_much_disk_as_expected(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("disk") / "s.db"
    run_study(4, path=str(path))
    expected = expected_bytes(len(stored(str(path)).trials), 0, study())
    assert expected / 5 < path.stat().st_size < expected * 2


CNN = load_definition("cnn")


def test_the_typical_config_costs_about_the_mean_of_those_that_are_affordable() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    macs = [cost(CNN.config(study.ask()).architecture, CIFAR10_SHAPE).macs for _ in range(200)]
    for limit in (5_000_000, 20_000_000):
        mean = statistics.mean(value for value in macs if value <= limit)
        assert (
            0.5 * mean
            < cost(typical_config(CNN, limit).architecture, CIFAR10_SHAPE).macs
            < min(2 * mean, limit)
        )


def test_the_typical_config_is_a_feasible_one() -> None:
    definition = definition_of(choosy_space)
    assert typical_config(definition, 10**9).batch_size <= 200
