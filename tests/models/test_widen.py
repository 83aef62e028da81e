"""Wider forms: within the growth, all layers alike, still a config that can be built."""

import pytest

from mc1opt.config import MLP, ConvBlock, ConvNet, LinearLayer, WhitenedStem
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.models.cost import cost
from mc1opt.models.widen import widened

CONVOLUTIONS = ConvNet(
    stem=WhitenedStem(),
    blocks=tuple(ConvBlock(width=width, padding=1, residual=width == 64) for width in (32, 64, 112)),
    head=(LinearLayer(width=40),),
)
PERCEPTRON = MLP(layers=(LinearLayer(width=128), LinearLayer(width=64)))


@pytest.mark.parametrize("architecture", [CONVOLUTIONS, PERCEPTRON])
@pytest.mark.parametrize("growth", [1.5, 2.0, 4.0, 16.0])
def test_a_wider_form_uses_its_growth_and_no_more(architecture, growth):
    wider = widened(architecture, growth, CIFAR10_SHAPE)
    grown = cost(wider, CIFAR10_SHAPE).macs / cost(architecture, CIFAR10_SHAPE).macs
    assert 0.75 * growth < grown <= growth


def test_all_layers_grow_alike_and_nothing_else_changes():
    wider = widened(CONVOLUTIONS, 4.0, CIFAR10_SHAPE)
    factors = [new.width / old.width for new, old in zip(wider.blocks, CONVOLUTIONS.blocks, strict=True)]
    assert max(factors) - min(factors) < 0.25
    assert wider.head[0].width > 40
    assert wider.model_copy(update={"blocks": CONVOLUTIONS.blocks, "head": CONVOLUTIONS.head}) == CONVOLUTIONS


def test_widths_above_16_are_multiples_of_16():
    widths = [block.width for block in widened(CONVOLUTIONS, 3.0, CIFAR10_SHAPE).blocks]
    assert [width % 16 for width in widths] == [0, 0, 0]


@pytest.mark.parametrize("growth", [0.5, 1.0, 1.01])
def test_without_room_to_grow_it_stays_as_it_is(growth):
    assert widened(CONVOLUTIONS, growth, CIFAR10_SHAPE) == CONVOLUTIONS
    assert widened(PERCEPTRON, growth, CIFAR10_SHAPE) == PERCEPTRON
