"""Networks built from their config: what they compute, normalisation, initialisation, memory format."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mc1opt.config import MLP, ConvBlock, ConvNet, LinearLayer, Pooling, WhitenedStem
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.models.build import Normalisation, build_layers, build_model

MEAN = torch.tensor([125.3, 123.0, 113.9])
STD = torch.tensor([63.0, 62.1, 66.7])

SMALL_MLP = MLP(layers=(LinearLayer(width=16, norm="batch"),))
SMALL_CONVNET = ConvNet(
    stem=WhitenedStem(),
    blocks=(
        ConvBlock(width=8, norm="batch", pooling=Pooling(kind="max"), dropout=0.1),
        ConvBlock(width=12, kernel_size=5, padding=2, pooling=Pooling(kind="average"), residual=True),
    ),
    head=(LinearLayer(width=16),),
)
ARCHITECTURES = pytest.mark.parametrize("architecture", [SMALL_MLP, SMALL_CONVNET], ids=["mlp", "convnet"])


def images_of(dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8).to(dtype)


def build_drawn(architecture, initialisation: str) -> nn.Module:
    torch.manual_seed(3)
    return build_model(architecture, CIFAR10_SHAPE, initialisation=initialisation)


@ARCHITECTURES
def test_logits_are_n_by_10(architecture):
    assert build_model(architecture, CIFAR10_SHAPE, mean=MEAN, std=STD)(images_of()).shape == (4, 10)


@ARCHITECTURES
def test_uint8_and_float_images_give_the_same_logits(architecture):
    model = build_model(architecture, CIFAR10_SHAPE, mean=MEAN, std=STD).eval()
    assert torch.equal(model(images_of()), model(images_of(torch.float32)))


def test_images_are_normalised_channel_by_channel():
    normalised = Normalisation(MEAN, STD, torch.contiguous_format)(images_of())
    expected = (images_of(torch.float32) - MEAN[:, None, None]) / STD[:, None, None]
    torch.testing.assert_close(normalised, expected)


@ARCHITECTURES
def test_mean_and_std_are_stored_with_the_weights_and_not_trained(architecture):
    model = build_model(architecture, CIFAR10_SHAPE, mean=MEAN, std=STD)
    state = model.state_dict()
    assert torch.equal(state["normalisation.mean"], MEAN)
    assert torch.equal(state["normalisation.std"], STD)
    assert not any(name.startswith("normalisation") for name, _ in model.named_parameters())


def test_a_network_built_from_config_alone_takes_stored_weights():
    torch.manual_seed(0)
    filters = torch.randn(24, 3, 2, 2)
    stored = build_model(SMALL_CONVNET, CIFAR10_SHAPE, mean=MEAN, std=STD, whitening=filters).eval()
    loaded = build_model(SMALL_CONVNET, CIFAR10_SHAPE).eval()
    loaded.load_state_dict(stored.state_dict())
    assert torch.equal(loaded(images_of()), stored(images_of()))


def test_the_whitened_stem_is_a_fixed_convolution_with_its_own_copy_of_the_filters():
    filters = torch.randn(24, 3, 2, 2)
    model = build_model(SMALL_CONVNET, CIFAR10_SHAPE, whitening=filters)
    images = torch.randn(2, 3, 32, 32)
    expected = F.gelu(F.conv2d(images, filters))
    filters.zero_()
    torch.testing.assert_close(model.stem(images), expected)
    assert list(model.stem.state_dict()) == ["convolution.weight"]
    assert not list(model.stem.parameters())


def test_gradients_reach_every_parameter():
    model = build_model(SMALL_CONVNET, CIFAR10_SHAPE, mean=MEAN, std=STD, whitening=torch.randn(24, 3, 2, 2))
    model(images_of()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_all_feature_maps_of_a_convnet_are_channels_last(memory_format):
    model = build_model(SMALL_CONVNET, CIFAR10_SHAPE, mean=MEAN, std=STD)
    seen = []
    for module in model.modules():
        module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(images_of().to(memory_format=memory_format))
    maps = [output for output in seen if output.ndim == 4]
    assert len(maps) >= 10
    assert all(output.is_contiguous(memory_format=torch.channels_last) for output in maps)


def test_weights_of_a_convnet_are_channels_last():
    model = build_model(SMALL_CONVNET, CIFAR10_SHAPE, whitening=torch.randn(24, 3, 2, 2))
    weights = [tensor for tensor in model.state_dict().values() if tensor.ndim == 4]
    assert len(weights) == 5
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in weights)


def test_memory_format_does_not_change_the_logits():
    model = build_model(
        SMALL_CONVNET, CIFAR10_SHAPE, mean=MEAN, std=STD, whitening=torch.randn(24, 3, 2, 2)
    ).eval()
    plain = nn.Sequential(*list(model.children())[1:]).to(memory_format=torch.contiguous_format)
    normalised = (images_of(torch.float32) - MEAN[:, None, None]) / STD[:, None, None]
    torch.testing.assert_close(model(images_of()), plain(normalised), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_kaiming_variance_is_two_by_fan_in_in_every_layer(activation):
    architecture = ConvNet(
        blocks=(ConvBlock(width=256, kernel_size=5, activation=activation),),
        global_pooling="average",
        head=(LinearLayer(width=1024, activation=activation),),
    )
    model = build_model(architecture, CIFAR10_SHAPE)
    for layer, fan_in in ((model.blocks[0].convolution, 75), (model.head[0].linear, 256)):
        assert layer.weight.var().item() == pytest.approx(2 / fan_in, rel=0.05)
        assert layer.weight.abs().max() > 3 * (2 / fan_in) ** 0.5  # normal: a uniform one ends at 1.7
    assert model.classifier.weight.var().item() == pytest.approx(2 / 1024, rel=0.05)


@ARCHITECTURES
def test_biases_start_at_zero(architecture):
    model = build_model(architecture, CIFAR10_SHAPE)
    biases = [module.bias for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert all(bias is None or not bias.any() for bias in biases)


@ARCHITECTURES
def test_pytorchs_own_initialisation_is_that_of_layers_that_nobody_touches(architecture):
    torch.manual_seed(5)
    model = build_model(architecture, CIFAR10_SHAPE, initialisation="torch")
    torch.manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            untouched = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
        elif isinstance(module, nn.Conv2d):
            options = {"padding": module.padding, "bias": module.bias is not None}
            untouched = nn.Conv2d(module.in_channels, module.out_channels, module.kernel_size, **options)
        else:
            continue
        assert torch.equal(module.weight, untouched.weight)
        assert module.bias is None or torch.equal(module.bias, untouched.bias)


@pytest.mark.parametrize("initialisation", ["he", "torch"])
def test_the_first_filters_of_an_identity_initialisation_hand_their_inputs_on(initialisation):
    wide, narrow = (
        build_drawn(SMALL_CONVNET.model_copy(update={"identity_initialisation": identity}), initialisation)
        for identity in (True, False)
    )
    for name, module in wide.named_modules():
        if isinstance(module, nn.Conv2d):
            images = torch.randn(2, module.in_channels, 7, 7)
            count = min(module.in_channels, module.out_channels)
            size = module.kernel_size[0]
            inner = images[:, :count, size // 2 : 8 - (size + 1) // 2, size // 2 : 8 - (size + 1) // 2]
            outputs = F.conv2d(images, module.weight)
            assert torch.equal(outputs[:, :count], inner), name
            assert torch.equal(module.weight[count:], narrow.get_submodule(name).weight[count:])
    for name, parameter in wide.named_parameters():
        if parameter.ndim != 4:
            assert torch.equal(parameter, narrow.get_parameter(name)), name


@ARCHITECTURES
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(architecture):
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat(
            [parameter.flatten() for parameter in build_model(architecture, CIFAR10_SHAPE).parameters()]
        )

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_whitening_filters_do_not_change_the_random_weights():
    torch.manual_seed(0)
    without = build_model(SMALL_CONVNET, CIFAR10_SHAPE)
    torch.manual_seed(0)
    with_filters = build_model(SMALL_CONVNET, CIFAR10_SHAPE, whitening=torch.ones(24, 3, 2, 2))
    pairs = zip(without.parameters(), with_filters.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("architecture", [SMALL_MLP, ConvNet(blocks=(ConvBlock(width=4),))])
def test_whitening_without_a_whitened_stem_is_refused(architecture):
    with pytest.raises(ValueError, match="stem"):
        build_model(architecture, CIFAR10_SHAPE, whitening=torch.zeros(24, 3, 2, 2))


def test_filters_of_another_shape_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(54, 3, 3, 3\).*\(24, 3, 2, 2\)"):
        build_model(SMALL_CONVNET, CIFAR10_SHAPE, whitening=torch.zeros(54, 3, 3, 3))


@pytest.mark.parametrize("wrong", [{"mean": torch.zeros(1)}, {"std": torch.ones(3, 1)}])
def test_mean_and_std_of_another_shape_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        build_model(SMALL_MLP, CIFAR10_SHAPE, **wrong)


@ARCHITECTURES
def test_network_can_be_exported_with_its_normalisation(architecture):
    model = build_model(architecture, CIFAR10_SHAPE, mean=MEAN, std=STD).eval()
    exported = torch.export.export(model, (images_of(),))
    torch.testing.assert_close(exported.module()(images_of()), model(images_of()))
    assert torch.equal(exported.state_dict["normalisation.mean"], MEAN)


# ---- What the layers compute -----------------------------------------------------------------------------

ORDERS = ("pool_norm_activation", "norm_activation_pool")


def block_of(block: ConvBlock, order: str = ORDERS[0]) -> nn.Module:
    """The only block of a network."""
    return build_layers(ConvNet(blocks=(block,), order=order), CIFAR10_SHAPE).blocks[0]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["max", "average"])
def test_a_bias_before_batch_norm_would_change_nothing(order, kind):
    torch.manual_seed(0)
    block = block_of(ConvBlock(width=4, norm="batch", pooling=Pooling(kind=kind)), order)
    images = torch.randn(8, 3, 12, 12)
    without = block(images)
    block.convolution.bias = nn.Parameter(torch.tensor([1.0, -2.0, 0.5, 3.0]))
    torch.testing.assert_close(block(images), without, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "size", "stride"), [("max", 2, 2), ("max", 2, 1), ("max", 3, 2), ("average", 2, 2)]
)
def test_relu_commutes_with_max_pooling_and_not_with_average_pooling(kind, size, stride):
    block = ConvBlock(width=4, kernel_size=5, pooling=Pooling(kind=kind, size=size, stride=stride))
    pool_first, pool_last = (block_of(block, order) for order in ORDERS)
    pool_last.load_state_dict(pool_first.state_dict())
    images = torch.randn(4, 3, 16, 16)
    assert torch.equal(pool_first(images), pool_last(images)) == (kind == "max")


def test_block_computes_what_pytorchs_functions_compute():
    pooling = Pooling(kind="average", size=3, stride=1)
    spec = ConvBlock(width=4, stride=2, padding=1, norm="batch", activation="silu", pooling=pooling)
    block = block_of(spec, "norm_activation_pool")
    images = torch.randn(4, 3, 16, 16)
    convolved = F.conv2d(images, block.convolution.weight, stride=2, padding=1)
    expected = F.avg_pool2d(F.silu(F.batch_norm(convolved, None, None, training=True)), 3, 1)
    torch.testing.assert_close(block(images), expected)


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("order", ORDERS)
def test_residual_pair_is_that_of_he_et_al(order, norm):
    """Convolution, norm, activation, convolution, norm; plus the identity; activation."""
    spec = ConvBlock(width=4, norm=norm, activation="silu", pooling=Pooling(kind="max"), residual=True)
    block = block_of(spec, order)
    images = torch.randn(4, 3, 16, 16)
    before = block_of(spec.model_copy(update={"residual": False}), order)
    before.load_state_dict(block.state_dict(), strict=False)
    inputs, pair = before(images), block.residual

    def norm_of(values):
        return F.batch_norm(values, None, None, training=True) if norm == "batch" else values

    first, second = ((c.weight, c.bias, 1, 1) for c in (pair.convolution1, pair.convolution2))
    inner = norm_of(F.conv2d(F.silu(norm_of(F.conv2d(inputs, *first))), *second))
    torch.testing.assert_close(block(images), F.silu(inputs + inner))
    assert inner.shape == inputs.shape == (4, 4, 7, 7)


def test_dropout_sets_single_values_to_zero_and_only_in_training():
    block = block_of(ConvBlock(width=4, dropout=0.5))
    images = torch.randn(4, 3, 16, 16)
    kept = block.eval()(images) > 0
    dropped = (block.train()(images) == 0) & kept
    assert 0.3 < dropped.sum() / kept.sum() < 0.7
    assert not block.eval()(images)[kept].eq(0).any()
    assert dropped.flatten(2).float().mean(2).max() < 1  # no whole channel


@pytest.mark.parametrize("kind", ["max", "average"])
def test_global_pooling_reduces_each_channel_to_one_value(kind):
    model = build_model(ConvNet(blocks=(ConvBlock(width=4),), global_pooling=kind), CIFAR10_SHAPE)
    images = torch.rand(2, 3, 32, 32)
    features = model.blocks(images)
    pooled = features.amax((2, 3)) if kind == "max" else features.mean((2, 3))
    torch.testing.assert_close(model(images), model.classifier(pooled))


@ARCHITECTURES
def test_scaled_logits_are_the_logits_times_the_scale(architecture):
    scaled = build_drawn(architecture.model_copy(update={"logit_scale": 1 / 9}), "he").eval()
    torch.testing.assert_close(scaled(images_of()), build_drawn(architecture, "he").eval()(images_of()) / 9)


def test_flattening_goes_through_channels_first():
    model = build_model(ConvNet(blocks=(ConvBlock(width=4, kernel_size=11, stride=4),)), CIFAR10_SHAPE)
    images = torch.rand(2, 3, 32, 32)
    features = model.blocks(images).contiguous()
    torch.testing.assert_close(model(images), model.classifier(features.reshape(2, -1)))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("kind", "reference"), [("relu", F.relu), ("gelu", F.gelu), ("silu", F.silu)])
def test_mlp_computes_what_the_formula_says(kind, reference, memory_format):
    model = build_model(
        MLP(layers=(LinearLayer(width=4), LinearLayer(width=3, activation=kind))), CIFAR10_SHAPE
    )
    images = torch.rand(2, 3, 32, 32)
    hidden = F.relu(images.flatten(1) @ model.layers[0].linear.weight.T)
    hidden = reference(hidden @ model.layers[1].linear.weight.T)
    expected = hidden @ model.classifier.weight.T
    torch.testing.assert_close(model(images.to(memory_format=memory_format)), expected)


def test_mlp_without_hidden_layers_is_the_classifier_alone():
    model = build_model(MLP(layers=()), CIFAR10_SHAPE)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        "classifier.weight": (10, 3072),
        "classifier.bias": (10,),
    }


def test_parameters_have_readable_names_in_the_networks_order():
    assert [name for name, _ in build_model(SMALL_CONVNET, CIFAR10_SHAPE).named_parameters()] == [
        "blocks.0.convolution.weight",
        "blocks.0.norm.weight",
        "blocks.0.norm.bias",
        "blocks.1.convolution.weight",
        "blocks.1.convolution.bias",
        "blocks.1.residual.convolution1.weight",
        "blocks.1.residual.convolution1.bias",
        "blocks.1.residual.convolution2.weight",
        "blocks.1.residual.convolution2.bias",
        "head.0.linear.weight",
        "head.0.linear.bias",
        "classifier.weight",
        "classifier.bias",
    ]
