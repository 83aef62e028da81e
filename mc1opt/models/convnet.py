"""The convolutional network as a module: stem, blocks, global pooling or flattening, linear head, classifier.

Not here: normalisation of the images and initialisation of the weights (`mc1opt.models.build`), the whitening
filters themselves (`mc1opt.models.whitening`), and whether an architecture can exist (`mc1opt.config`).
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mc1opt.config import CLASSES, IMAGE_CHANNELS, ConvBlock, ConvNet, Pooling, WhitenedStem, conv_shapes
from mc1opt.models.mlp import activation, linear_layers


class FixedConvolution(nn.Module):
    """A convolution that is not trained: no bias, no padding, its weight a buffer."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        """`weight`: output channels x input channels x kernel size x kernel size."""
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, images_NCHW: Tensor) -> Tensor:  # noqa: N803  (a shape suffix)
        """The convolved images; the height and the width shrink by kernel size - 1."""
        return F.conv2d(images_NCHW, self.weight)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"shape={tuple(self.weight.shape)}"


def whitening_shape(stem: WhitenedStem) -> tuple[int, int, int, int]:
    """The shape of the stem's filters: output channels x 3 x kernel size x kernel size."""
    return (stem.width, IMAGE_CHANNELS, stem.kernel_size, stem.kernel_size)


def whitened_stem(stem: WhitenedStem, filters: Tensor | None) -> nn.Sequential:
    """The fixed convolution and its activation.

    Args:
        stem: what the config says.
        filters: of `whitening_shape(stem)`, from `mc1opt.models.whitening`; None puts zeros there, for
            weights that are loaded later.

    Raises:
        ValueError: the filters have another shape.
    """
    shape = whitening_shape(stem)
    if filters is None:
        filters = torch.zeros(shape)
    if tuple(filters.shape) != shape:
        raise ValueError(f"the whitening filters have shape {tuple(filters.shape)}; this stem needs {shape}")
    weight = filters.detach().clone()
    return nn.Sequential(
        OrderedDict(convolution=FixedConvolution(weight), activation=activation(stem.activation))
    )


def pooling_module(pooling: Pooling) -> nn.Module:
    """The pooling as a module, without padding."""
    kind = nn.MaxPool2d if pooling.kind == "max" else nn.AvgPool2d
    return kind(pooling.size, pooling.stride)


def block_module(block: ConvBlock, channels: int, order: str) -> nn.Sequential:
    """Convolution, then pooling, norm and activation as `ConvNet.order` says, then dropout.

    The convolution has no bias where the block has batch norm, be it before or behind the pooling: a pooling
    without padding hands a constant through, and the norm subtracts it.
    """
    convolution = nn.Conv2d(
        channels,
        block.width,
        block.kernel_size,
        stride=block.stride,
        padding=block.padding,
        bias=block.norm == "none",
    )
    norm_activation = OrderedDict[str, nn.Module]()
    if block.norm == "batch":
        norm_activation["norm"] = nn.BatchNorm2d(block.width)
    norm_activation["activation"] = activation(block.activation)

    pooling = OrderedDict[str, nn.Module]()
    if block.pooling is not None:
        pooling["pooling"] = pooling_module(block.pooling)

    parts = OrderedDict[str, nn.Module](convolution=convolution)
    for group in (
        (pooling, norm_activation) if order == "pool_norm_activation" else (norm_activation, pooling)
    ):
        parts.update(group)
    if block.dropout > 0.0:
        parts["dropout"] = nn.Dropout(block.dropout)
    return nn.Sequential(parts)


def convnet_parts(architecture: ConvNet, whitening: Tensor | None) -> OrderedDict[str, nn.Module]:
    """The named parts in their order, from normalised images N x 3 x 32 x 32 to logits N x 10.

    Args:
        architecture: what the config says.
        whitening: see `whitened_stem`.

    Raises:
        ValueError: whitening filters of another shape, or for a network without a whitened stem.
    """
    parts = OrderedDict[str, nn.Module]()
    channels = IMAGE_CHANNELS
    if isinstance(architecture.stem, WhitenedStem):
        parts["stem"] = whitened_stem(architecture.stem, whitening)
        channels = architecture.stem.width
    elif whitening is not None:
        raise ValueError("whitening filters were given, but the network's stem is plain")

    blocks = nn.Sequential()
    for block in architecture.blocks:
        blocks.append(block_module(block, channels, architecture.order))
        channels = block.width
    parts["blocks"] = blocks

    _, height, width = conv_shapes(architecture)[-1].pooled
    if architecture.global_pooling != "none":
        kind = nn.AdaptiveMaxPool2d if architecture.global_pooling == "max" else nn.AdaptiveAvgPool2d
        parts["global_pooling"] = kind(1)
        height = width = 1
    parts["flatten"] = nn.Flatten()  # in the order C, H, W, whatever the memory format
    parts["head"], outputs = linear_layers(architecture.head, channels * height * width)
    parts["classifier"] = nn.Linear(outputs, CLASSES)
    return parts
