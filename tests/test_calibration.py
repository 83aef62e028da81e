"""Whether probabilities can be believed: bins, and the error that they give."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mc1opt.calibration import Bin, calibration_error, expected_calibration_error, probabilities, reliability


def random_results(count: int = 500) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Probabilities and labels that agree in part."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 9, count)
    logits = generator.normal(0, 2, (count, 10))
    logits[np.arange(count), labels] += 2
    return probabilities(logits).astype(np.float32), labels


def test_the_calibration_error_is_the_mean_gap_of_the_bins() -> None:
    shares, labels = random_results()
    confidence, correct = shares.max(1), shares.argmax(1) == labels
    expected = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(shares, labels) == pytest.approx(expected, abs=1e-6)
    assert 0.01 < expected < 0.5


def test_the_calibration_error_of_certainty_is_the_share_of_errors() -> None:
    shares = np.eye(10, dtype=np.float32)[[0, 1, 2, 3]]
    assert expected_calibration_error(shares, np.array([0, 1, 2, 3])) == 0.0
    assert expected_calibration_error(shares, np.array([0, 1, 2, 9])) == 0.25
    assert expected_calibration_error(shares, np.array([9, 9, 9, 9])) == 1.0


def test_each_image_is_in_one_bin_with_those_of_its_probability() -> None:
    shares = np.array([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.0, 1.0]])
    bins = reliability(shares, np.array([0, 1, 0, 1]))
    assert [each.images for each in bins] == [2, 1, 1]
    assert [each.accuracy for each in bins] == [0.5, 1.0, 1.0]
    assert [each.confidence for each in bins] == pytest.approx([0.6, 0.9, 1.0])
    assert calibration_error(bins) == pytest.approx((2 * 0.1 + 0.1 + 0.0) / 4)
    assert calibration_error([Bin(4, 0.5, 0.25)]) == 0.25


def test_probabilities_of_large_logits_are_finite_and_add_up_to_one() -> None:
    shares = probabilities(np.array([[1e4, 0.0], [np.log(3.0), 0.0]]))
    assert shares.tolist() == [[1.0, 0.0], pytest.approx([0.75, 0.25])]
