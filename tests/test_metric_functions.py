"""The metrics against scikit-learn, and a study file's own: what is refused, and how a change is noticed."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics

from mc1opt.errors import StudyFileError
from mc1opt.metric import FUNCTION, Metric
from mc1opt.metric_functions import NAMED, fingerprint, metric_function, own_function
from mc1opt.study_file import StudyFile


def softmax(logits):
    probabilities = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return probabilities / probabilities.sum(1, keepdims=True)


def auroc(labels, logits):
    probabilities = softmax(logits)
    if probabilities.shape[1] == 2:
        return sklearn.metrics.roc_auc_score(labels, probabilities[:, 1])
    return sklearn.metrics.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")


REFERENCES = {
    "accuracy": lambda labels, logits: sklearn.metrics.accuracy_score(labels, logits.argmax(1)),
    "balanced_accuracy": lambda labels, logits: sklearn.metrics.balanced_accuracy_score(
        labels, logits.argmax(1)
    ),
    "macro_f1": lambda labels, logits: sklearn.metrics.f1_score(
        labels, logits.argmax(1), average="macro", zero_division=0
    ),
    "log_loss": lambda labels, logits: sklearn.metrics.log_loss(
        labels, softmax(logits), labels=np.arange(logits.shape[1])
    ),
    "auroc": auroc,
}


def draw(seed: int, classes: int, images: int, *, rare: bool = False):
    """Logits with ties among them, and labels; every class has an image."""
    generator = np.random.default_rng(seed)
    shares = np.geomspace(1.0, 0.01, classes) if rare else np.ones(classes)
    labels = generator.choice(classes, images, p=shares / shares.sum())
    labels[:classes] = np.arange(classes)
    logits = generator.normal(0.0, 1.0, (images, classes)).round(1)
    logits[np.arange(images), labels] += seed
    return logits.astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("rare", [False, True])
@pytest.mark.parametrize(("classes", "images"), [(2, 50), (3, 40), (10, 500), (50, 400)])
def test_a_metric_is_scikit_learns(name, classes, images, rare):
    for seed in range(3):
        logits, labels = draw(seed, classes, images, rare=rare)
        expected = REFERENCES[name](labels, logits)
        assert NAMED[name](logits, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "macro_f1", "log_loss"])
def test_a_class_without_images_counts_as_in_scikit_learn(name):
    logits, labels = draw(1, 5, 60)
    some = labels != 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of decisions for a class without images
        expected = REFERENCES[name](labels[some], logits[some])
    assert NAMED[name](logits[some], labels[some]) == pytest.approx(expected, abs=1e-12)


def test_auroc_is_the_mean_over_the_classes_that_have_a_curve():
    logits, labels = draw(1, 5, 60)
    some = labels != 3
    probabilities = softmax(logits[some])
    areas = [
        sklearn.metrics.roc_auc_score(labels[some] == label, probabilities[:, label])
        for label in (0, 1, 2, 4)
    ]
    assert NAMED["auroc"](logits[some], labels[some]) == pytest.approx(np.mean(areas), abs=1e-12)
    assert NAMED["auroc"](logits[labels == 0], labels[labels == 0]) == 0.5


def test_logits_that_are_surely_wrong_have_a_finite_loss():
    logits, labels = np.array([[0.0, 1000.0]], dtype=np.float32), np.array([0])
    assert NAMED["log_loss"](logits, labels) == 1000.0


# ---- A study file's own ----------------------------------------------------------------------------------

COST = """
import numpy as np
from _weights import WEIGHT

def metric(logits, labels):
    assert logits.dtype == np.float32 and labels.dtype == np.int64
    return {weight} * float((logits.argmax(1) != labels).mean()) * WEIGHT
"""


def write(text: str, weight: float = 1.0) -> Path:
    path = Path("mine.py")
    path.write_text(text)
    Path("_weights.py").write_text(f"WEIGHT = {weight}\n")
    return path.resolve()


def cost_of(path: Path, classes: int = 3) -> Metric:
    found = fingerprint(own_function(StudyFile(path)), classes)
    return Metric(name="cost", direction="minimize", path=str(path), fingerprint=found)


def test_an_own_metric_may_import_from_its_folder(monkeypatch, tmp_path):
    metric = cost_of(write(COST.format(weight=2)))
    monkeypatch.chdir("/")
    logits, labels = draw(1, 3, 40)
    expected = 2 * (1 - NAMED["accuracy"](logits, labels))
    assert metric_function(metric, 3)(logits, labels) == pytest.approx(expected)


@pytest.mark.parametrize("weights", [(3, 1.0), (2, 1.5)], ids=["in the file", "in what it imports"])
def test_a_changed_metric_is_noticed(weights):
    metric = cost_of(write(COST.format(weight=2)))
    write("# A comment changes nothing.\n" + COST.format(weight=2))
    assert metric_function(metric, 3)
    write(COST.format(weight=weights[0]), weights[1])
    with pytest.raises(StudyFileError, match="gives other values than when the study began"):
        metric_function(metric, 3)


def test_a_metric_whose_file_is_gone_says_what_to_do():
    metric = cost_of(write(COST.format(weight=2)))
    Path("mine.py").unlink()
    with pytest.raises(StudyFileError, match="not there"):
        metric_function(metric, 3)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    return 1 / 0", r"mine.py raised ZeroDivisionError: division by zero \(line 2\)"),
        ("    return float('nan')", "returned nan for 64 images; it must return a finite number"),
        ("    return None", "returned None"),
        ("    return 'good'", "returned 'good'"),
    ],
)
def test_what_a_metric_may_not_do_is_said(body, message):
    function = own_function(StudyFile(write(f"def metric(logits, labels):\n{body}\n")))
    with pytest.raises(StudyFileError, match=message):
        fingerprint(function, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", rf"has no function `{FUNCTION}\(logits, labels\)`"),
        ("metric = 'macro_f1'", "A known metric is named by METRIC"),
        ("def metric(logits):\n    return 0", "must take logits and labels"),
    ],
)
def test_what_is_no_metric_is_refused(text, message):
    with pytest.raises(StudyFileError, match=message):
        own_function(StudyFile(write(text)))
