"""What an architecture costs, in closed form: trained parameters and multiply-accumulates, layer by layer.

Arithmetic on the config, without torch, so that a search can refuse a network before it is built. Tested
against the built module. Not here: time and memory, which depend on the machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from mc1opt.config import (
    CLASSES,
    IMAGE_CHANNELS,
    IMAGE_SIZE,
    MLP,
    BlockShape,
    ConvBlock,
    ConvNet,
    LinearLayer,
    WhitenedStem,
    conv_shapes,
)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """What a whole network costs."""

    parameters: int
    """Trained ones: no whitening filters, no statistics of a norm, no mean and standard deviation."""
    macs: int
    """Multiply-accumulates of an image's forward pass, in convolutions (the stem's too) and linear layers."""


@dataclass(frozen=True)
class LayerCost:
    """One layer of the network."""

    name: str
    """The module's name in the built network, such as "blocks.0.convolution"."""
    kind: str
    """The module's class, such as "Conv2d"."""
    output: Shape
    """Without N: C, H, W, or a number of values."""
    parameters: int
    macs: int


def cost(architecture: MLP | ConvNet) -> Cost:
    """Trained parameters, and multiply-accumulates an image: the sums over `layers`."""
    table = layers(architecture)
    return Cost(sum(layer.parameters for layer in table), sum(layer.macs for layer in table))


def layers(architecture: MLP | ConvNet) -> list[LayerCost]:
    """The layers in the order in which an image passes them.

    Left out are those that neither cost anything here nor change a shape or drop values: normalisation of the
    images, activations, flattening.
    """
    return list(_mlp(architecture) if isinstance(architecture, MLP) else _convnet(architecture))


def _mlp(network: MLP) -> Iterator[LayerCost]:
    inputs = IMAGE_CHANNELS * IMAGE_SIZE**2
    yield from _linear_layers("layers", network.layers, inputs)
    yield _classifier(network.layers, inputs)


def _convnet(network: ConvNet) -> Iterator[LayerCost]:
    channels = IMAGE_CHANNELS
    if isinstance(network.stem, WhitenedStem):
        size = IMAGE_SIZE - network.stem.kernel_size + 1
        output = (network.stem.width, size, size)
        macs = prod(output) * channels * network.stem.kernel_size**2
        yield LayerCost("stem.convolution", "FixedConvolution", output, 0, macs)
        channels = network.stem.width

    shapes = conv_shapes(network)
    for number, (block, shape) in enumerate(zip(network.blocks, shapes, strict=True)):
        yield from _block(f"blocks.{number}", block, channels, shape, network.order)
        channels = block.width

    output = shapes[-1].pooled
    if network.global_pooling != "none":
        output = (channels, 1, 1)
        kind = "AdaptiveMaxPool2d" if network.global_pooling == "max" else "AdaptiveAvgPool2d"
        yield LayerCost("global_pooling", kind, output, 0, 0)
    yield from _linear_layers("head", network.head, prod(output))
    yield _classifier(network.head, prod(output))


def _block(name: str, block: ConvBlock, channels: int, shape: BlockShape, order: str) -> Iterator[LayerCost]:
    convolved, pooled = shape
    pool_first = order == "pool_norm_activation"
    weights_a_channel = channels * block.kernel_size**2
    bias = block.width if block.norm == "none" else 0
    parameters = block.width * weights_a_channel + bias
    yield LayerCost(
        f"{name}.convolution", "Conv2d", convolved, parameters, prod(convolved) * weights_a_channel
    )

    behind: list[LayerCost] = []
    if block.pooling is not None:
        kind = "MaxPool2d" if block.pooling.kind == "max" else "AvgPool2d"
        behind.append(LayerCost(f"{name}.pooling", kind, pooled, 0, 0))
    if block.norm == "batch":
        output = pooled if pool_first else convolved
        norm = LayerCost(f"{name}.norm", "BatchNorm2d", output, 2 * block.width, 0)
        behind.insert(len(behind) if pool_first else 0, norm)
    yield from behind
    if block.dropout > 0.0:
        yield LayerCost(f"{name}.dropout", "Dropout", pooled, 0, 0)


def _linear_layers(name: str, stack: tuple[LinearLayer, ...], inputs: int) -> Iterator[LayerCost]:
    for number, layer in enumerate(stack):
        bias = layer.width if layer.norm == "none" else 0
        weights = inputs * layer.width
        yield LayerCost(f"{name}.{number}.linear", "Linear", (layer.width,), weights + bias, weights)
        if layer.norm == "batch":
            yield LayerCost(f"{name}.{number}.norm", "BatchNorm1d", (layer.width,), 2 * layer.width, 0)
        if layer.dropout > 0.0:
            yield LayerCost(f"{name}.{number}.dropout", "Dropout", (layer.width,), 0, 0)
        inputs = layer.width


def _classifier(stack: tuple[LinearLayer, ...], inputs: int) -> LayerCost:
    weights = (stack[-1].width if stack else inputs) * CLASSES
    return LayerCost("classifier", "Linear", (CLASSES,), weights + CLASSES, weights)
