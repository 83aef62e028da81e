"""Whether two models are the same: small functions of images in place of networks."""

import numpy as np
import pytest

from mc1opt.errors import ModelError
from mc1opt.export.parity import (
    RANDOM_IMAGES,
    Images,
    Outputs,
    Run,
    all_logits,
    compare,
    images_to_compare,
    latency,
)

VALIDATION = np.random.default_rng(0).integers(0, 256, (700, 3, 32, 32), dtype=np.uint8)


def run(images: Images) -> Outputs:
    """Logits are the first ten pixels, divided by 50."""
    logits = images.reshape(len(images), -1)[:, :10].astype(np.float32) / 50
    exponentials = np.exp(logits)
    return logits, exponentials / exponentials.sum(1, keepdims=True)


def changed(change: float, image: int = 3) -> np.ndarray:
    """The expected logits, one of which is changed."""
    logits = all_logits(run, VALIDATION).copy()
    logits[image, logits[image].argmin()] += change
    return logits


def test_the_same_model_is_the_same() -> None:
    check = compare(run, VALIDATION, all_logits(run, VALIDATION))
    assert (check.images, check.max_logit_difference, check.different_decisions) == (700, 0.0, 0)
    assert check.same
    assert check.finite


@pytest.mark.parametrize(("change", "same"), [(0.9e-3, True), (1.1e-3, False), (-0.5, False)])
def test_a_logit_may_differ_by_a_thousandth(change: float, same: bool) -> None:
    check = compare(run, VALIDATION, changed(change))
    assert check.max_logit_difference == pytest.approx(abs(change), rel=1e-2)
    assert check.different_decisions == 0
    assert check.same is same


def test_a_single_other_decision_is_another_model_however_close_it_is() -> None:
    logits = all_logits(run, VALIDATION).copy()
    first, second = np.argsort(-logits[5])[:2]
    mean = (logits[5, first] + logits[5, second]) / 2
    images = VALIDATION.copy()
    images[5].reshape(-1)[[first, second]] = round(mean * 50)
    near = all_logits(run, images).copy()
    near[5, max(first, second)] += 1e-5
    check = compare(run, images, near)
    assert (check.different_decisions, check.same) == (1, False)
    assert check.max_logit_difference < 1e-4


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_the_same(value: float) -> None:
    check = compare(run, VALIDATION, changed(value))
    assert not check.same
    assert not check.finite


def test_all_images_are_asked_in_order_and_one_of_them_alone() -> None:
    sizes = []

    def counting(images: Images) -> Outputs:
        sizes.append(len(images))
        return run(images)

    np.testing.assert_array_equal(all_logits(counting, VALIDATION), run(VALIDATION)[0])
    assert sizes == [1, 2, 61, 256, 380]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda images: (run(images)[0], run(images)[0]), "softmax"),
        (lambda images: run(images[:1]), "outputs"),
    ],
)
def test_outputs_of_no_softmax_or_for_too_few_images_are_an_error(wrong: Run, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        all_logits(wrong, VALIDATION)


def test_noise_is_compared_besides_the_validation_images_and_always_the_same() -> None:
    images = images_to_compare(VALIDATION)
    np.testing.assert_array_equal(images[:700], VALIDATION)
    noise = images[700:]
    assert len(noise) == RANDOM_IMAGES == 1000
    assert (noise.min(), noise.max()) == (0, 255)
    np.testing.assert_array_equal(images, images_to_compare(VALIDATION))


def test_the_latency_is_that_of_one_image_and_of_256() -> None:
    sizes = set()

    def counting(images: Images) -> Outputs:
        sizes.add(len(images))
        return run(images)

    milliseconds = latency(counting, VALIDATION[:7])
    assert sizes == {1, 256}
    assert set(milliseconds) == {"batch_1_ms", "batch_256_ms"}
    assert all(value > 0 for value in milliseconds.values())
