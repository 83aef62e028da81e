"""The convolutional network: the order of its layers, and what they compute."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mc1opt.config import ConvBlock, ConvNet, LinearLayer, Pooling, WhitenedStem
from mc1opt.models.build import build_model
from mc1opt.models.convnet import block_module, whitened_stem

ORDERS = ("pool_norm_activation", "norm_activation_pool")
FULL_BLOCK = ConvBlock(width=4, norm="batch", activation="gelu", pooling=Pooling(kind="max"), dropout=0.3)


def names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_children()]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("pool_norm_activation", ["convolution", "pooling", "norm", "activation", "dropout"]),
        ("norm_activation_pool", ["convolution", "norm", "activation", "pooling", "dropout"]),
    ],
)
def test_block_follows_the_configs_order(order, expected):
    assert names(block_module(FULL_BLOCK, 3, order)) == expected


@pytest.mark.parametrize("order", ORDERS)
def test_block_without_extras_is_convolution_and_activation(order):
    assert names(block_module(ConvBlock(width=4), 3, order)) == ["convolution", "activation"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("pooling", [None, Pooling(kind="max"), Pooling(kind="average")])
@pytest.mark.parametrize(("norm", "biased"), [("none", True), ("batch", False)])
def test_convolution_has_a_bias_unless_the_block_has_batch_norm(order, pooling, norm, biased):
    block = block_module(ConvBlock(width=4, norm=norm, pooling=pooling), 3, order)
    assert (block.convolution.bias is not None) == biased


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["max", "average"])
def test_a_bias_before_batch_norm_would_change_nothing(order, kind):
    torch.manual_seed(0)
    block = block_module(ConvBlock(width=4, norm="batch", pooling=Pooling(kind=kind)), 3, order)
    images = torch.randn(8, 3, 12, 12)
    without = block(images)
    block.convolution.bias = nn.Parameter(torch.tensor([1.0, -2.0, 0.5, 3.0]))
    torch.testing.assert_close(block(images), without, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size_and_stride", [(2, 2), (2, 1), (3, 2)])
def test_relu_and_max_pooling_commute_without_norm(size_and_stride):
    size, stride = size_and_stride
    block = ConvBlock(width=4, kernel_size=5, pooling=Pooling(kind="max", size=size, stride=stride))
    pool_first, pool_last = (block_module(block, 3, order) for order in ORDERS)
    pool_last.load_state_dict(pool_first.state_dict())
    images = torch.randn(4, 3, 16, 16)
    assert torch.equal(pool_first(images), pool_last(images))


def test_average_pooling_and_relu_do_not_commute():
    block = ConvBlock(width=4, pooling=Pooling(kind="average"))
    pool_first, pool_last = (block_module(block, 3, order) for order in ORDERS)
    pool_last.load_state_dict(pool_first.state_dict())
    images = torch.randn(4, 3, 16, 16)
    assert not torch.allclose(pool_first(images), pool_last(images))


def test_block_computes_what_pytorchs_functions_compute():
    spec = ConvBlock(
        width=4,
        kernel_size=3,
        stride=2,
        padding=1,
        norm="batch",
        activation="silu",
        pooling=Pooling(kind="average", size=3, stride=1),
    )
    block = block_module(spec, 3, "norm_activation_pool")
    images = torch.randn(4, 3, 16, 16)
    convolved = F.conv2d(images, block.convolution.weight, stride=2, padding=1)
    expected = F.avg_pool2d(F.silu(F.batch_norm(convolved, None, None, training=True)), 3, 1)
    torch.testing.assert_close(block(images), expected)


def test_dropout_sets_single_values_to_zero_and_only_in_training():
    block = block_module(ConvBlock(width=4, dropout=0.5), 3, "pool_norm_activation")
    images = torch.randn(4, 3, 16, 16)
    kept = block.eval()(images) > 0
    dropped = (block.train()(images) == 0) & kept
    assert 0.3 < dropped.sum() / kept.sum() < 0.7
    assert not block.eval()(images)[kept].eq(0).any()
    planes = dropped.flatten(2).float().mean(2)
    assert planes.max() < 1  # no whole channel


def test_whitened_stem_is_a_fixed_convolution_and_its_activation():
    filters = torch.randn(24, 3, 2, 2)
    stem = whitened_stem(WhitenedStem(activation="silu"), filters)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(stem(images), F.silu(F.conv2d(images, filters)))
    assert list(stem.parameters()) == []
    assert list(stem.state_dict()) == ["convolution.weight"]


def test_whitened_stem_keeps_its_own_copy_of_the_filters():
    filters = torch.ones(24, 3, 2, 2)
    stem = whitened_stem(WhitenedStem(), filters)
    filters.zero_()
    assert stem.convolution.weight.eq(1).all()


def test_whitened_stem_without_filters_holds_zeros_of_the_right_shape():
    stem = whitened_stem(WhitenedStem(kernel_size=3), None)
    assert torch.equal(stem.convolution.weight, torch.zeros(54, 3, 3, 3))


def test_filters_of_another_shape_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(54, 3, 3, 3\); this stem needs \(24, 3, 2, 2\)"):
        whitened_stem(WhitenedStem(kernel_size=2), torch.zeros(54, 3, 3, 3))


@pytest.mark.parametrize("kind", ["max", "average"])
def test_global_pooling_reduces_each_channel_to_one_value(kind):
    model = build_model(ConvNet(blocks=(ConvBlock(width=4),), global_pooling=kind))
    images = torch.rand(2, 3, 32, 32)
    features = model.blocks(images)
    pooled = features.amax((2, 3)) if kind == "max" else features.mean((2, 3))
    torch.testing.assert_close(model(images), model.classifier(pooled))


def test_flattening_goes_through_channels_first():
    model = build_model(ConvNet(blocks=(ConvBlock(width=4, kernel_size=11, stride=4),)))
    images = torch.rand(2, 3, 32, 32)
    features = model.blocks(images).contiguous()
    torch.testing.assert_close(model(images), model.classifier(features.reshape(2, -1)))


def test_parameters_have_readable_names_in_the_networks_order():
    architecture = ConvNet(
        stem=WhitenedStem(),
        blocks=(ConvBlock(width=4, norm="batch"), ConvBlock(width=5)),
        head=(LinearLayer(width=6),),
    )
    assert [name for name, _ in build_model(architecture).named_parameters()] == [
        "blocks.0.convolution.weight",
        "blocks.0.norm.weight",
        "blocks.0.norm.bias",
        "blocks.1.convolution.weight",
        "blocks.1.convolution.bias",
        "head.0.linear.weight",
        "head.0.linear.bias",
        "classifier.weight",
        "classifier.bias",
    ]
