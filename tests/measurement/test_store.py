"""Finished trainings in a file: found again by what they were, and by nothing else."""

from pathlib import Path

import pytest

from mc1opt.errors import StorageError
from mc1opt.measurement.store import Failure, TrainingKey, TrainingStore
from mc1opt.spec import Fold
from tests.support.curves import curve, example_training
from tests.support.measuring import stored_training

PATH = Path("models/trainings.jsonl")


def test_what_is_added_is_found_by_this_store_and_by_the_next_one() -> None:
    store = TrainingStore(PATH)
    assert store.find(example_training()) is None
    fold = example_training(fold=Fold(index=1, count=5))
    for training in (example_training(), fold):
        store.add(stored_training(training))
        assert store.find(training) == stored_training(training)
    for training in (example_training(), fold):
        assert TrainingStore(PATH).find(training) == stored_training(training)


def test_of_several_trainings_with_one_key_the_last_one_counts() -> None:
    for seconds in (1.0, 2.0):
        TrainingStore(PATH).add(stored_training(example_training(), seconds=seconds))
    assert TrainingStore(PATH).find(example_training()).seconds == 2.0


def test_other_files_are_read_and_their_own_file_comes_first_and_is_the_only_one_written() -> None:
    other, training = PATH.with_name("others.jsonl"), example_training(seed=1)
    TrainingStore(other).add(stored_training(example_training(), seconds=1.0))
    TrainingStore(other).add(stored_training(training, seconds=1.0))
    before = other.read_bytes()
    store = TrainingStore(PATH, other)
    store.add(stored_training(training, seconds=2.0))
    for each in (store, TrainingStore(PATH, other)):
        assert [each.find(one).seconds for one in (example_training(), training)] == [1.0, 2.0]
    assert other.read_bytes() == before
    assert TrainingStore(PATH).find(example_training()) is None


def test_a_failure_has_no_value_and_no_weights() -> None:
    training = example_training(weights="none.safetensors")
    failure = Failure(kind="diverged", message="the training loss is nan")
    stored = stored_training(training, failure=failure)
    assert stored.value is None
    assert stored_training(training).value == curve(training)[-1].accuracy
    TrainingStore(PATH).add(stored)
    assert TrainingStore(PATH).find(training) == stored


OTHERS = {
    "seed": {"seed": 9},
    "config": {"learning_rate": 0.2},
    "epochs": {"epochs": 2},
    "images": {"train_images": 500},
    "fold": {"fold": Fold(index=0, count=5)},
    "another fold": {"fold": Fold(index=1, count=5)},
    "precision": {"precision": "bfloat16"},
    "device": {"device": "cuda"},
    "threads": {"threads": 2},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_another_training_is_another_entry(changes: dict[str, object]) -> None:
    store = TrainingStore(PATH)
    store.add(stored_training(example_training()))
    assert store.find(example_training()) is not None
    assert store.find(example_training(**changes)) is None
    assert store.checkpoint_path(example_training(**changes)) != store.checkpoint_path(example_training())


def test_where_images_and_weights_lie_makes_no_other_training_and_smaller_steps_another_checkpoint() -> None:
    store, training = TrainingStore(PATH), example_training()
    moved = training.model_copy(
        update={"data": training.data.model_copy(update={"folder": "/elsewhere"}), "weights": "w"}
    )
    assert TrainingKey.of(moved) == TrainingKey.of(training)
    assert store.checkpoint_path(moved) == store.checkpoint_path(training)
    assert store.checkpoint_path(training.in_smaller_steps()) != store.checkpoint_path(training)


@pytest.mark.parametrize("line", ["{}\n", '{"key": 7}\n', "half\n" * 2], ids=["empty", "no key", "no record"])
def test_a_damaged_store_is_named_with_its_line(line: str) -> None:
    TrainingStore(PATH).add(stored_training(example_training()))
    PATH.write_text(PATH.read_text() + line)
    with pytest.raises(StorageError, match=r"trainings\.jsonl, line 2 is"):
        TrainingStore(PATH)
