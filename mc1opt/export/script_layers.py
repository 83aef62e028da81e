"""The layers of exported training scripts that `torch.nn` does not have, and what is computed for them.

`mc1opt.export.script` reads it as text and puts it before the rest of the script, `script_template.py`, which
has the imports.
"""

import torch
import torch.nn.functional as F
from torch import nn


def channels(images):
    """Mean and standard deviation of each channel of the images, N x C x H x W."""
    return images.mean((0, 2, 3)), images.std((0, 2, 3)).clamp(min=1.0)


def symmetric(images):
    """What takes the values 0 to 255 to -1 to 1, whatever the images are."""
    middle = images.new_full((images.shape[1],), 127.5)
    return middle, middle


class Normalise(nn.Module):
    """Subtracts a value from each channel, and divides by another."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean = nn.Buffer(mean)
        self.std = nn.Buffer(std)

    def forward(self, images):
        """The normalised images, float."""
        return (images.float() - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)


class FixedConvolution(nn.Module):
    """A convolution that is not trained."""

    def __init__(self, filters):
        super().__init__()
        self.weight = nn.Buffer(filters)

    def forward(self, images):
        """The convolved images."""
        return F.conv2d(images, self.weight)


def whitening_filters(images, kernel_size):
    """The eigenvectors of the patches, scaled to variance 1, then with the other sign.

    See Page, "How to train your ResNet" (2019), and Jordan, "94% on CIFAR-10 in 3.29
    seconds on a single GPU" (2024).
    """
    used = min(len(images), 2000)
    images = images[torch.arange(used) * len(images) // used].double()
    size = images.shape[1] * kernel_size**2
    patches = F.unfold(images, kernel_size).transpose(0, 1).reshape(size, -1)
    eigenvalues, vectors = torch.linalg.eigh(torch.cov(patches, correction=0))
    vectors, eigenvalues = vectors.T.flip(0), eigenvalues.flip(0).clamp(min=0.0)
    # An eigenvector may have either sign: its first large value shall be positive.
    large = vectors.abs() >= 0.5 * vectors.abs().amax(1, keepdim=True)
    signs = vectors.gather(1, large.int().argmax(1, keepdim=True)).sign()
    filters = vectors * signs * (eigenvalues + 5e-4).rsqrt()[:, None]
    filters = filters.view(size, -1, kernel_size, kernel_size)
    return torch.cat([filters, -filters]).float()


class Residual(nn.Sequential):
    """Layers whose output is added to their input (He et al., 2016)."""

    def forward(self, images):
        """The sum."""
        return images + super().forward(images)


class Scale(nn.Module):
    """Multiplies by a constant."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, values):
        """The products."""
        return values * self.factor
