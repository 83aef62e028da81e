"""The whitening filters: what they do to the images they come from."""

import re

import pytest
import torch
from torch.nn import functional as F

from mc1opt.models.whitening import EPSILON, IMAGES, whitening_filters


def smooth_images(count: int, seed: int = 0) -> torch.Tensor:
    """Normalised images whose neighbouring pixels and colours are alike, as in photographs."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 3, 36, 36, generator=generator)
    smooth = F.avg_pool2d(noise, 5, 1) * 4 + noise[:, :, 2:34, 2:34] * 0.3
    smooth = smooth + smooth.mean(1, keepdim=True) * 2
    return (smooth - smooth.mean((0, 2, 3), keepdim=True)) / smooth.std((0, 2, 3), keepdim=True)


def outputs(images: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """Channels x all places of all images."""
    return F.conv2d(images.double(), filters.double()).transpose(0, 1).flatten(1)


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4])
def test_outputs_have_unit_variance_and_no_covariance_up_to_epsilon(kernel_size):
    images = smooth_images(100)
    size = 3 * kernel_size**2
    filters = whitening_filters(images, kernel_size)[:size]
    patches = F.unfold(images.double(), kernel_size).transpose(0, 1).flatten(1)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(patches, correction=0)).flip(0)
    expected = torch.diag(eigenvalues / (eigenvalues + EPSILON))
    covariance = torch.cov(outputs(images, filters), correction=0)
    torch.testing.assert_close(covariance, expected, rtol=1e-5, atol=1e-5)
    assert covariance.diagonal().min() > 0.9


def test_the_variance_is_taken_around_the_mean():
    images = smooth_images(50) + 3.0
    filters = whitening_filters(images, 2)[:12]
    variance = outputs(images, filters).var(dim=1, correction=0)
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=0.1, atol=0.0)


def test_a_direction_without_variance_stays_finite():
    images = smooth_images(20)
    images[:, 2] = images[:, 1]
    filters = whitening_filters(images, 2)
    assert filters.isfinite().all()
    assert filters.flatten(1).norm(dim=1).max() <= EPSILON**-0.5 * 1.001


def test_the_second_half_is_the_first_with_the_other_sign():
    filters = whitening_filters(smooth_images(20), 3)
    assert filters.shape == (54, 3, 3, 3)
    assert filters.dtype == torch.float32
    assert torch.equal(filters[27:], -filters[:27])


def test_filters_are_ordered_by_falling_eigenvalue():
    norms = whitening_filters(smooth_images(50), 2)[:12].flatten(1).norm(dim=1)
    assert torch.equal(norms, norms.sort().values)


def test_the_same_images_give_the_same_filters():
    assert torch.equal(whitening_filters(smooth_images(50), 2), whitening_filters(smooth_images(50), 2))


def test_signs_do_not_depend_on_the_order_of_the_images():
    images = smooth_images(50)
    torch.testing.assert_close(
        whitening_filters(images, 2), whitening_filters(images.flip(0), 2), rtol=1e-4, atol=1e-4
    )


def test_the_first_large_value_of_a_filter_is_positive():
    for vector in whitening_filters(smooth_images(50), 3)[:27].flatten(1):
        assert vector[vector.abs() >= 0.5 * vector.abs().max()][0] > 0


def test_of_many_images_an_evenly_taken_part_is_used():
    few = smooth_images(IMAGES // 10, seed=1).repeat(10, 1, 1, 1)
    many = torch.empty(3 * IMAGES, 3, 32, 32)
    many[0::3] = few
    many[1::3] = torch.nan
    many[2::3] = torch.nan
    torch.testing.assert_close(whitening_filters(many, 1), whitening_filters(few, 1))


def test_integers_are_refused_because_they_are_not_normalised():
    with pytest.raises(ValueError, match=r"torch\.uint8"):
        whitening_filters(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), 2)


@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (4, 3, 2, 32)])
def test_missing_or_too_small_images_are_refused_with_their_shape(shape):
    with pytest.raises(ValueError, match=rf"3x3.*{re.escape(str(shape))}"):
        whitening_filters(torch.zeros(shape), 3)
