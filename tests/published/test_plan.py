"""Which trainings measure the presets, and that they fit: bounds, and memory looked at before the start."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mc1opt.data.sources import find_data
from mc1opt.errors import Mc1optError, UsageError
from mc1opt.machine.memory import evaluation_memory, training_memory
from mc1opt.measurement.store import TrainingKey
from mc1opt.presets import PRESETS
from mc1opt.published import plan as ladder_plan
from mc1opt.published.plan import Entry, LadderPlan, make_plan, preset_entry, seed_value
from mc1opt.spec import DataSet, Fold
from tests.support.image_sets import make_arrays, write_arrays
from tests.support.measuring import ROW_1, ROW_2
from tests.support.retraining import small_images

DEEP = "cnn-deep"
GIGABYTE = 10**9


@pytest.fixture
def data() -> DataSet:
    return small_images()


def entry(name: str = ROW_1, recipe: Any = "published", seeds: int = 2, epochs: int | None = 3) -> Entry:
    return preset_entry(PRESETS[name], recipe, seeds=seeds, epochs=epochs)


def plan(data: DataSet, *entries: Entry, **changes: Any) -> LadderPlan:
    fields: dict[str, Any] = {
        "folds": 0,
        "data": data,
        "device": "cpu",
        "precision": "float32",
        "workers": "1",
        "folder": Path("storage/presets"),
    }
    return make_plan(entries or [entry()], **(fields | changes))


def with_free_memory(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(ladder_plan, "available_memory", lambda: int(free))


# ---- The trainings ---------------------------------------------------------------------------------------


def test_entries_come_one_after_the_other_seeds_before_folds(data: DataSet) -> None:
    made = plan(data, entry(), entry(ROW_2, "mc1opt"), folds=2)
    assert [job.label for job in made.jobs()] == [
        f"{name} {part}"
        for name in (f"{ROW_1} (published)", f"{ROW_2} (mc1opt)")
        for part in ("seed 1", "seed 2", "fold 1", "fold 2")
    ]
    assert [job.seed for job in made.jobs()] == [0, 1, 0, 0] * 2


def test_seeds_are_the_same_for_all_presets_and_recipes(data: DataSet) -> None:
    made = plan(data, entry(), entry(ROW_2, "mc1opt"))
    for one in made.entries:
        assert [job.training.seed for job in made.seed_jobs(one)] == [seed_value(0), seed_value(1)]
    assert seed_value(0) != seed_value(1)


def test_seeds_train_on_all_images_and_keep_weights_that_no_other_training_writes(data: DataSet) -> None:
    made = plan(data, entry(), entry(recipe="mc1opt"), entry(epochs=4), entry(ROW_2))
    jobs = [job for one in made.entries for job in made.seed_jobs(one)]
    assert {job.training.fidelity.train_images for job in jobs} == {200}
    assert {job.training.data.validation_images for job in jobs} == {0}
    assert len({job.training.weights for job in jobs}) == len(jobs)
    assert len({TrainingKey.of(job.training) for job in jobs}) == len(jobs)


def test_folds_have_the_first_seed_and_as_many_images_each(data: DataSet) -> None:
    made = plan(data, folds=3)
    jobs = made.fold_jobs(made.entries[0])
    assert [job.training.fold for job in jobs] == [Fold(index=index, count=3) for index in range(3)]
    assert {job.training.seed for job in jobs} == {seed_value(0)}
    assert {job.training.fidelity.train_images for job in jobs} == {200 - 67}
    assert {job.training.weights for job in jobs} == {None}


def test_epochs_are_the_recipes_default_or_those_that_are_given() -> None:
    for recipe in ("published", "mc1opt"):
        assert entry(recipe=recipe, epochs=None).epochs == PRESETS[ROW_1].epochs[recipe]
    assert entry(epochs=7).epochs == 7


def test_an_arm_may_lack_some_seeds(data: DataSet) -> None:
    made = plan(data, dataclasses.replace(entry(), seeds=(1, 3)))
    assert [job.seed for job in made.jobs()] == [1, 3]


# ---- Bounds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1001, 10**15])
def test_more_seeds_than_make_sense_are_refused(seeds: int) -> None:
    with pytest.raises(UsageError, match=f"--seeds {seeds} is too many; at most 1000"):
        entry(seeds=seeds)


def test_more_folds_than_the_smallest_class_has_images_are_refused() -> None:
    arrays = make_arrays(train_images=200)
    arrays.train_labels[np.flatnonzero(arrays.train_labels == 3)[7:]] = 4
    write_arrays(Path("images"), arrays)
    data = find_data(Path("images"))
    assert plan(data, folds=7).folds == 7
    with pytest.raises(
        UsageError, match=r"--folds 8 is too many: the smallest class of own-\w+ has 7 .*most 7"
    ):
        plan(data, folds=8)


# ---- Memory ----------------------------------------------------------------------------------------------


def needs(name: str, data: DataSet) -> tuple[int, int]:
    """Bytes of a training, and of the test."""
    config = PRESETS[name].config
    training = training_memory(
        config, train_images=data.train_images, validation_images=0, device="cpu", precision="float32"
    )
    return training.host, evaluation_memory(config, 10_000, "cpu").host


def test_what_does_not_fit_is_refused_with_what_it_takes_and_what_to_do(
    data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free_memory(monkeypatch, 1.2 * GIGABYTE)
    with pytest.raises(Mc1optError) as caught:
        plan(data, entry(), entry(DEEP))
    assert caught.value.exit_code == 1
    message = str(caught.value)
    assert message.startswith("too little memory: a training of cnn-deep (54,093,194 parameters) takes about")
    assert "1.2 GB are free" in message
    assert "use a machine with at least" in message
    assert "`mc1opt presets`" in message


def test_more_workers_than_fit_are_refused_with_how_many_do(
    data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    each, once = needs(DEEP, data)
    with_free_memory(monkeypatch, once + 2.5 * each)
    with pytest.raises(UsageError, match=r"--workers 3 is too many: .* Give --workers 2\."):
        plan(data, entry(DEEP), workers="3")
    assert plan(data, entry(DEEP), workers="2").workers == 2


def test_auto_takes_as_many_workers_as_fit_and_there_are_cpus(
    data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder_plan, "resolve_workers", lambda _text, _device: 4)
    each, once = needs(DEEP, data)
    for free, workers in ((1.5, 1), (3.5, 3), (100, 4)):
        with_free_memory(monkeypatch, once + free * each)
        assert plan(data, entry(DEEP), workers="auto").workers == workers


def test_the_largest_preset_decides(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    each, once = needs(ROW_1, data)
    with_free_memory(monkeypatch, once + 1.1 * each)
    assert plan(data).memory_each == each
    with pytest.raises(Mc1optError, match="cnn-deep"):
        plan(data, entry(), entry(DEEP))


def test_on_a_gpu_its_own_memory_counts_too(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free_memory(monkeypatch, 100 * GIGABYTE)
    monkeypatch.setattr(ladder_plan, "free_device_memory", lambda: 8 * GIGABYTE)
    made = plan(data, entry(DEEP), device="cuda", workers="2")
    assert made.workers == 2
    with pytest.raises(UsageError, match=r"of GPU memory.* Give --workers \d\."):
        plan(data, entry(DEEP), device="cuda", workers="32")
    # What takes the most of the GPU's memory need not be what takes the most of the host's.
    names = ("cnn-6-16-fc", "cnn-32-128")
    monkeypatch.setattr(ladder_plan, "free_device_memory", lambda: 3 * GIGABYTE)
    together = plan(data, *(entry(name) for name in names), device="cuda", workers="auto")
    assert together.workers == min(
        plan(data, entry(name), device="cuda", workers="auto").workers for name in names
    )
    monkeypatch.setattr(ladder_plan, "free_device_memory", lambda: GIGABYTE)
    with pytest.raises(Mc1optError, match=r"too little memory: .* of GPU memory"):
        plan(data, entry(DEEP), device="cuda")
