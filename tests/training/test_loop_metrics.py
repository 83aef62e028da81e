"""Trainings by another metric than accuracy, and with weighted classes."""

from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import sklearn.utils.class_weight
import torch
import torch.nn.functional as F

from mc1opt.config import MLP, LinearLayer
from mc1opt.dataset import DataSet
from mc1opt.errors import StudyFileError
from mc1opt.metric import LABELS, Metric, known_metric
from mc1opt.metric_functions import NAMED, fingerprint, own_function
from mc1opt.spec import Training
from mc1opt.study_file import StudyFile
from mc1opt.training import loop
from mc1opt.training.accuracy import logits_on
from mc1opt.training.loop import Trainer, balanced_weights, train
from tests.support.images import IMAGES, VALIDATION_IMAGES, small_training, write_images


@pytest.fixture
def unbalanced(tmp_path) -> DataSet:
    """Of class 0 many images, of class 9 few."""
    folder = tmp_path / "unbalanced"
    folder.mkdir()
    data = write_images(folder)
    labels = np.load(folder / "train_labels.npy")
    chosen = np.concatenate(
        [np.flatnonzero(labels == label)[: 40 - 3 * label] for label in range(labels.max() + 1)]
    )
    for name in ("images", "labels"):
        np.save(folder / f"train_{name}.npy", np.load(folder / f"train_{name}.npy")[chosen])
    return data.model_copy(update={"train_images": len(chosen), "validation_images": len(chosen) // 4})


@pytest.mark.parametrize("name", [name for name in LABELS if name != "accuracy"])
def test_another_metric_is_measured_beside_the_same_accuracy(data, name):
    plain = list(train(small_training(data)))
    training = small_training(data, metric=known_metric(name))
    results = list(train(training))
    assert [(r.loss, r.validation_accuracy) for r in results] == [
        (r.loss, r.validation_accuracy) for r in plain
    ]
    assert [result.value for result in plain] == [result.validation_accuracy for result in plain]
    trainer = Trainer(training)
    for epoch in range(2):
        trainer.train_epoch(epoch)
    labels = trainer.images.validation_labels.numpy()
    assert len(labels) == VALIDATION_IMAGES
    logits = logits_on(trainer.averaged, trainer.images.validation_images)
    assert results[-1].metric_value == results[-1].value == NAMED[name](logits, labels)


def test_without_validation_images_there_is_no_value(data):
    everything = data.model_copy(update={"validation_images": 0})
    training = small_training(everything, train_images=IMAGES, metric=known_metric("macro_f1"))
    assert [result.judged for result in train(training)] == [None, None]


def test_logits_that_are_not_finite_fail_whatever_the_metric(data):
    trainer = Trainer(small_training(data, metric=known_metric("auroc")))
    with torch.no_grad():
        trainer.averaged.get_parameter(next(iter(dict(trainer.averaged.named_parameters())))).fill_(1e38)
    with pytest.raises(loop.TrainingFailed, match="logits on validation images"):
        trainer._validate(0)


def own_metric(text: str) -> Metric:
    path = Path("mine.py").resolve()
    path.write_text(text)
    found = fingerprint(own_function(StudyFile(path)), 10)
    return Metric(name="mine", direction="minimize", path=str(path), fingerprint=found)


def test_a_study_files_own_metric_is_measured(data):
    metric = own_metric("def metric(logits, labels):\n    return 100 * (logits.argmax(1) != labels).mean()\n")
    for result in train(small_training(data, metric=metric)):
        assert result.metric_value == pytest.approx(100 * (1 - result.validation_accuracy))


def test_a_metric_that_raises_in_a_training_names_the_line(data):
    metric = own_metric(
        "def metric(logits, labels):\n"
        "    if len(labels) == 100:\n        raise KeyError('cat')\n    return 1\n"
    )
    with pytest.raises(StudyFileError, match=r"raised KeyError: 'cat' \(line 3\)"):
        list(train(small_training(data, metric=metric)))


def test_a_resumed_training_has_the_values_of_the_metric(data, tmp_path):
    metric = own_metric(
        "def metric(logits, labels):\n    return float((logits.argmax(1) != labels).mean())\n"
    )
    file = str(tmp_path / "c.checkpoint")
    training = small_training(data, metric=metric, checkpoint=file, checkpoint_seconds=0.0)
    whole = [result.metric_value for result in train(training)]
    moved = Path("elsewhere") / "mine.py"
    moved.parent.mkdir()
    Path("mine.py").rename(moved)
    elsewhere = metric.model_copy(update={"path": str(moved.resolve())})
    again = list(train(training.model_copy(update={"metric": elsewhere})))
    assert [result.metric_value for result in again] == whole
    assert all(result.restored for result in again)
    other = training.model_copy(update={"metric": known_metric("log_loss")})
    assert not any(result.restored for result in train(other))


# ---- Class weights ---------------------------------------------------------------------------------------


def test_weights_are_scikit_learns_and_a_class_without_images_weighs_nothing():
    labels = torch.tensor([0] * 7 + [1] * 2 + [3])
    expected = sklearn.utils.class_weight.compute_class_weight(
        "balanced", classes=np.array([0, 1, 3]), y=labels.numpy()
    )
    assert balanced_weights(labels, 4)[[0, 1, 3]].numpy() * 4 / 3 == pytest.approx(expected)
    assert balanced_weights(labels, 4)[2] == 0.0
    assert balanced_weights(labels, 4)[labels].mean() == pytest.approx(3 / 4)


def test_balanced_classes_weigh_one(data):
    assert Trainer(small_training(data, class_weights="balanced")).class_weights.tolist() == [1.0] * 10


PLAIN = {"architecture": MLP(layers=(LinearLayer(width=16),)), "class_weights": "balanced"}
"""Without batch norm and dropout, which see parts."""


def step(training: Training) -> tuple[torch.Tensor, Trainer]:
    trainer = Trainer(training)
    loss = trainer._step(torch.arange(trainer.batch_size), torch.Generator().manual_seed(0))
    return loss, trainer


def test_a_step_weighs_each_image_by_its_class(unbalanced):
    training = small_training(unbalanced, train_images=150, label_smoothing=0.1, **PLAIN)
    fresh = Trainer(training)
    labels = fresh.images.train_labels[: fresh.batch_size]
    expected = len(fresh.images.train_labels) / (10 * fresh.images.train_labels.bincount(minlength=10))
    assert fresh.class_weights.tolist() == pytest.approx(expected.tolist())
    assert fresh.class_weights.max() > 2 * fresh.class_weights.min()
    fresh.model.train()
    logits = fresh.model(fresh.images.train_images[: fresh.batch_size])
    weighted = F.cross_entropy(logits, labels, expected.float(), label_smoothing=0.1)
    loss, _ = step(training)
    assert loss == pytest.approx(weighted.item(), rel=1e-5)


def test_the_parts_of_a_batch_have_the_gradient_of_the_whole(unbalanced):
    whole, parts = (
        step(small_training(unbalanced, train_images=150, accumulation=each, **PLAIN)) for each in (1, 4)
    )
    assert parts[0] == pytest.approx(whole[0].item(), rel=1e-5)
    for one, other in zip(whole[1].model.parameters(), parts[1].model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
