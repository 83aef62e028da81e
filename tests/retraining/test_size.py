"""How wide and how long candidates train for an hour, by seconds that belong to this machine."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mc1opt.config import Config, CustomNetwork, Muon
from mc1opt.database.records import TrialRecord
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.errors import StorageError
from mc1opt.machine import devices
from mc1opt.machine.environment import versions
from mc1opt.measurement.store import TrainingStore
from mc1opt.models.cost import cost
from mc1opt.retraining.comparison import Candidate
from mc1opt.retraining.plan import RetrainPlan
from mc1opt.retraining.size import (
    BUDGET_SECONDS,
    COMPARISON_SHARE,
    LEAST_EPOCHS,
    MOST_EPOCHS,
    MOST_GROWTH,
    UNKNOWN_EPOCHS,
    remember,
    remembered,
    timed_here,
    timer,
    within_budget,
)
from mc1opt.spec import EpochResult, Training
from mc1opt.study_file import code_hash
from tests.support.curves import CurvePool
from tests.support.retraining import candidate, record_of, retrain_plan, trial_record

MODELS = Path("models")

# ---- Wider and longer ------------------------------------------------------------------------------------


def by_macs(config: Config) -> float:
    """Seconds of an epoch at the search's fidelity in proportion to the network's cost: 2.0 for 8 units."""
    return 2.0 * macs(config) / macs(candidate(8).config)


def macs(config: Config) -> int:
    return cost(config.architecture, CIFAR10_SHAPE).macs


def sized(*candidates: Candidate, **changes: Any) -> RetrainPlan:
    plan = retrain_plan(*(candidates or [candidate(8, 2.0), candidate(12, 3.0)]), epochs=0, **changes)
    return within_budget(plan, lambda configs: [by_macs(each) for each in configs])


@pytest.mark.parametrize(
    "changes",
    [{}, {"folds": 5}, {"workers": 3}, {"seeds": 5}, {"keep_size": True}, {"budget": 2 * BUDGET_SECONDS}],
    ids=str,
)
def test_all_trainings_take_about_their_budget(changes: dict[str, Any]) -> None:
    seconds = sized(**changes).progress(TrainingStore(Path("none.jsonl"))).seconds
    budget = changes.get("budget", BUDGET_SECONDS)
    assert 0.8 * budget < seconds <= budget


def test_a_longer_training_has_a_wider_network_by_the_root_of_its_time() -> None:
    plan = sized()
    wider = {each.name: each for each in plan.candidates}
    assert list(wider) == ["#8 wider", "#12 wider", "#8"]
    for name, seconds in (("#8 wider", 2.0), ("#12 wider", 3.0)):
        for form, share in zip(wider[name].forms, (COMPARISON_SHARE, 1.0), strict=True):
            # Two of three final trainings, and the nine of the comparison, begin when a worker is free.
            final = BUDGET_SECONDS / (2 + 5 * COMPARISON_SHARE)
            expected = math.sqrt(share * final / (seconds * plan.search.epochs))
            assert form.growth == pytest.approx(min(MOST_GROWTH, expected))
            assert macs(form.config) <= form.growth * macs(wider[name].config)
    assert [form.config for form in wider["#8"].forms] == [candidate(8).config] * 2
    compared, final = wider["#8"].forms
    assert final.epochs / compared.epochs == pytest.approx(6, rel=0.2)


def test_a_custom_network_trains_longer_and_is_no_wider() -> None:
    path = Path("net.py")
    path.write_text(
        "from torch import nn\n\ndef build(data):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * data.size**2, data.classes))\n"
    )
    network = CustomNetwork(code=code_hash(path, "build"), path=str(path.resolve()))
    found = candidate(8, 2.0)
    custom = dataclasses.replace(found, config=found.config.model_copy(update={"architecture": network}))
    (each,) = sized(custom).candidates
    assert each.name == "#8"
    assert [form.growth for form in each.forms] == [1.0, 1.0]
    assert each.forms[1].epochs > each.forms[0].epochs


def test_a_training_that_is_no_longer_than_a_trial_is_no_wider() -> None:
    plan = sized(candidate(8, 500.0))
    assert [each.name for each in plan.candidates] == ["#8"]
    assert [form.epochs for form in plan.candidates[0].forms] == [LEAST_EPOCHS] * 2


def test_what_would_be_compared_in_the_same_form_is_compared_once() -> None:
    """A sixth of the final time leaves this one no room to grow, the whole of it does."""
    (only,) = sized(candidate(8, 31.0)).candidates
    assert [form.config == candidate(8).config for form in only.forms] == [True, False]
    assert only.name == "#8 wider"


def test_what_cannot_be_trained_wider_competes_as_it_was_found() -> None:
    plan = retrain_plan(candidate(8, 2.0), epochs=0)
    found = within_budget(plan, lambda configs: [None] * len(configs))
    assert [each.name for each in found.candidates] == ["#8"]


def test_a_machine_that_is_busy_while_it_is_timed_costs_no_epochs() -> None:
    plan = retrain_plan(candidate(8, 2.0), epochs=0)
    busy = within_budget(plan, lambda configs: [10 * by_macs(each) for each in configs])
    assert busy == sized(candidate(8, 2.0))


def test_the_quickest_have_bounds_and_without_seconds_there_is_a_fixed_number_of_epochs() -> None:
    quick = sized(candidate(8, 0.0001), keep_size=True)
    assert quick.candidates[0].forms[1].epochs == MOST_EPOCHS
    assert sized(candidate(8, None)).epochs == UNKNOWN_EPOCHS


def test_what_is_chosen_is_remembered_by_what_is_asked_for() -> None:
    MODELS.mkdir()
    for plan in (retrain_plan(epochs=7), retrain_plan(seeds=4, epochs=9), retrain_plan(seeds=4, epochs=8)):
        remember(plan)
    assert [remembered(retrain_plan(seeds=seeds)).epochs for seeds in (3, 4)] == [7, 8]
    assert remembered(retrain_plan(seeds=5)) is None
    assert remembered(retrain_plan(workers=1, folds=5)).epochs == 7
    assert remembered(retrain_plan(keep_size=True)) is None
    chosen = sized()
    remember(chosen)
    assert remembered(retrain_plan(candidate(8, 2.0), candidate(12, 3.0), epochs=0)) == chosen


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1]", '{"a": "y"}', '{"a": 0}', '{"a": []}', '{"a": [{"trial": 1}]}', "[" * 100_000],
    ids=len,
)
def test_damaged_notes_are_made_anew(content: str) -> None:
    plan = retrain_plan(epochs=7)
    MODELS.mkdir()
    (MODELS / "epochs.json").write_text(content.replace("a", plan.request))
    assert remembered(plan) is None
    remember(plan)
    assert remembered(plan) == plan


def test_notes_that_cannot_be_written_are_an_error_for_people() -> None:
    MODELS.touch()
    with pytest.raises(StorageError, match=r"models/epochs\.json"):
        remember(retrain_plan())


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
    plan = retrain_plan(candidate(1, 2.0), second or candidate(2, 3.0))
    time = timer(plan, lambda _workers: pool, lambda: False)
    return timed_here(plan, record_of(*trials), time, lines.append), pool, lines


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
