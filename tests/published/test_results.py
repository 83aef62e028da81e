"""What trainings of presets have given, put together from what is stored."""

import json
from pathlib import Path
from typing import Any

import pytest

from mc1opt.data.named import CIFAR10_SHA256
from mc1opt.dataset import DataSet
from mc1opt.measurement.store import Failure, StoredTraining
from mc1opt.presets import PRESETS
from mc1opt.published.results import Measurement, measurement, stored_results
from mc1opt.spec import EpochResult, Fold
from tests.support.curves import example_training
from tests.support.image_sets import write_arrays_folder
from tests.support.measuring import (
    FOLDER,
    ROW_1,
    ROW_2,
    TEST_IMAGES,
    expected_accuracies,
    measured,
    preset_images,
    stored_training,
)

Found = tuple[StoredTraining, float | None]
DIVERGED = Failure(kind="diverged", message="nan")


def stored(
    seed: int = 0,
    *,
    fold: Fold | None = None,
    value: float | None = None,
    seconds: float = 1.0,
    epochs: int = 2,
    data: str = CIFAR10_SHA256["train_images"],
    **changes: Any,
) -> StoredTraining:
    images = DataSet(name="x", folder="", sha256=data, train_images=1000, validation_images=0)
    training = example_training(seed=seed, fold=fold, epochs=epochs, train_images=900, data=images)
    results = [
        EpochResult(epoch=epoch, loss=1.0, validation_accuracy=value, seconds=seconds)
        for epoch in range(epochs)
    ]
    return stored_training(training, curve=tuple(results), seconds=100.0, **changes)


def three_seeds(**changes: Any) -> list[Found]:
    return [(stored(seed, seconds=seed, **changes), value) for seed, value in enumerate((0.5, 0.52, 0.54))]


def ten_folds(*values: float) -> list[Found]:
    return [(stored(fold=Fold(index=i, count=10), value=value), None) for i, value in enumerate(values)]


FAILED: Found = (stored(5, failure=DIVERGED), None)
FAILED_FOLD: Found = (stored(fold=Fold(index=9, count=10), failure=DIVERGED), None)


def found(*results: Found) -> Measurement:
    result = measurement(results)
    assert result is not None
    return result


def test_numbers_are_those_of_the_tests_over_the_seeds() -> None:
    printed = found(*three_seeds()).to_json()
    half = 4.302652729911275 * 0.02 / 3**0.5  # Student's t for 2 degrees of freedom
    assert printed.pop("interval") == pytest.approx([0.52 - half, 0.52 + half], abs=1e-4)
    assert printed == {
        "n": 3,
        "mean": pytest.approx(0.52),
        "std": pytest.approx(0.02),
        "epochs": 2,
        "data": "cifar10",
        "seconds": pytest.approx((0.0 + 2.0 + 4.0) / 3),  # of the epochs, without start-up
        "device": "cpu",
        "precision": "float32",
        "by_seed": [0.5, 0.52, 0.54],
        "failed": 0,
        "split": 0,
        "folds": None,
    }
    assert found(*three_seeds(accumulation=4)[:1], *three_seeds()[1:]).to_json()["split"] == 1


def test_one_seed_has_no_spread_and_nothing_is_nothing() -> None:
    printed = found(*three_seeds()[:1]).to_json()
    assert (printed["n"], printed["std"], printed["interval"]) == (1, None, None)
    assert measurement([]) is None
    assert measurement([(stored(), None)]) is None


def test_failures_are_counted_apart_those_of_folds_beside_the_folds() -> None:
    printed = found(*three_seeds(), FAILED).to_json()
    assert (printed["n"], printed["failed"], printed["folds"]) == (3, 1, None)
    only = found(FAILED)
    assert (only.spread, only.seconds, only.to_json()["mean"]) == (None, None, None)
    some = found(*three_seeds(), *ten_folds(0.4), FAILED_FOLD).to_json()
    assert (some["failed"], some["folds"]["failed"], some["folds"]["validation"]) == (0, 1, [0.4])
    none = found(*three_seeds(), FAILED_FOLD).to_json()["folds"]
    assert (none["failed"], none["n"], none["validation"], none["std_over_seeds"]) == (1, 0, [], None)
    assert none.keys() == some["folds"].keys()


def test_folds_stand_beside_the_spread_over_seeds_and_that_of_chance() -> None:
    printed = found(*three_seeds(), *reversed(ten_folds(0.4, 0.5, 0.6))).to_json()["folds"]
    assert printed["validation"] == [0.4, 0.5, 0.6]
    assert (printed["mean"], printed["std"]) == (pytest.approx(0.5), pytest.approx(0.1))
    assert printed["std_over_seeds"] == pytest.approx(0.02)
    assert printed["std_by_chance"] == pytest.approx((0.25 / 100) ** 0.5)  # 900 train, so 100 validate


def test_of_two_cross_validations_the_one_with_more_folds_is_taken() -> None:
    others = (stored(fold=Fold(index=0, count=2), value=0.9), None)
    assert found(others, *ten_folds(0.4, 0.4, 0.4)).folds == tuple(s for s, _ in ten_folds(0.4, 0.4, 0.4))


# ---- What is stored --------------------------------------------------------------------------------------


def listed(*names: str) -> dict[str, dict[str, Measurement]]:
    return stored_results(FOLDER, [PRESETS[name] for name in names])


def test_results_are_read_back_by_preset_and_recipe() -> None:
    data = preset_images()
    first = measured(ROW_1, ROW_2, folds=2)
    (better,) = measured(ROW_1, recipe="mc1opt", seeds=2)
    found = listed(ROW_1, ROW_2, "cnn-deep")
    assert found == {
        ROW_1: {"published": first[0], "mc1opt": better},
        ROW_2: {"published": first[1]},
        "cnn-deep": {},
    }
    printed = json.loads(json.dumps(found[ROW_1]["published"].to_json()))
    assert printed["by_seed"] == expected_accuracies(ROW_1, 3, data)


def test_the_default_epochs_come_first_then_the_most_seeds() -> None:
    preset_images()
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
    preset_images()
    (more,) = measured(ROW_1, seeds=2)
    assert listed(ROW_1)[ROW_1]["published"] == more
    assert more.to_json()["data"] == more.data != few.data
    monkeypatch.setitem(CIFAR10_SHA256, "train_images", few.data)  # as if they were
    assert listed(ROW_1)[ROW_1]["published"] == few
    assert few.to_json()["data"] == "cifar10"


def test_what_was_not_tested_is_not_measured() -> None:
    assert listed(ROW_1) == {ROW_1: {}}
    assert not FOLDER.exists()
    preset_images()
    measured(ROW_1, seeds=1)
    (FOLDER / ROW_1 / "test_results.jsonl").unlink()
    assert listed(ROW_1) == {ROW_1: {}}
