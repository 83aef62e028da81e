"""The filters of a whitened stem: a fixed convolution whose outputs on the training images are decorrelated.

The method is that of the CIFAR-10 speed records (Page, "How to train your ResNet 8: Bag of tricks", 2019;
Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024). Not here: the layer that uses the filters
(`mc1opt.models.build`), and which images are the training images.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

IMAGES = 2000
"""At most so many images are looked at: over a million patches, for a matrix of at most 48 x 48."""

EPSILON = 5e-4
"""Added to the eigenvalues, so that directions without variance are not blown up (Jordan, 2024)."""

_CHUNK = 100  # images; keeps the patches of a chunk below 40 MB


def whitening_filters(images: Tensor, kernel_size: int) -> Tensor:
    """The eigenvectors of the patches' covariance, scaled to unit variance, then all with the other sign.

    Applied to the images, output i (of C * kernel_size**2) has the variance
    eigenvalue / (eigenvalue + `EPSILON`) and no covariance with the others. Filters are ordered by falling
    eigenvalue; an eigenvector's sign is fixed, so that the same images give the same filters.

    Args:
        images: the training's own images, N x C x H x W, float, normalised as the network normalises them;
            at most `IMAGES` of them, evenly taken, are used.
        kernel_size: side of a patch in pixels.

    Returns:
        2 * C * kernel_size**2 filters x C x kernel_size x kernel_size, float32, on the CPU. Computed there in
        float64.

    Raises:
        ValueError: there are no images, they are smaller than the kernel, or they are integers, so not
            normalised.
    """
    count, channels, height, width = images.shape
    if not images.is_floating_point():
        raise ValueError(f"whitening needs normalised images; given: values of type {images.dtype}")
    if count == 0 or min(height, width) < kernel_size:
        raise ValueError(
            f"whitening needs images of at least {kernel_size}x{kernel_size}; given: {tuple(images.shape)}"
        )
    used = min(count, IMAGES)
    chosen = images[torch.arange(used, device=images.device) * count // used].cpu()

    size = channels * kernel_size**2
    total = torch.zeros(size, dtype=torch.float64)
    products = torch.zeros(size, size, dtype=torch.float64)
    patches = 0
    for start in range(0, used, _CHUNK):
        # N x size x patches of an image -> size x all patches
        columns = F.unfold(chosen[start : start + _CHUNK].double(), kernel_size).transpose(0, 1).flatten(1)
        total += columns.sum(dim=1)
        products += columns @ columns.T
        patches += columns.shape[1]
    average = total / patches
    covariance = products / patches - torch.outer(average, average)

    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)  # rising; a column is an eigenvector
    vectors = _fix_signs(eigenvectors.T.flip(0))
    scale = (eigenvalues.flip(0).clamp(min=0.0) + EPSILON).rsqrt()
    filters = (vectors * scale.unsqueeze(1)).view(size, channels, kernel_size, kernel_size)
    return torch.cat([filters, -filters]).float()


def _fix_signs(vectors: Tensor) -> Tensor:
    """Gives each row the sign that makes its first large value positive.

    Large is half the greatest magnitude: many of these vectors are nearly symmetric, and which of two nearly
    equal values is the greatest is left to rounding.
    """
    magnitudes = vectors.abs()
    large = magnitudes >= 0.5 * magnitudes.amax(dim=1, keepdim=True)
    first = large.int().argmax(dim=1, keepdim=True)  # the first of equal ones
    return vectors * vectors.gather(1, first).sign()
