"""What an architecture costs, in closed form: trained parameters and multiply-accumulates.

Sums over the walk through the architecture (`mc1opt.models.layers`), without torch. Tested against the built
module. Not here: time and memory, which depend on the machine.
"""

from dataclasses import dataclass

from mc1opt.config import MLP, ConvNet
from mc1opt.dataset import DataShape
from mc1opt.models.layers import ACTIVATIONS, Layer, walk


@dataclass(frozen=True)
class Cost:
    """What a whole network costs."""

    parameters: int
    """Trained ones: no whitening filters, no statistics of a norm, no mean and standard deviation."""
    macs: int
    """Multiply-accumulates of an image's forward pass, in convolutions (the stem's too) and linear layers."""


def cost(architecture: MLP | ConvNet, data: DataShape) -> Cost:
    """Trained parameters, and multiply-accumulates an image: the sums over `layers`.

    Raises:
        ValueError: the network does not fit images of this size; see `conv_shapes`.
    """
    table = layers(architecture, data)
    return Cost(sum(layer.parameters for layer in table), sum(layer.macs for layer in table))


def layers(architecture: MLP | ConvNet, data: DataShape) -> list[Layer]:
    """The layers but for activations, flattening, sums and scales, which cost no parameters and no MACs."""
    unlisted = {*ACTIVATIONS.values(), "Flatten", "Residual", "Scale"}
    return [layer for layer in walk(architecture, data) if layer.kind not in unlisted]
