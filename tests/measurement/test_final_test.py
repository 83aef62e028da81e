"""The one look at the test images: recorded, counted right, stored, and not taken twice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mc1opt.calibration import probabilities, reliability
from mc1opt.config import MLP, SGD, Config, LinearLayer
from mc1opt.data.images import open_test_images
from mc1opt.dataset import CIFAR10_CLASS_NAMES as CLASS_NAMES
from mc1opt.dataset import CIFAR10_SHAPE, DataSet
from mc1opt.errors import DataError, ModelError, StorageError
from mc1opt.measurement.final_test import (
    KEPT_A_CLASS,
    Decisions,
    FinalTest,
    infer,
    misclassified_path,
    run_final_test,
    stored_accuracies,
)
from mc1opt.measurement.plan import Job
from mc1opt.measurement.store import StoredTraining
from mc1opt.metric_functions import Logits
from mc1opt.models.build import build_model
from mc1opt.training.checkpoint import save_weights
from mc1opt.training.model_folder import file_sha256
from tests.support.curves import example_training
from tests.support.image_sets import make_arrays
from tests.support.measuring import stored_training
from tests.support.retraining import fixed_confusion, small_images

FOLDER, WEIGHTS = Path("models"), Path("w.safetensors")
CONFIG = Config(
    architecture=MLP(layers=(LinearLayer(width=4),)), optimizer=SGD(learning_rate=0.1), batch_size=10
)


def final(seed: int, weights: str = "") -> tuple[Job, StoredTraining]:
    """A finished training with this seed, and a file for its weights."""
    path = Path(weights or f"weights-{seed}")
    path.write_text(weights or str(seed))
    training = example_training(seed=seed, weights=str(path))
    return Job("#1", seed, training), stored_training(training, weights_sha256=file_sha256(path))


class Look:
    """A test of trainings, and what it wrote and measured."""

    def __init__(
        self, data: DataSet, *trained: tuple[Job, StoredTraining], decide: Any = fixed_confusion
    ) -> None:
        self.lines: list[str] = []
        self.measured: list[str] = []

        def measure(weights: Path, *arguments: object) -> Logits:
            self.measured.append(str(weights))
            logits: Logits = decide(weights, *arguments)
            return logits

        self.result = run_final_test(
            trained,
            data=data,
            reason="why",
            folder=FOLDER,
            device="cpu",
            write=self.lines.append,
            measure=measure,
        )


def openings() -> list[dict[str, str]]:
    return [json.loads(line) for line in (FOLDER / "test_openings.jsonl").read_text().splitlines()]


# ---- Opening ---------------------------------------------------------------------------------------------


def test_all_models_are_tested_at_one_opening_which_is_recorded_and_announced() -> None:
    look = Look(small_images(), *(final(seed) for seed in (5, 3, 4)))
    assert [opening["reason"] for opening in openings()] == ["why"]
    assert look.measured == ["weights-5", "weights-3", "weights-4"]
    assert list(look.result.by_seed) == [5, 3, 4]
    assert "first time" in look.lines[0]
    assert look.result.opened_before == []


def test_openings_of_before_are_named_with_their_time_and_reason() -> None:
    data = small_images()
    Look(data, final(1))
    open_test_images(data, "evaluate model x", FOLDER / "test_openings.jsonl", "cpu")
    with (FOLDER / "test_openings.jsonl").open("a") as file:
        file.write('{"time": "20\n')  # damaged, and an opening nevertheless
    look = Look(data, final(2))
    before = look.result.opened_before
    assert [text.split(" ", 1)[1] for text in before[:2]] == ["why", "evaluate model x"]
    assert len(before) == 3
    assert "3 times" in look.lines[0]
    assert all(text in look.lines[0] for text in before)


def test_only_models_that_were_not_tested_are_measured() -> None:
    data = small_images()
    first = Look(data, final(1), final(2)).result
    assert Look(data, final(1), final(3)).measured == ["weights-3"]
    assert Look(data, final(1, "other weights")).measured == ["other weights"]
    count = len(openings())
    for path in Path(data.folder).glob("test_*.npy"):
        path.unlink()
    again = Look(data, final(1), final(2))
    assert (again.measured, len(openings())) == ([], count)
    assert (again.result.confusions, again.result.time) == (first.confusions, first.time)
    assert "stay closed" in again.lines[0]


def test_images_that_cannot_be_opened_are_an_error_and_the_attempt_is_recorded() -> None:
    data = small_images()
    (Path(data.folder) / "test_images.npy").unlink()
    with pytest.raises(DataError, match="test_images"):
        Look(data, final(1))
    assert len(openings()) == 1


# ---- Counting --------------------------------------------------------------------------------------------


def network() -> nn.Module:
    torch.manual_seed(0)
    return build_model(
        CONFIG.architecture, CIFAR10_SHAPE, mean=torch.full((3,), 128.0), std=torch.full((3,), 64.0)
    )


def decided(count: int) -> Decisions:
    """What the network in `WEIGHTS` decides on so many images."""
    arrays = make_arrays(test_images=count)
    images, labels = torch.from_numpy(arrays.test_images), torch.from_numpy(arrays.test_labels).long()
    return infer(WEIGHTS, CONFIG, CIFAR10_SHAPE, images, labels).argmax(1)


def test_a_networks_decisions_are_those_of_its_greatest_logits() -> None:
    count = 1001  # more than two batches, the last one of a single image
    model = network()
    save_weights(model, WEIGHTS, {})
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(make_arrays(test_images=count).test_images)).argmax(1)
    assert decided(count).tolist() == expected.tolist()
    assert len(set(expected.tolist())) > 1


def test_damaged_weights_and_logits_that_are_not_finite_are_errors() -> None:
    WEIGHTS.write_bytes(b"no weights")
    with pytest.raises(ModelError, match="safetensors"):
        decided(1)
    model = network()
    with torch.no_grad():
        list(model.parameters())[-2].fill_(3e38)  # finite, and its products are not
    save_weights(model, WEIGHTS, {})
    with pytest.raises(ModelError, match="not finite"):
        decided(20)


def test_confusions_and_wrong_images_are_counted_by_true_class_and_decision() -> None:
    data = small_images()
    look = Look(data, final(1))
    labels = np.load(Path(data.folder) / "test_labels.npy")
    (line,) = [json.loads(line) for line in (FOLDER / "test_results.jsonl").read_text().splitlines()]
    decisions = labels.astype(int)
    for index, decision in line["wrong"]:
        assert decision == (labels[index] + 1) % 10
        decisions[index] = decision
    expected = np.zeros((10, 10), dtype=int)
    for label, decision in zip(labels, decisions, strict=True):
        expected[label, decision] += 1
    assert look.result.kept == line["confusion"] == expected.tolist()
    assert len(line["wrong"]) == len(labels) // 5


@pytest.mark.parametrize(
    ("field", "value"),
    [("training", None), ("weights_sha256", 7), ("confusion", [[1, 2]]), ("confusion", []), ("time", 3)],
)
def test_a_damaged_result_is_an_error_that_names_its_line(field: str, value: object) -> None:
    Look(small_images(), final(1), final(2))
    path = FOLDER / "test_results.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(json.loads(second) | {field: value})}\n")
    with pytest.raises(StorageError, match=rf"test_results\.jsonl, line 2 .*{field}"):
        stored_accuracies(FOLDER)


def test_a_few_wrong_images_of_the_kept_model_are_kept_for_people_to_look_at() -> None:
    data = small_images()
    finals = [final(1), final(2)]
    Look(data, *finals)
    images = np.load(Path(data.folder) / "test_images.npy")
    labels = np.load(Path(data.folder) / "test_labels.npy")
    (path,) = FOLDER.glob("misclassified-*.npz")
    assert path == misclassified_path(FOLDER, finals[0][1].weights_sha256)
    with np.load(path, allow_pickle=False) as kept:
        indices = kept["indices"]
        assert len(indices) > 0
        assert (kept["images"] == images[indices]).all()
        assert (kept["labels"] == labels[indices]).all()
        assert (kept["decisions"] == (labels[indices] + 1) % 10).all()
        assert np.bincount(kept["labels"]).max() <= KEPT_A_CLASS


def test_the_surest_mistakes_of_a_class_are_kept_and_every_image_is_in_a_bin() -> None:
    data = small_images()
    labels = np.load(Path(data.folder) / "test_labels.npy")
    logits = np.random.default_rng(0).normal(0.0, 2.0, (len(labels), 10))
    look = Look(data, final(1), decide=lambda *_: logits)
    shares = probabilities(logits)
    wrong = shares.argmax(1) != labels
    (path,) = FOLDER.glob("misclassified-*.npz")
    with np.load(path, allow_pickle=False) as kept:
        for label in np.unique(labels[wrong]):
            surest = np.sort(shares.max(1)[wrong & (labels == label)])[::-1][:KEPT_A_CLASS]
            assert kept["confidences"][kept["labels"] == label].tolist() == surest.tolist()
    assert sum(each.images for each in look.result.calibration) == len(labels)
    assert look.result.to_json()["calibration"] == [list(each) for each in reliability(shares, labels)]


def diagonal(correct: int, wrong: int) -> list[list[int]]:
    """So many of each class are decided rightly and, as the next class, wrongly."""
    return [
        [correct if row == column else wrong if column == (row + 1) % 10 else 0 for column in range(10)]
        for row in range(10)
    ]


def test_accuracies_are_shares_of_the_diagonal() -> None:
    first, second = diagonal(9, 1), diagonal(6, 4)
    first[3] = [0] * 10
    second[3] = [0] * 10
    second[0] = [0, 10, 0, 0, 0, 0, 0, 0, 0, 0]
    result = FinalTest({11: first, 12: second}, [], "", CLASS_NAMES)
    assert result.by_seed == {11: 81 / 90, 12: 48 / 90}
    shares = dict.fromkeys(CLASS_NAMES, 15 / 20) | {"airplane": 9 / 20, "cat": None}
    assert result.by_class == shares
    assert result.kept == first
    printed = result.to_json()
    assert printed["by_seed"] == {"11": 0.9, "12": 48 / 90}
    assert printed["mean"] == pytest.approx((0.9 + 48 / 90) / 2)
    assert printed["n"] == 2
    assert printed["confusion"] == first
