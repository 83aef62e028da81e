"""The published models: what they are, and that the config can say all eleven."""

import pytest

from mc1opt.config import (
    MLP,
    SGD,
    Adam,
    Architecture,
    Augmentation,
    Config,
    Constant,
    ConvBlock,
    LinearLayer,
    OneCycle,
    config_from_json,
    config_id,
    config_to_json,
)
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.errors import UsageError
from mc1opt.models.cost import cost, layers
from mc1opt.presets import OPEN_VALUES, PRESETS, RECIPES, get_preset, get_recipe

ALL = pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))

PARAMETERS = {
    "mlp-128-64": 3072 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10,
    "mlp-256-128-64": 3072 * 256 + 256 + 256 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10,
    "cnn-6-16-fc": 456 + 2_416 + 9_216 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10,
    "cnn-32-128-fc": 2_432 + 102_528 + 73_728 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10,
    "cnn-32-128": 104_960 + 73_728 * 10 + 10,
    "cnn-32-128-pool": 104_960 + 5 * 5 * 128 * 10 + 10,
    "cnn-32-128-pool-dropout": 104_960 + 5 * 5 * 128 * 10 + 10,
    "cnn-deep": 54_093_194,
    "cnn-deep-adjusted": 1_792
    + (64 * 9 * 128 + 128)
    + (128 * 9 * 256 + 256)
    + (256 * 9 * 256 + 256)
    + (256 * 6 * 6 * 4096 + 4096)
    + 40_970,
    # Each of the norms has two values a channel, and takes the bias of the layer before it away.
    "cnn-deep-batchnorm": 54_093_194 + 64 + 128 + 256 + 256 + 4096,
    "cnn-deep-adam": 54_093_194,
}
DEEP_ROWS = ("cnn-deep", "cnn-deep-adjusted", "cnn-deep-batchnorm", "cnn-deep-adam")


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_parameters_are_the_published_ones(name, parameters):
    assert get_preset(name).parameters == parameters
    assert cost(get_preset(name).config.architecture, CIFAR10_SHAPE).parameters == parameters


def test_rows_and_accuracies_are_those_of_the_source():
    assert {name: (preset.row, preset.published_accuracy) for name, preset in PRESETS.items()} == {
        "mlp-128-64": (1, 0.5214),
        "mlp-256-128-64": (2, 0.532),
        "cnn-6-16-fc": (3, 0.5607),
        "cnn-32-128-fc": (4, 0.6529),
        "cnn-32-128": (5, 0.6438),
        "cnn-32-128-pool": (6, 0.6972),
        "cnn-32-128-pool-dropout": (7, 0.7142),
        "cnn-deep": (8, 0.7621),
        "cnn-deep-adjusted": (9, 0.7653),
        "cnn-deep-batchnorm": (10, 0.7302),
        "cnn-deep-adam": (11, 0.7366),
    }
    assert PARAMETERS.keys() == PRESETS.keys()


@ALL
def test_recipe_is_the_published_one(preset):
    plain_sgd = SGD(learning_rate=0.1, momentum=0.0, nesterov=False, weight_decay=0.0)
    plain_adam = Adam(learning_rate=0.001, beta1=0.9, beta2=0.999, weight_decay=0.0)
    assert preset.config == Config(
        architecture=preset.config.architecture,
        optimizer=plain_adam if preset.row == 11 else plain_sgd,
        schedule=Constant(),
        batch_size=200,
        label_smoothing=0.0,
        augmentation=Augmentation(flip=False, crop=0, cutout=0),
        initialisation="torch",
        normalisation="symmetric",
    )


def parts_of(architecture: Architecture) -> list[LinearLayer | ConvBlock]:
    if isinstance(architecture, MLP):
        return list(architecture.layers)
    return [*architecture.blocks, *architecture.head]


@ALL
def test_layers_are_relu_and_only_row_10_has_norms_after_all_of_them(preset):
    parts = parts_of(preset.config.architecture)
    norm = "batch" if preset.row == 10 else "none"
    assert {(part.activation, part.norm) for part in parts} == {("relu", norm)}


def test_row_10_normalises_before_activation_and_pooling_and_says_so_of_its_linear_layer():
    preset = get_preset("cnn-deep-batchnorm")
    assert preset.config.architecture.order == "norm_activation_pool"
    assert "linear layer of 4,096" in preset.description


@ALL
def test_the_other_recipe_trains_the_same_network_by_one_cycle_with_augmentation(preset):
    config = preset.with_recipe("mc1opt")
    assert config.architecture == preset.config.architecture
    assert config.initialisation == preset.config.initialisation
    assert config.schedule == OneCycle()
    assert config.label_smoothing > 0.0
    assert config.augmentation.flip
    assert config.augmentation.crop > 0
    if preset.row == 11:
        assert config.optimizer.kind == "adamw"
    else:
        assert config.optimizer.nesterov
        assert config.optimizer.learning_rate == (0.02 if preset.row == 5 else 0.05)
    assert preset.with_recipe("published") == preset.config
    assert preset.epochs["mc1opt"] <= preset.epochs["published"]


