"""What trainings of presets have given, put together from what is stored."""

import json
from pathlib import Path

import pytest

from mc1opt.data.cache import CIFAR10_SHA256
from mc1opt.database.location import files_folder
from mc1opt.measurement.store import Failure, StoredTraining, TrainingKey
from mc1opt.presets import PRESETS
from mc1opt.published.results import (
    Folds,
    Measurement,
    SeedResult,
    measurement,
    presets_folder,
    stored_results,
)
from mc1opt.spec import DataSet, EpochResult, Fold
from tests.support.curves import example_training
from tests.support.image_sets import write_arrays_folder
from tests.support.measuring import (
    FOLDER,
    ROW_1,
    ROW_2,
    STORAGE,
    TEST_IMAGES,
    expected_accuracies,
    ladder_images,
    measured,
)


def stored(
    seed: int = 0,
    *,
    fold: Fold | None = None,
    value: float | None = None,
    failure: Failure | None = None,
    seconds: float = 1.0,
    epochs: int = 2,
    data: str = CIFAR10_SHA256["train_images"],
) -> StoredTraining:
    images = DataSet(name="x", folder="", sha256=data, train_images=1000, validation_images=0)
    training = example_training(seed=seed, fold=fold, epochs=epochs, train_images=900, data=images)
    results = [
        EpochResult(epoch=epoch, loss=1.0, validation_accuracy=value, seconds=seconds)
        for epoch in range(epochs)
    ]
    return StoredTraining(
        key=TrainingKey.of(training),
        curve=tuple(results),
        failure=failure,
        seconds=100.0,
        versions={},
        commit=None,
        ended="",
    )


def three_seeds() -> list[SeedResult]:
    return [SeedResult(stored(seed, seconds=seed), value) for seed, value in enumerate((0.5, 0.52, 0.54))]


def test_numbers_are_those_of_the_tests_over_the_seeds() -> None:
    found = measurement(three_seeds(), [])
    assert found is not None
    printed = found.to_json()
    assert (printed["n"], printed["mean"]) == (3, pytest.approx(0.52))
    assert printed["std"] == pytest.approx(0.02)
    half = 4.302652729911275 * 0.02 / 3**0.5  # Student's t for 2 degrees of freedom
    assert printed["interval"] == pytest.approx([0.52 - half, 0.52 + half], abs=1e-4)
    assert printed["by_seed"] == [0.5, 0.52, 0.54]
    assert (printed["epochs"], printed["device"], printed["precision"]) == (2, "cpu", "float32")
    assert printed["folds"] is None


def test_seconds_are_those_of_the_epochs_without_start_up() -> None:
    found = measurement(three_seeds(), [])
    assert found is not None
    assert found.seconds == pytest.approx((0.0 + 2.0 + 4.0) / 3)


def test_one_seed_has_no_spread() -> None:
    found = measurement(three_seeds()[:1], [])
    assert found is not None
    assert (found.to_json()["n"], found.to_json()["std"], found.to_json()["interval"]) == (1, None, None)


def test_nothing_is_nothing() -> None:
    assert measurement([], []) is None


def test_failures_are_counted_apart() -> None:
    failed = stored(5, failure=Failure(kind="diverged", message="nan"))
    found = measurement(three_seeds(), [failed])
    assert found is not None
    assert (found.to_json()["n"], found.to_json()["failed"]) == (3, 1)
    only = measurement([], [failed])
    assert only is not None
    assert (only.spread, only.seconds, only.to_json()["mean"]) == (None, None, None)


def test_failures_of_folds_are_not_those_of_seeds() -> None:
    failure = Failure(kind="diverged", message="nan")
    failed = stored(fold=Fold(index=1, count=10), failure=failure)
    whole = stored(fold=Fold(index=0, count=10), value=0.4)
    found = measurement(three_seeds(), [whole, failed])
    assert found is not None
    printed = found.to_json()
    assert (printed["failed"], printed["folds"]["failed"], printed["folds"]["validation"]) == (0, 1, [0.4])
    alone = measurement(three_seeds(), [failed])
    assert alone is not None
    without = alone.to_json()["folds"]
    assert (without["failed"], without["n"], without["validation"]) == (1, 0, [])
    assert without.keys() == printed["folds"].keys()


