"""Replays of whole searches on recorded curves: the model, and that a replay is a search."""

from itertools import islice
from typing import Any

import numpy as np
import pytest

from benchmarks import replay_from
from benchmarks.curves import EPOCHS, points
from benchmarks.replay import ARMS, Surrogate, Task, rank_table, replay
from mc1opt.config import config_id
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.models.cost import cost
from mc1opt.search.warm_start import begin_from


def lines(count: int) -> list[dict[str, Any]]:
    """Trainings as `benchmarks.curves` records them: the more multiply-accumulates, the better."""
    recorded = []
    for point in islice(points(), count):
        macs = cost(point.config.architecture, CIFAR10_SHAPE).macs
        for seed in range(3 if point.index == 0 else 1):
            for epochs in EPOCHS:
                values = [0.1 + 0.6 * macs / 2e7 * (epoch + 1) / 5 + seed / 100 for epoch in range(epochs)]
                recorded.append(
                    {
                        "config_id": config_id(point.config),
                        "seed": seed,
                        "epochs": epochs,
                        "params": point.params,
                        "macs": macs,
                        "values_by_epoch": values,
                        "epoch_seconds": [1e-6 * (macs + 2e6)] * epochs,
                    }
                )
    return recorded


@pytest.fixture(scope="module")
def surrogate() -> Surrogate:
    return Surrogate(lines(30))


def test_the_model_gives_the_recorded_curves_and_says_how_wrong_it_is(surrogate: Surrogate) -> None:
    for point in islice(points(), 5):
        curve = surrogate.curve(point.params, point.config, 5)
        expected = 0.1 + 0.6 * cost(point.config.architecture, CIFAR10_SHAPE).macs / 2e7 * np.arange(1, 6) / 5
        np.testing.assert_allclose(curve, expected, atol=0.03)
    errors = np.array(surrogate.errors())
    assert len(errors) == 32  # the first config with each of its seeds
    assert 0.0 < np.abs(errors[:, 0] - errors[:, 1]).mean() < 0.15
    assert surrogate.seed_noise == pytest.approx(0.0083, abs=0.001)  # 0.01, less that of 5,000 images
    assert surrogate.epoch_seconds(1e7) == pytest.approx(12.0)


def test_curves_without_all_schedules_are_left_out() -> None:
    assert len(Surrogate(lines(10)[:-1]).params) == 11


@pytest.mark.parametrize("arm", ["random, short", "local, none"])
def test_a_replay_is_the_same_again_and_finds_what_is_there(arm: str, surrogate: Surrogate) -> None:
    task = Task(trials=20)
    first = replay(ARMS[arm], surrogate, 1, task)
    assert replay(ARMS[arm], surrogate, 1, task) == first
    assert first.trained == 20
    assert 0.1 < first.truth < 0.7
    assert 60.0 < first.seconds < task.seconds


def test_the_wide_space_knows_every_trial_of_the_narrow_one(
    surrogate: Surrogate, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = []

    def noted(*arguments: Any) -> Any:
        accounts.append(begin_from(*arguments))
        return accounts[-1]

    monkeypatch.setattr(replay_from, "begin_from", noted)
    monkeypatch.setattr(replay_from, "BEFORE", 8)
    monkeypatch.setattr(replay_from, "FURTHER", 4)
    narrow, begun = replay_from.begun_from_narrow("local", surrogate, 0, {})
    assert 0.1 < narrow < 0.7
    assert 0.1 < begun < 0.7
    ((account, known),) = accounts
    assert account.compares
    assert (account.trials, account.fit) == (8, 8)
    assert {trial.params["activation"] for trial in known} == {"relu"}
    assert 1 <= len(account.starting_points) <= 3


def test_early_values_are_compared_with_the_end_by_rank() -> None:
    end = np.linspace(0.5, 0.9, 9)
    values = np.tile(end[:, None], len(Surrogate.COLUMNS))
    values[:, 1] = -end
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rank_table(values).split("\n")]
    assert cells[0][2:] == ["epoch 1 of 5", *(f"epoch {n} of 5" for n in (2, 3, 4)), "epoch 1 of 1"]
    assert cells[2][1:] == ["9", "1.00", "-1.00", "1.00", "1.00", "1.00"]
    assert cells[3][:2] == ["above 0.75", "3"]