@ALL
def test_each_recipe_has_default_epochs(preset):
    assert list(preset.epochs) == list(RECIPES) == ["published", "mc1opt"]
    assert min(preset.epochs.values()) >= 1


def test_an_unknown_recipe_is_refused_with_the_allowed_ones():
    assert get_recipe("mc1opt") == "mc1opt"
    with pytest.raises(UsageError, match=r"'best'.*published, mc1opt"):
        get_recipe("best")


@ALL
def test_a_preset_survives_its_json(preset):
    assert config_from_json(config_to_json(preset.config)) == preset.config


def test_presets_are_different_configs_with_either_recipe():
    identities = {config_id(p.with_recipe(recipe)) for p in PRESETS.values() for recipe in RECIPES}
    assert len(identities) == len(PRESETS) * len(RECIPES)


def test_dropout_stands_where_the_source_has_it():
    dropouts = {
        name: [part.dropout for part in parts_of(p.config.architecture)] for name, p in PRESETS.items()
    }
    assert dropouts.pop("cnn-32-128-pool-dropout") == [0.2, 0.0]
    for name in DEEP_ROWS:
        assert dropouts.pop(name) == [0.2, 0.0, 0.0, 0.0, 0.5]
    assert not any(any(rates) for rates in dropouts.values())


@pytest.mark.parametrize(
    "name", ["cnn-32-128-pool-dropout", "cnn-deep", "cnn-deep-adjusted", "cnn-deep-adam"]
)
def test_what_the_source_leaves_open_is_called_our_choice(name):
    assert "our choice" in get_preset(name).description.lower().replace("\n", " ")
    assert "our choice" in OPEN_VALUES


def test_an_unknown_name_is_refused_with_the_nearest_and_all_names():
    for name, guess in {"cnn-32-128-pol": "cnn-32-128-pool", "CNN-Deep": "cnn-deep", "zzz": None}.items():
        with pytest.raises(UsageError) as error:
            get_preset(name)
        first, guessed, listed = str(error.value).partition("Did you mean")
        assert repr(name) in first
        assert bool(guessed) == (guess is not None)
        assert guess is None or guess in listed
        assert all(preset in str(error.value) for preset in PRESETS)


def test_presets_cannot_be_changed():
    with pytest.raises(TypeError):
        PRESETS["mlp"] = PRESETS["mlp-128-64"]  # type: ignore[index]


# ---- Rows 8 to 11 ----------------------------------------------------------------------------------------

DEEP_TABLE = [
    ("Conv2d", (64, 30, 30), 4_864),
    ("Dropout", (64, 15, 15), 0),
    ("Conv2d", (128, 13, 13), 204_928),
    ("Conv2d", (256, 10, 10), 819_456),
    ("Conv2d", (256, 8, 8), 1_638_656),
    ("Linear", (4096,), 51_384_320),
    ("Dropout", (4096,), 0),
    ("Linear", (10,), 40_970),
]
"""As the source prints it."""


def rows(name):
    """Kind, output and parameters of the layers that the source prints, and of norms."""
    table = layers(get_preset(name).config.architecture, CIFAR10_SHAPE)
    return [(layer.kind, layer.output, layer.parameters) for layer in table if "Pool" not in layer.kind]


@pytest.mark.parametrize("name", ["cnn-deep", "cnn-deep-adam"])
def test_the_deep_network_is_exactly_the_published_table(name):
    assert rows(name) == DEEP_TABLE


def test_row_10_has_a_norm_after_each_layer_and_the_geometry_of_row_8():
    batchnorm = rows("cnn-deep-batchnorm")
    norms = [(kind, output) for kind, output, _ in batchnorm if kind.startswith("BatchNorm")]
    assert norms == [
        ("BatchNorm2d", (64, 30, 30)),
        ("BatchNorm2d", (128, 13, 13)),
        ("BatchNorm2d", (256, 10, 10)),
        ("BatchNorm2d", (256, 8, 8)),
        ("BatchNorm1d", (4096,)),
    ]
    others = [(kind, output) for kind, output, _ in batchnorm if not kind.startswith("BatchNorm")]
    assert others == [(kind, output) for kind, output, _ in DEEP_TABLE]


def test_row_9_has_another_stride_padding_and_kernel_and_the_same_widths():
    adjusted, deep = (get_preset(name).config.architecture for name in ("cnn-deep-adjusted", "cnn-deep"))
    assert [block.width for block in adjusted.blocks] == [64, 128, 256, 256]
    assert [layer.width for layer in adjusted.head] == [4096]
    assert [block.pooling is None for block in adjusted.blocks] == [b.pooling is None for b in deep.blocks]
    outputs = [output for kind, output, _ in rows("cnn-deep-adjusted") if kind == "Conv2d"]
    assert outputs == [(64, 34, 34), (128, 19, 19), (256, 11, 11), (256, 13, 13)]
    for theirs, ours in zip(deep.blocks, adjusted.blocks, strict=True):
        assert (ours.kernel_size, ours.padding) == (3, 2)
        assert (theirs.kernel_size, theirs.padding) == (5, 1)
    strides = [[block.pooling.stride for block in net.blocks if block.pooling] for net in (deep, adjusted)]
    assert strides == [[2, 1, 1], [2, 2, 2]]
