"""How many epochs fit into an hour, by seconds that belong to this machine."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from mc1opt.config import Muon
from mc1opt.database.records import TrialRecord
from mc1opt.errors import StorageError
from mc1opt.machine import devices
from mc1opt.machine.environment import versions
from mc1opt.retraining.comparison import Candidate
from mc1opt.retraining.epochs import default_epochs, remember_epochs, remembered_epochs, timed_here
from mc1opt.retraining.plan import RetrainPlan
from mc1opt.spec import EpochResult, Training
from tests.support.curves import CurvePool
from tests.support.retraining import candidate, record_of, retrain_plan, trial_record

MODELS = Path("models")

# ---- Epochs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [0, 5])
def test_the_default_takes_about_an_hour_with_all_stages_and_folds(folds: int) -> None:
    plan = retrain_plan(folds=folds)
    hour, more = (retrain_plan(folds=folds, epochs=default_epochs(plan) + more) for more in (0, 1))
    seconds = [each.seconds(each.candidate_jobs(), each.winner_jobs(candidate(1))) for each in (hour, more)]
    assert seconds[0] <= 3600 < seconds[1]


@pytest.mark.parametrize(("seconds", "epochs"), [(1000.0, 5), (0.001, 200), (None, 20)])
def test_default_epochs_have_bounds_and_a_value_where_nothing_is_known(
    seconds: float | None, epochs: int
) -> None:
    assert default_epochs(retrain_plan(candidate(1, seconds))) == epochs


def test_default_epochs_are_remembered_by_what_is_asked_for() -> None:
    MODELS.mkdir()
    for plan in (retrain_plan(epochs=7), retrain_plan(seeds=4, epochs=9), retrain_plan(seeds=4, epochs=8)):
        remember_epochs(plan)
    assert [remembered_epochs(retrain_plan(seeds=seeds)) for seeds in (3, 4, 5)] == [7, 8, None]
    assert remembered_epochs(retrain_plan(workers=1, folds=5)) == 7


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": "y"}', '{"a": 0}', "[" * 100_000], ids=len)
def test_damaged_notes_are_made_anew(content: str) -> None:
    plan = retrain_plan(epochs=7)
    MODELS.mkdir()
    (MODELS / "epochs.json").write_text(content.replace("a", plan.request))
    assert remembered_epochs(plan) is None
    remember_epochs(plan)
    assert remembered_epochs(plan) == 7


def test_notes_that_cannot_be_written_are_an_error_for_people() -> None:
    MODELS.touch()
    with pytest.raises(StorageError, match=r"models/epochs\.json"):
        remember_epochs(retrain_plan())


# ---- Seconds ---------------------------------------------------------------------------------------------


class TimedPool(CurvePool):
    """An epoch takes 7 s for each 1,024 images; a validation image counts as a third."""

    def __init__(self) -> None:
        super().__init__(2)
        self.trainings: list[Training] = []

    def train(self, training: Training, on_epoch: Callable[[EpochResult], bool]) -> bool:
        self.trainings.append(training)
        images = training.fidelity.train_images + training.data.validation_images / 3
        for epoch in range(training.fidelity.epochs):
            result = EpochResult(epoch=epoch, loss=1.0, validation_accuracy=0.5, seconds=7 * images / 1024)
            if not on_epoch(result):
                return False
        return True


def trial(number: int, device: str = "cpu", **changes: object) -> TrialRecord:
    return trial_record(number, device=device, versions={**versions(1, "float32"), **changes})


def timed(*trials: TrialRecord, second: Candidate | None = None) -> tuple[RetrainPlan, TimedPool, list[str]]:
    """The plan, the pool, and the lines that were written."""
    pool, lines = TimedPool(), []
    plan = timed_here(
        retrain_plan(candidate(1, 2.0), second or candidate(2, 3.0)),
        record_of(*trials),
        new_pool=lambda _workers: pool,
        interrupted=lambda: False,
        write=lines.append,
    )
    return plan, pool, lines


def test_the_searchs_own_seconds_count_where_it_ran_on_such_a_machine() -> None:
    plan, pool, lines = timed(trial(1), trial(2))
    assert plan == retrain_plan(candidate(1, 2.0), candidate(2, 3.0))
    assert (pool.trainings, lines) == ([], [])


def test_for_muon_such_a_machine_computes_bfloat16_with_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    config = candidate(2).config.model_copy(
        update={"optimizer": Muon(learning_rate=0.02, sgd_learning_rate=0.1)}
    )
    muon = dataclasses.replace(candidate(2, 3.0), config=config)
    monkeypatch.setattr(devices, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    here = versions(1, "float32", config=config)["cpu"]
    assert timed(trial(1), trial(2, cpu=here), second=muon)[2] == []
    assert {training.config for training in timed(trial(1), trial(2), second=muon)[1].trainings} == {config}


@pytest.mark.parametrize(
    "elsewhere",
    [trial(2, device="cuda"), trial(2, cpu="AVX9000"), trial(2, precision="bfloat16")],
    ids=["device", "capability", "precision"],
)
def test_those_of_another_kind_of_machine_are_measured_again(elsewhere: TrialRecord) -> None:
    plan, pool, lines = timed(trial(1), elsewhere)
    expected = 7 * (10_000 + 5_000 / 3) / 1024
    assert [each.epoch_seconds for each in plan.candidates] == [2.0, pytest.approx(expected)]
    assert {training.config for training in pool.trainings} == {candidate(2).config}
    assert pool.closed
    assert len(lines) == 1
