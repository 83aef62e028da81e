"""Whether the probabilities of a classifier can be believed: of what it is 80 % sure, 80 % is right."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Bins of the calibration error (Guo et al., 2017)."""

Probabilities = NDArray[np.floating[Any]]
"""N x classes."""


class Bin(NamedTuple):
    """Images whose decisions have about the same probability."""

    images: int
    confidence: float
    """Mean probability of the decisions."""
    accuracy: float


def probabilities(logits: NDArray[np.floating[Any]]) -> Probabilities:
    """The softmax of logits, N x classes."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares: Probabilities = powers / powers.sum(1, keepdims=True)
    return shares


def reliability(shares: Probabilities, labels: NDArray[np.int64]) -> list[Bin]:
    """Bins of equal width by the probability of the decision, those that have images; upper bounds included.

    Args:
        shares: probabilities, N x classes.
        labels: N.
    """
    confidence = shares.max(axis=1).astype(np.float64)
    correct = shares.argmax(axis=1) == labels
    # Integers rather than comparisons with bounds, so that each image is in exactly one bin.
    place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    sums = [np.bincount(place, weights, minlength=BINS) for weights in (confidence, correct)]
    return [
        Bin(int(count), float(sure / count), float(right / count))
        for count, sure, right in zip(counts, *sums, strict=True)
        if count
    ]


def expected_calibration_error(shares: Probabilities, labels: NDArray[np.int64]) -> float:
    """The expected calibration error: 0 is perfect, 1 the worst.

    |accuracy - mean confidence| averaged over the bins of `reliability`, weighted by their images (Guo et
    al., "On Calibration of Modern Neural Networks", 2017; Naeini et al., 2015).
    """
    return calibration_error(reliability(shares, labels))


def calibration_error(bins: list[Bin]) -> float:
    """The same of bins."""
    images = sum(each.images for each in bins)
    return sum(each.images * abs(each.accuracy - each.confidence) for each in bins) / images
