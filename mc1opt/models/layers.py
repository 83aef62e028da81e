"""One walk through an architecture: each layer with its class, arguments, output shape and cost.

The module (`mc1opt.models.build`), the cost (`mc1opt.models.cost`) and the lines of an exported script
(`mc1opt.export.script`) all come from it. Without torch, so that a search can refuse a network before it is
built.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

from mc1opt.config import (
    MLP,
    BlockShape,
    ConvBlock,
    ConvNet,
    LinearLayer,
    Pooling,
    WhitenedStem,
    conv_shapes,
)
from mc1opt.dataset import DataShape

Shape = tuple[int, ...]

ACTIVATIONS = {"relu": "ReLU", "gelu": "GELU", "silu": "SiLU"}
POOLINGS = {"max": "MaxPool2d", "average": "AvgPool2d"}
GLOBAL_POOLINGS = {"max": "AdaptiveMaxPool2d", "average": "AdaptiveAvgPool2d"}
DEFAULTS = {"stride": 1, "padding": 0, "bias": True}
"""PyTorch's, of a convolution or a linear layer."""


@dataclass(frozen=True)
class Layer:
    """One layer of a network."""

    name: str
    """The module's name in the built network, such as "blocks.0.convolution"."""
    kind: str
    """The module's class: of `torch.nn`, or one that `mc1opt.models.build` defines. The layers after a
    "Residual" whose names begin with its name are inside of it."""
    output: Shape
    """Without N: C, H, W, or a number of values."""
    arguments: tuple[int | float, ...] = ()
    """Of the class, by position."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments that are not PyTorch's defaults."""
    parameters: int = 0
    """Trained ones: no whitening filters, no statistics of a norm."""
    macs: int = 0
    """Multiply-accumulates of an image's forward pass, in convolutions and linear layers."""


def walk(architecture: MLP | ConvNet, data: DataShape) -> Iterator[Layer]:
    """All layers in the order in which a normalised image passes them.

    Raises:
        ValueError: the network does not fit images of this size; see `conv_shapes`.
    """
    if isinstance(architecture, MLP):
        shape: Shape = (data.channels, data.size, data.size)
        stack, hidden = "layers", architecture.layers
    else:
        shape = yield from _convolutions(architecture, data)
        stack, hidden = "head", architecture.head
    inputs = prod(shape)
    yield Layer("flatten", "Flatten", (inputs,))  # in the order C, H, W, whatever the memory format
    for number, layer in enumerate(hidden):
        yield from _linear_layer(f"{stack}.{number}", inputs, layer)
        inputs = layer.width
    yield _linear("classifier", inputs, data.classes)
    if architecture.logit_scale != 1.0:
        yield Layer("scale", "Scale", (data.classes,), (architecture.logit_scale,))


def _convolutions(network: ConvNet, data: DataShape) -> Generator[Layer, None, Shape]:
    """The layers before the flattening; returns the shape that they put out."""
    channels = data.channels
    shapes = conv_shapes(network, data.size)
    stem = network.stem
    if isinstance(stem, WhitenedStem):
        size, width = data.size - stem.kernel_size + 1, stem.width(channels)
        output = (width, size, size)
        weights = (channels, width, stem.kernel_size)
        macs = prod(output) * channels * stem.kernel_size**2
        yield Layer("stem.convolution", "FixedConvolution", output, weights, macs=macs)
        yield Layer("stem.activation", ACTIVATIONS[stem.activation], output)
        channels = width
    for number, (block, shape) in enumerate(zip(network.blocks, shapes, strict=True)):
        yield from _block(f"blocks.{number}", channels, block, shape, network.order)
        channels = block.width
    output = shapes[-1].pooled
    if network.global_pooling != "none":
        output = (channels, 1, 1)
        yield Layer("global_pooling", GLOBAL_POOLINGS[network.global_pooling], output, (1,))
    return output


def _block(name: str, channels: int, block: ConvBlock, shape: BlockShape, order: str) -> Iterator[Layer]:
    """Convolution, then pooling, norm and activation as `ConvNet.order` says, then dropout.

    The convolution has no bias where the block has batch norm, be it before or behind the pooling: a pooling
    without padding hands a constant through, and the norm subtracts it.
    """
    pool_first = order == "pool_norm_activation"
    normed = shape.pooled if pool_first else shape.convolution
    pooling = [] if block.pooling is None else [_pooling(f"{name}.pooling", block.pooling, shape.pooled)]
    yield _convolution(f"{name}.convolution", channels, block, shape.convolution)
    yield from pooling if pool_first else []
    if block.norm == "batch":
        yield _norm(f"{name}.norm", "BatchNorm2d", normed)
    yield Layer(f"{name}.activation", ACTIVATIONS[block.activation], normed)
    yield from [] if pool_first else pooling
    if block.residual:
        yield from _residual_pair(name, block, shape.pooled)
    if block.dropout > 0.0:
        yield Layer(f"{name}.dropout", "Dropout", shape.pooled, (block.dropout,))


def _residual_pair(name: str, block: ConvBlock, output: Shape) -> Iterator[Layer]:
    """Convolution, norm, activation, convolution, norm, plus their input, then the activation.

    He et al., "Deep Residual Learning for Image Recognition", 2016, with the identity as the shortcut.
    """
    convolution = ConvBlock(width=block.width, kernel_size=3, padding=1, norm=block.norm)
    inner = f"{name}.residual"
    yield Layer(inner, "Residual", output)
    for number in (1, 2):
        yield _convolution(f"{inner}.convolution{number}", block.width, convolution, output)
        if block.norm == "batch":
            yield _norm(f"{inner}.norm{number}", "BatchNorm2d", output)
        if number == 1:
            yield Layer(f"{inner}.activation", ACTIVATIONS[block.activation], output)
    yield Layer(f"{name}.residual_activation", ACTIVATIONS[block.activation], output)


def _linear_layer(name: str, inputs: int, layer: LinearLayer) -> Iterator[Layer]:
    """Linear -> norm -> activation -> dropout; without a bias where batch norm would subtract it again."""
    output = (layer.width,)
    yield _linear(f"{name}.linear", inputs, layer.width, bias=layer.norm == "none")
    if layer.norm == "batch":
        yield _norm(f"{name}.norm", "BatchNorm1d", output)
    yield Layer(f"{name}.activation", ACTIVATIONS[layer.activation], output)
    if layer.dropout > 0.0:
        yield Layer(f"{name}.dropout", "Dropout", output, (layer.dropout,))


def _convolution(name: str, channels: int, block: ConvBlock, output: Shape) -> Layer:
    weights = channels * block.width * block.kernel_size**2
    bias = block.norm == "none"
    return Layer(
        name,
        "Conv2d",
        output,
        (channels, block.width, block.kernel_size),
        _options(stride=block.stride, padding=block.padding, bias=bias),
        parameters=weights + bias * block.width,
        macs=weights * prod(output[1:]),
    )


def _linear(name: str, inputs: int, width: int, *, bias: bool = True) -> Layer:
    weights = inputs * width
    parameters = weights + bias * width
    return Layer(name, "Linear", (width,), (inputs, width), _options(bias=bias), parameters, weights)


def _norm(name: str, kind: str, output: Shape) -> Layer:
    return Layer(name, kind, output, (output[0],), parameters=2 * output[0])


def _pooling(name: str, pooling: Pooling, output: Shape) -> Layer:
    options = {} if pooling.stride == pooling.size else {"stride": pooling.stride}
    return Layer(name, POOLINGS[pooling.kind], output, (pooling.size,), options)


def _options(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value != DEFAULTS[name]}
