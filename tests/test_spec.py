"""A training as data: it goes through JSON unchanged, cannot be changed, and has no impossible values."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from mc1opt.config import (
    MLP,
    SGD,
    Augmentation,
    Config,
    ConvBlock,
    ConvNet,
    LinearLayer,
    OneCycle,
    WhitenedStem,
)
from mc1opt.dataset import DataSet
from mc1opt.spec import DEVICES, Device, EpochResult, FailureKind, Fidelity, Fold, Training, TrainingFailed

DATA = DataSet(
    name="cifar10", folder="/images", sha256="ab" * 32, train_images=50_000, validation_images=5_000
)
CONFIGS = {
    "mlp": Config(
        architecture=MLP(layers=(LinearLayer(width=64),)), optimizer=SGD(learning_rate=0.1), batch_size=64
    ),
    "convnet": Config(
        architecture=ConvNet(stem=WhitenedStem(), blocks=(ConvBlock(width=8, norm="batch"),)),
        optimizer=SGD(learning_rate=0.1 + 0.2, momentum=0.9, nesterov=True),
        schedule=OneCycle(end=0.0),
        batch_size=500,
        augmentation=Augmentation(flip=True, crop=2),
    ),
}


def training(name: str = "mlp", **changes: object) -> Training:
    fields = {
        "config": CONFIGS[name],
        "fidelity": Fidelity(train_images=45_000, epochs=8),
        "seed": 1,
        "data": DATA,
    }
    return Training(**(fields | changes))


@pytest.mark.parametrize(
    ("batch_size", "images", "parts"),
    [(100, 45_000, 4), (8, 45_000, 4), (7, 45_000, 3), (4, 45_000, 2), (3, 45_000, None), (100, 3, None)],
)
def test_smaller_steps_cut_a_batch_into_parts_of_two_images_or_more(
    batch_size: int, images: int, parts: int | None
) -> None:
    config = CONFIGS["mlp"].model_copy(update={"batch_size": batch_size})
    whole = training(config=config, fidelity=Fidelity(train_images=images, epochs=8))
    smaller = whole.in_smaller_steps()
    assert (None if smaller is None else smaller.accumulation) == parts
    if smaller is not None:
        assert smaller.model_copy(update={"accumulation": 1}) == whole
        assert smaller.in_smaller_steps() is None


def result(**changes: object) -> EpochResult:
    return EpochResult(**({"epoch": 0, "loss": 1 / 3, "validation_accuracy": 0.5, "seconds": 1.0} | changes))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "seed": 2**63 - 1,
            "device": "cuda",
            "threads": 4,
            "precision": "bfloat16",
            "weights": "w.safetensors",
            "fold": {"index": 4, "count": 5},
        },
    ],
    ids=["defaults", "everything"],
)
def test_a_training_goes_through_json_unchanged(name, changes):
    before = training(name, **changes)
    assert Training.model_validate_json(before.model_dump_json()) == before


def test_a_result_goes_through_json_bit_for_bit():
    before = result(loss=0.1 + 0.2, validation_accuracy=1 / 3, seconds=1e-9)
    assert EpochResult.model_validate_json(before.model_dump_json()) == before


def test_a_training_is_by_default_on_one_thread_of_the_cpu_and_keeps_no_weights():
    default = training()
    assert (default.device, default.threads, default.precision, default.weights) == (
        "cpu",
        1,
        "float32",
        None,
    )


@pytest.mark.parametrize(
    ("part", "field"),
    [(training(), "seed"), (training().fidelity, "epochs"), (DATA, "folder"), (result(), "loss")],
)
def test_nothing_can_be_changed(part, field):
    with pytest.raises(ValidationError, match="frozen"):
        setattr(part, field, getattr(part, field))


@pytest.mark.parametrize(
    "part", [training(), training().fidelity, DATA, result()], ids=lambda part: type(part).__name__
)
def test_an_unknown_field_is_refused_by_name(part):
    with pytest.raises(ValidationError, match=r"colour\n.*not permitted"):
        type(part).model_validate(part.model_dump() | {"colour": "red"})


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": -1},
        {"seed": 2**63},
        {"threads": 0},
        {"device": "tpu"},
        {"precision": "float16"},
        {"fidelity": {"train_images": 0, "epochs": 1}},
        {"fidelity": {"train_images": 1, "epochs": 0}},
        {"data": DATA.model_dump() | {"validation_images": -1}},
        {"fold": {"index": 2, "count": 2}},
        {"fold": {"index": -1, "count": 2}},
        {"fold": {"index": 0, "count": 1}},
        {"data": DATA.model_dump() | {"train_images": 0}},
    ],
    ids=str,
)
def test_a_training_that_cannot_be_is_refused(changes):
    with pytest.raises(ValidationError, match=next(iter(changes))):
        training(**changes)


@pytest.mark.parametrize("value", [float("nan"), -0.01, 1.01])
def test_an_accuracy_lies_between_0_and_1(value):
    with pytest.raises(ValidationError, match="validation_accuracy"):
        result(validation_accuracy=value)


def test_a_training_from_before_folds_can_be_read():
    old = training().model_dump(mode="json")
    del old["fold"]
    assert Training.model_validate(old) == training()


def test_a_fidelity_says_what_validates_only_where_it_is_not_as_before():
    before = {"train_images": 18_000, "epochs": 5}
    assert Fidelity.model_validate(before).model_dump() == before
    unused = Fidelity.model_validate(before | {"validation": "unused"})
    assert unused.model_dump() == before | {"validation": "unused"}


@pytest.mark.parametrize(
    ("train_images", "epochs", "unused"),
    [(18_000, 5, 27_000), (18_000, 1, 5_400), (1_000, 1, 5_000), (40_000, 5, 5_000), (45_000, 5, 0)],
)
def test_unused_images_cost_a_tenth_of_the_training_and_are_as_many_as_are_held_out(
    train_images, epochs, unused
):
    cifar10 = {"train_images": 50_000, "validation_images": 5_000}
    fidelity = Fidelity(train_images=train_images, epochs=epochs, validation="unused")
    some = training(data=training().data.model_copy(update=cifar10), fidelity=fidelity)
    assert some.unused_images == unused
    assert some.model_copy(update={"fold": Fold(index=0, count=5)}).unused_images == 0
    held_out = fidelity.model_copy(update={"validation": "held_out"})
    assert some.model_copy(update={"fidelity": held_out}).unused_images == 0


def test_a_result_without_validation_has_no_accuracy():
    assert result(validation_accuracy=0.25).accuracy == 0.25
    without = EpochResult.model_validate_json(result(validation_accuracy=None).model_dump_json())
    assert without.validation_accuracy is None
    with pytest.raises(ValueError, match="validation"):
        _ = without.accuracy


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_is_no_result(value):
    with pytest.raises(ValidationError, match="loss"):
        result(loss=value)


@pytest.mark.parametrize("changes", [{"epoch": -1}, {"seconds": -0.1}], ids=str)
def test_epochs_and_seconds_are_not_negative(changes):
    with pytest.raises(ValidationError, match=next(iter(changes))):
        result(**changes)


def test_the_list_of_devices_is_complete():
    assert get_args(Device) == DEVICES


@pytest.mark.parametrize("kind", get_args(FailureKind))
def test_a_failure_has_its_kind_and_says_its_message(kind):
    failure = TrainingFailed(kind, "the training loss is nan")
    assert (failure.kind, failure.message, str(failure)) == (
        kind,
        "the training loss is nan",
        "the training loss is nan",
    )


def test_none_of_the_heavy_packages_is_needed():
    code = "import sys, mc1opt.spec; sys.exit(bool({'torch', 'numpy', 'optuna'} & set(sys.modules)))"
    process = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[1])
    assert process.returncode == 0
