"""Parameters and multiply-accumulates of whole networks."""

import subprocess
import sys

import torch

from mc1opt.config import MLP, ConvBlock, ConvNet, LinearLayer
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.models.build import build_model
from mc1opt.models.cost import Cost, cost, layers
from tests.support.images import SMALL_CONVNET


def test_cost_of_a_network_is_the_textbooks() -> None:
    convolution, classifier = 7 * 3 * 9, 7 * 10
    network = ConvNet(blocks=(ConvBlock(width=7, padding=1),), global_pooling="average")
    assert cost(network, CIFAR10_SHAPE) == Cost(
        parameters=convolution + 7 + classifier + 10,
        macs=32 * 32 * convolution + classifier,
        values=7 * 32 * 32 + 7 + 10,
    )


def test_parameters_are_those_that_are_trained() -> None:
    with torch.device("meta"):
        model = build_model(SMALL_CONVNET, CIFAR10_SHAPE)
    assert cost(SMALL_CONVNET, CIFAR10_SHAPE).parameters == sum(
        parameter.numel() for parameter in model.parameters()
    )


def test_activations_and_flattening_are_not_listed() -> None:
    network = MLP(layers=(LinearLayer(width=4, norm="batch", dropout=0.1),))
    assert [layer.kind for layer in layers(network, CIFAR10_SHAPE)] == [
        "Linear",
        "BatchNorm1d",
        "Dropout",
        "Linear",
    ]


def test_cost_needs_no_torch() -> None:
    code = "import sys, mc1opt.models.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
