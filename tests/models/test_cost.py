"""The closed form of parameters and multiply-accumulates, against the built module."""

import random
import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from mc1opt.config import MLP, ConvBlock, ConvNet, LinearLayer, PlainStem, Pooling, WhitenedStem
from mc1opt.models.build import build_model
from mc1opt.models.cost import Cost, cost, layers

LISTED = [
    "Conv2d",
    "FixedConvolution",
    "Linear",
    "BatchNorm1d",
    "BatchNorm2d",
    "MaxPool2d",
    "AvgPool2d",
    "AdaptiveMaxPool2d",
    "AdaptiveAvgPool2d",
    "Dropout",
]


def random_linear(draw: random.Random) -> LinearLayer:
    return LinearLayer(
        width=draw.randint(1, 64), norm=draw.choice(["none", "batch"]), dropout=draw.choice([0.0, 0.3])
    )


def random_block(draw: random.Random) -> ConvBlock:
    size = draw.randint(2, 3)
    return ConvBlock(
        width=draw.randint(1, 32),
        kernel_size=draw.randint(1, 5),
        stride=draw.choice([1, 1, 2]),
        padding=draw.randint(0, 2),
        norm=draw.choice(["none", "batch"]),
        pooling=draw.choice([None, Pooling(kind=draw.choice(["max", "average"]), size=size)]),
        dropout=draw.choice([0.0, 0.3]),
    )


def random_architecture(seed: int) -> MLP | ConvNet:
    draw = random.Random(seed)
    head = tuple(random_linear(draw) for _ in range(draw.randint(0, 3)))
    if seed % 5 == 0:
        return MLP(layers=head)
    while True:
        try:
            return ConvNet(
                stem=draw.choice([PlainStem(), WhitenedStem(kernel_size=draw.randint(1, 4))]),
                blocks=tuple(random_block(draw) for _ in range(draw.randint(1, 5))),
                order=draw.choice(["pool_norm_activation", "norm_activation_pool"]),
                global_pooling=draw.choice(["none", "max", "average"]),
                head=head,
            )
        except ValidationError:  # shrinks too much: draw another one
            continue


def measured_layers(model: torch.nn.Module) -> tuple[list[tuple], int]:
    """(name, class, output without N, parameters) in the order of a forward pass, and its MACs an image."""
    names = {module: name for name, module in model.named_modules()}
    rows = []

    def note(module, inputs, output):
        if type(module).__name__ in LISTED:
            count = sum(parameter.numel() for parameter in module.parameters())
            rows.append((names[module], type(module).__name__, tuple(output.shape[1:]), count))

    for module in model.modules():
        module.register_forward_hook(note)
    counter = FlopCounterMode(display=False)
    with counter:
        model(torch.zeros(2, 3, 32, 32, device="meta"))
    return rows, counter.get_total_flops() // 2 // 2


@pytest.mark.parametrize("seed", range(100))
def test_closed_form_is_what_the_built_module_has(seed):
    architecture = random_architecture(seed)
    with torch.device("meta"):
        model = build_model(architecture)
    rows, macs = measured_layers(model)
    table = layers(architecture)
    assert [(layer.name, layer.kind, layer.output, layer.parameters) for layer in table] == rows
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert cost(architecture) == Cost(parameters, macs)


def test_random_architectures_have_every_kind_of_layer():
    kinds = {layer.kind for seed in range(100) for layer in layers(random_architecture(seed))}
    assert kinds == set(LISTED)


def test_cost_of_a_convolution_is_the_textbooks():
    network = ConvNet(blocks=(ConvBlock(width=7, kernel_size=3, padding=1),))
    convolution = layers(network)[0]
    assert convolution.parameters == 7 * 3 * 9 + 7
    assert convolution.macs == 32 * 32 * 7 * 3 * 9


def test_fixed_filters_cost_multiply_accumulates_but_no_parameters():
    stem = layers(ConvNet(stem=WhitenedStem(), blocks=(ConvBlock(width=4),)))[0]
    assert (stem.output, stem.parameters, stem.macs) == ((24, 31, 31), 0, 31 * 31 * 24 * 12)


def test_cost_needs_no_torch():
    code = "import sys, mc1opt.models.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
