"""The metrics as functions of logits and labels, as scikit-learn defines them; a study file's own among them.

All take logits (float, N x classes) and labels (int64, N) as NumPy arrays, N being at least 1.
"""

import hashlib
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mc1opt.errors import StudyFileError
from mc1opt.metric import FUNCTION, Metric
from mc1opt.study_file import StudyFile, what

Logits = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]
MetricFunction = Callable[[Logits, Labels], float]

DRAWS = 4
"""Random logits on which two functions of study files are compared."""
IMAGES_A_CLASS = 4
"""Images of each class in such a draw, at least."""
LEAST_IMAGES = 64
"""Images in it, at least."""


def accuracy(logits: Logits, labels: Labels) -> float:
    """The share of images whose largest logit is that of their label."""
    return float((logits.argmax(1) == labels).mean())


def balanced_accuracy(logits: Logits, labels: Labels) -> float:
    """The mean over the classes that have images of the share of theirs that is right."""
    right = np.bincount(labels[logits.argmax(1) == labels], minlength=logits.shape[1])
    count = np.bincount(labels, minlength=logits.shape[1])
    return float((right[count > 0] / count[count > 0]).mean())


def macro_f1(logits: Logits, labels: Labels) -> float:
    """The mean of F1 over the classes that are the label or the decision of an image.

    F1 is the harmonic mean of precision and recall; 0 for a class of which no image is found.
    """
    decisions = logits.argmax(1)
    classes = logits.shape[1]
    right = np.bincount(labels[decisions == labels], minlength=classes)
    both = np.bincount(labels, minlength=classes) + np.bincount(decisions, minlength=classes)
    return float((2.0 * right[both > 0] / both[both > 0]).mean())


def log_loss(logits: Logits, labels: Labels) -> float:
    """The mean cross entropy in nats, without label smoothing or class weights; not clipped."""
    return float(-_log_probabilities(logits)[np.arange(len(labels)), labels].mean())


def auroc(logits: Logits, labels: Labels) -> float:
    """The area under the ROC curve of each class against all others, by its probability: their mean.

    A class of all images, or of none, has no curve; 0.5 where no class has one.
    """
    probabilities = np.exp(_log_probabilities(logits))
    areas = []
    for label in np.unique(labels):
        own = labels == label
        positives, negatives = int(own.sum()), int((~own).sum())
        if negatives:
            ranks = _mean_ranks(probabilities[:, label])
            above = ranks[own].sum() - positives * (positives + 1) / 2.0  # pairs in order: Mann and Whitney
            areas.append(above / (positives * negatives))
    return float(np.mean(areas)) if areas else 0.5


NAMED: dict[str, MetricFunction] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "log_loss": log_loss,
    "auroc": auroc,
}
"""By the names of `mc1opt.metric.LABELS`."""


def metric_function(metric: Metric, classes: int) -> MetricFunction:
    """The function of a metric; that of a study file is loaded from it.

    Args:
        metric: which one.
        classes: of the images.

    Raises:
        StudyFileError: the study file is missing, is invalid or has another function now.
    """
    if metric.path is None:
        return NAMED[metric.name]
    path = Path(metric.path)
    if not path.is_file():
        raise StudyFileError(
            f"the metric {metric.name!r} is a function of {path}, which is not there. Put the file back, or "
            "give `mc1opt run` its new place with --study."
        )
    function = own_function(StudyFile(path))
    if metric.fingerprint is not None and fingerprint(function, classes) != metric.fingerprint:
        raise StudyFileError(
            f"the function `{FUNCTION}` of {path} gives other values than when the study began. Bring the "
            "old one back, or start another study with --name."
        )
    return function


def own_function(file: StudyFile) -> MetricFunction:
    """A study file's own metric, with what it returns checked.

    Raises:
        StudyFileError: the file has none, or it does not take logits and labels; when called: it raised, or
            returned no finite number.
    """
    function = getattr(file.module, FUNCTION, None)
    if not callable(function):
        raise StudyFileError(
            f"{file.path} has no function `{FUNCTION}(logits, labels)`. A known metric is named by METRIC."
        )
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise StudyFileError(f"{file.path}: `{FUNCTION}` must take logits and labels: {error}") from error

    def checked(logits: Logits, labels: Labels) -> float:
        try:
            with file.neighbours.importable():
                value = function(logits, labels)
        except Exception as error:
            raise StudyFileError(f"`{FUNCTION}` of {file.path} raised {what(error, file.path)}") from error
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise StudyFileError(
                f"`{FUNCTION}` of {file.path} returned {value!r} for {len(labels)} images; it must return a "
                "finite number."
            )
        return number

    return checked


def fingerprint(function: MetricFunction, classes: int) -> str:
    """A hash of what a function gives for fixed random logits and labels; the last digits do not count.

    It depends on what is computed, imports included; not on comments or formatting.
    """
    digest = hashlib.sha256()
    for draw in range(DRAWS):
        generator = np.random.default_rng(draw)
        images = max(LEAST_IMAGES, IMAGES_A_CLASS * classes)
        labels = generator.permutation(np.arange(images) % classes).astype(np.int64)
        logits = generator.normal(0.0, 2.0, (images, classes))
        logits[np.arange(images), labels] += draw  # from no knowledge to much
        digest.update(f"{function(logits.astype(np.float32), labels):.6g};".encode())
    return digest.hexdigest()[:16]


def _log_probabilities(logits: Logits) -> NDArray[np.float64]:
    """The logarithm of softmax, N x classes."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result


def _mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values have the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2.0)[place]
    return ranks
