"""The walk through an architecture, against the modules that are built from it."""

import random

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mc1opt.config import (
    MLP,
    ConvBlock,
    ConvNet,
    LinearLayer,
    PlainStem,
    Pooling,
    WhitenedStem,
    conv_shapes,
)
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.models.build import FixedConvolution, build_layers
from mc1opt.models.layers import Layer, walk

ORDERS = ("pool_norm_activation", "norm_activation_pool")
KINDS = {"Conv2d", "FixedConvolution", "Linear", "BatchNorm1d", "BatchNorm2d", "MaxPool2d", "AvgPool2d"}
KINDS |= {"Scale", "AdaptiveMaxPool2d", "AdaptiveAvgPool2d", "Dropout", "Flatten", "ReLU", "GELU", "SiLU"}


def random_linear(draw: random.Random) -> LinearLayer:
    return LinearLayer(
        width=draw.randint(1, 64),
        norm=draw.choice(["none", "batch"]),
        activation=draw.choice(["relu", "gelu", "silu"]),
        dropout=draw.choice([0.0, 0.3]),
    )


def random_block(draw: random.Random) -> ConvBlock:
    pooling = Pooling(
        kind=draw.choice(["max", "average"]), size=draw.randint(2, 3), stride=draw.randint(1, 3)
    )
    return ConvBlock(
        width=draw.randint(1, 32),
        kernel_size=draw.randint(1, 5),
        stride=draw.choice([1, 1, 2]),
        padding=draw.randint(0, 2),
        norm=draw.choice(["none", "batch"]),
        activation=draw.choice(["relu", "gelu", "silu"]),
        pooling=draw.choice([None, pooling]),
        dropout=draw.choice([0.0, 0.3]),
        residual=draw.choice([False, True]),
    )


def random_architecture(seed: int) -> MLP | ConvNet:
    draw = random.Random(seed)
    head = tuple(random_linear(draw) for _ in range(draw.randint(0, 3)))
    scale = 0.5 if seed % 3 == 0 else 1.0
    if seed % 5 == 0:
        return MLP(layers=head, logit_scale=scale)
    while True:
        try:
            network = ConvNet(
                stem=draw.choice([PlainStem(), WhitenedStem(kernel_size=draw.randint(1, 4))]),
                blocks=tuple(random_block(draw) for _ in range(draw.randint(1, 5))),
                order=draw.choice(ORDERS),
                global_pooling=draw.choice(["none", "max", "average"]),
                head=head,
                logit_scale=scale,
            )
            conv_shapes(network, CIFAR10_SHAPE.size)
        except ValueError:  # shrinks too much: draw another one
            continue
        return network


def measured_layers(model: torch.nn.Module) -> tuple[list[tuple], int]:
    """(name, class, output without N, parameters) in the order of a forward pass, and its MACs an image."""
    rows = []

    def note(name):
        def hook(module, inputs, output):
            count = sum(parameter.numel() for parameter in module.parameters())
            rows.append((name, type(module).__name__, tuple(output.shape[1:]), count))

        return hook

    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(note(name))
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 3, 32, 32, device="meta"))
    return rows, counter.get_total_flops() // 2 // 2


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_layers_and_their_closed_form_are_those_of_the_built_module(first: int) -> None:
    for seed in range(first, first + 25):
        layers = [
            layer for layer in walk(random_architecture(seed), CIFAR10_SHAPE) if layer.kind != "Residual"
        ]
        with torch.device("meta"):
            rows, macs = measured_layers(build_layers(random_architecture(seed), CIFAR10_SHAPE))
        assert [(layer.name, layer.kind, layer.output, layer.parameters) for layer in layers] == rows, seed
        assert sum(layer.macs for layer in layers) == macs, seed


def test_random_architectures_have_every_kind_of_layer() -> None:
    kinds = {layer.kind for seed in range(100) for layer in walk(random_architecture(seed), CIFAR10_SHAPE)}
    assert kinds == KINDS | {"Residual"}


def layers_of(part: ConvBlock | LinearLayer, order: str = ORDERS[0]) -> dict[str, Layer]:
    """By name, the layers of the only block or hidden layer of a network."""
    if isinstance(part, LinearLayer):
        network, prefix = MLP(layers=(part,)), "layers.0."
    else:
        network, prefix = ConvNet(blocks=(part,), order=order), "blocks.0."
    return {
        layer.name.removeprefix(prefix): layer
        for layer in walk(network, CIFAR10_SHAPE)
        if layer.name.startswith(prefix)
    }


FULL_BLOCK = ConvBlock(width=4, norm="batch", pooling=Pooling(kind="max"), dropout=0.3)


@pytest.mark.parametrize(
    ("part", "order", "expected"),
    [
        (FULL_BLOCK, ORDERS[0], ["convolution", "pooling", "norm", "activation", "dropout"]),
        (FULL_BLOCK, ORDERS[1], ["convolution", "norm", "activation", "pooling", "dropout"]),
        (ConvBlock(width=4), ORDERS[0], ["convolution", "activation"]),
        (ConvBlock(width=4), ORDERS[1], ["convolution", "activation"]),
        (
            LinearLayer(width=8, norm="batch", dropout=0.5),
            ORDERS[0],
            ["linear", "norm", "activation", "dropout"],
        ),
        (LinearLayer(width=8), ORDERS[0], ["linear", "activation"]),
    ],
)
def test_layers_come_in_the_configs_order_and_only_where_it_has_them(
    part: ConvBlock | LinearLayer, order: str, expected: list[str]
) -> None:
    assert list(layers_of(part, order)) == expected


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize(
    "part", [ConvBlock(width=4), FULL_BLOCK, LinearLayer(width=4)], ids=["plain", "pooled", "linear"]
)
def test_there_is_a_bias_unless_batch_norm_subtracts_it(
    part: ConvBlock | LinearLayer, norm: str, order: str
) -> None:
    first = next(iter(layers_of(part.model_copy(update={"norm": norm}), order).values()))
    assert first.options.get("bias", True) == (norm == "none")


def test_only_options_that_are_not_pytorchs_defaults_are_given() -> None:
    plain, strided = layers_of(FULL_BLOCK), layers_of(ConvBlock(width=4, stride=2, padding=1))
    assert (plain["convolution"].arguments, plain["convolution"].options) == ((3, 4, 3), {"bias": False})
    assert (plain["pooling"].arguments, plain["pooling"].options) == ((2,), {})
    assert strided["convolution"].options == {"stride": 2, "padding": 1}
    pooling = Pooling(kind="max", size=3, stride=2)
    assert layers_of(ConvBlock(width=4, pooling=pooling))["pooling"].options == {"stride": 2}


def test_the_stem_is_a_fixed_convolution_without_parameters() -> None:
    architecture = ConvNet(stem=WhitenedStem(), blocks=(ConvBlock(width=4),))
    stem = next(walk(architecture, CIFAR10_SHAPE))
    assert (stem.output, stem.parameters, stem.macs) == ((24, 31, 31), 0, 31 * 31 * 24 * 12)
    assert FixedConvolution(*stem.arguments).weight.shape == (24, 3, 2, 2)
