"""Wider forms of an architecture: the same layers with more outputs each.

Not here: how much wider pays for a longer training (`mc1opt.retraining.size`).
"""

from typing import TypeVar

from mc1opt.config import MLP, Architecture, ConvBlock, ConvNet, CustomNetwork, LinearLayer
from mc1opt.dataset import DataShape
from mc1opt.models.cost import cost

L = TypeVar("L", LinearLayer, ConvBlock)

BLOCK = 16
"""Widths above it become multiples of it: the outputs that fast kernels compute at once."""
STEPS = 20
"""Halvings of the interval in which the factor of the widths lies."""


def widened(architecture: Architecture, growth: float, data: DataShape) -> Architecture:
    """An architecture whose widths are multiplied by one factor, the greatest that growth allows.

    Args:
        architecture: what is widened.
        data: the images.
        growth: the multiply-accumulates of the result are at most so many times those of `architecture`.

    Returns:
        `architecture` itself where no wider form is within the growth, or its widths are a function's.
    """
    if isinstance(architecture, CustomNetwork):
        return architecture
    allowed = growth * cost(architecture, data).macs
    low, high = 1.0, max(1.0, growth)  # a factor costs at least itself: one side of a layer grows by it
    for _ in range(STEPS):
        middle = (low + high) / 2
        if cost(_multiplied(architecture, middle), data).macs <= allowed:
            low = middle
        else:
            high = middle
    return _multiplied(architecture, low)


def _multiplied(architecture: MLP | ConvNet, factor: float) -> MLP | ConvNet:
    if isinstance(architecture, MLP):
        layers = tuple(_layer(layer, factor) for layer in architecture.layers)
        return architecture.model_copy(update={"layers": layers})
    blocks = tuple(_layer(block, factor) for block in architecture.blocks)
    head = tuple(_layer(layer, factor) for layer in architecture.head)
    return architecture.model_copy(update={"blocks": blocks, "head": head})


def _layer(layer: L, factor: float) -> L:
    width = round(layer.width * factor)
    if width > BLOCK:
        width = max(layer.width, BLOCK * round(width / BLOCK))
    return layer.model_copy(update={"width": width})
