"""What an architecture costs, in closed form: trained parameters, multiply-accumulates and output values.

Sums over the walk through the architecture (`mc1opt.models.layers`), without torch. Tested against the built
module. A custom network is counted by `mc1opt.models.custom`. Not here: time and memory, which depend on the
machine.
"""

from dataclasses import dataclass
from math import prod

from mc1opt.config import Architecture, CustomNetwork
from mc1opt.dataset import DataShape
from mc1opt.models.layers import ACTIVATIONS, Layer, walk


@dataclass(frozen=True)
class Cost:
    """What a whole network costs."""

    parameters: int
    """Trained ones: no whitening filters, no statistics of a norm, no mean and standard deviation."""
    macs: int
    """Multiply-accumulates of an image's forward pass, in convolutions (the stem's too) and linear layers."""
    values: int
    """Outputs of all layers for an image, activations aside: what a training step keeps in memory."""


def cost(architecture: Architecture, data: DataShape) -> Cost:
    """What a network costs: the sums over `layers`.

    Raises:
        ValueError: the network does not fit images of this size; see `conv_shapes`.
        StudyFileError, NetworkError: a custom network cannot be built; see `mc1opt.models.custom`.
    """
    if isinstance(architecture, CustomNetwork):
        from mc1opt.models.custom import custom_cost

        return custom_cost(architecture, data)
    table = layers(architecture, data)
    return Cost(
        parameters=sum(layer.parameters for layer in table),
        macs=sum(layer.macs for layer in table),
        values=sum(prod(layer.output) for layer in table),
    )


def layers(architecture: Architecture, data: DataShape) -> list[Layer]:
    """The layers but for activations, flattening, sums and scales, which cost no parameters and no MACs.

    Of a custom network none are known.
    """
    if isinstance(architecture, CustomNetwork):
        return []
    unlisted = {*ACTIVATIONS.values(), "Flatten", "Residual", "Scale"}
    return [layer for layer in walk(architecture, data) if layer.kind not in unlisted]