def test_trainings_whose_batches_were_split_are_counted() -> None:
    first, *others = three_seeds()
    split = SeedResult(first.stored.model_copy(update={"accumulation": 4}), first.accuracy)
    found = measurement([split, *others], [])
    assert found is not None
    assert (found.split, found.to_json()["split"]) == (1, 1)


def test_folds_stand_beside_the_spread_over_seeds_and_that_of_chance() -> None:
    folds = [stored(fold=Fold(index=i, count=10), value=v) for i, v in enumerate((0.4, 0.5, 0.6))]
    found = measurement(three_seeds(), reversed(folds))
    assert found is not None
    printed = found.to_json()["folds"]
    assert printed["validation"] == [0.4, 0.5, 0.6]
    assert (printed["mean"], printed["std"]) == (pytest.approx(0.5), pytest.approx(0.1))
    assert printed["std_over_seeds"] == pytest.approx(0.02)
    assert printed["std_by_chance"] == pytest.approx((0.25 / 100) ** 0.5)  # 900 train, so 100 validate


def test_of_two_cross_validations_the_one_with_more_folds_is_taken() -> None:
    folds = [stored(fold=Fold(index=0, count=2), value=0.9)]
    folds += [stored(fold=Fold(index=i, count=5), value=0.4) for i in range(3)]
    found = measurement([], folds)
    assert found is not None
    assert found.folds == Folds(tuple(folds[1:]))


# ---- What is stored --------------------------------------------------------------------------------------


def listed(*names: str) -> dict[str, dict[str, Measurement]]:
    return stored_results(FOLDER, [PRESETS[name] for name in names])


def test_results_are_read_back_by_preset_and_recipe() -> None:
    data = ladder_images()
    first = measured(ROW_1, ROW_2, folds=2)
    (better,) = measured(ROW_1, recipe="mc1opt", seeds=2)
    found = listed(ROW_1, ROW_2, "cnn-deep")
    assert found == {
        ROW_1: {"published": first[0], "mc1opt": better},
        ROW_2: {"published": first[1]},
        "cnn-deep": {},
    }
    assert found[ROW_1]["published"].to_json()["by_seed"] == expected_accuracies(ROW_1, 3, data)
    json.dumps(found[ROW_1]["published"].to_json())


def test_the_default_epochs_come_first_then_the_most_seeds() -> None:
    ladder_images()
    (few,) = measured(ROW_1, seeds=1, epochs=2)
    assert listed(ROW_1)[ROW_1]["published"] == few
    (more,) = measured(ROW_1, seeds=2, epochs=4)
    assert listed(ROW_1)[ROW_1]["published"] == more
    (default,) = measured(ROW_1, seeds=1, epochs=None)
    assert listed(ROW_1)[ROW_1]["published"] == default


def test_what_was_measured_on_cifar10_comes_before_what_was_on_other_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_arrays_folder(Path("images"), train_images=220, test_images=TEST_IMAGES)
    (few,) = measured(ROW_1, seeds=1)
    ladder_images()
    (more,) = measured(ROW_1, seeds=2)
    assert listed(ROW_1)[ROW_1]["published"] == more
    assert more.to_json()["data"] == more.data != few.data
    monkeypatch.setitem(CIFAR10_SHA256, "train_images", few.data)  # as if they were
    assert listed(ROW_1)[ROW_1]["published"] == few
    assert few.to_json()["data"] == "cifar10"


def test_trained_but_not_tested_is_not_measured() -> None:
    ladder_images()
    measured(ROW_1, seeds=1)
    (FOLDER / ROW_1 / "test_results.jsonl").unlink()
    assert listed(ROW_1) == {ROW_1: {}}


def test_without_a_folder_there_is_nothing() -> None:
    assert listed(ROW_1) == {ROW_1: {}}
    assert not FOLDER.exists()


def test_presets_lie_with_the_files_of_the_database() -> None:
    assert presets_folder(STORAGE) == FOLDER == files_folder(STORAGE) / "presets"
