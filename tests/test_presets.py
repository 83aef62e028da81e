"""The published models: what they are, and that the config can say all eleven."""

import subprocess
import sys

import pytest
import torch

from mc1opt.config import (
    MLP,
    SGD,
    Adam,
    Architecture,
    Augmentation,
    Config,
    Constant,
    ConvBlock,
    ConvNet,
    LinearLayer,
    Pooling,
    config_from_json,
    config_id,
    config_to_json,
)
from mc1opt.errors import UsageError
from mc1opt.models.build import build_model
from mc1opt.models.cost import cost, layers
from mc1opt.presets import PRESETS, get_preset

ALL = pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))

PARAMETERS = {
    "mlp-128-64": 3072 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10,
    "mlp-256-128-64": 3072 * 256 + 256 + 256 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10,
    "cnn-6-16-fc": 456 + 2_416 + 9_216 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10,
    "cnn-32-128-fc": 2_432 + 102_528 + 73_728 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10,
    "cnn-32-128": 104_960 + 73_728 * 10 + 10,
    "cnn-32-128-pool": 104_960 + 5 * 5 * 128 * 10 + 10,
    "cnn-32-128-pool-dropout": 104_960 + 5 * 5 * 128 * 10 + 10,
}


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_parameters_are_the_published_ones(name, parameters):
    assert get_preset(name).parameters == parameters
    assert cost(get_preset(name).config.architecture).parameters == parameters


@ALL
def test_the_built_network_has_the_parameters_the_preset_states(preset):
    with torch.device("meta"):
        model = build_model(preset.config.architecture)
    assert sum(parameter.numel() for parameter in model.parameters()) == preset.parameters


def test_rows_and_accuracies_are_those_of_the_source():
    assert {name: (preset.row, preset.published_accuracy) for name, preset in PRESETS.items()} == {
        "mlp-128-64": (1, 0.5214),
        "mlp-256-128-64": (2, 0.532),
        "cnn-6-16-fc": (3, 0.5607),
        "cnn-32-128-fc": (4, 0.6529),
        "cnn-32-128": (5, 0.6438),
        "cnn-32-128-pool": (6, 0.6972),
        "cnn-32-128-pool-dropout": (7, 0.7142),
    }


@ALL
def test_recipe_is_the_published_one(preset):
    assert preset.config == Config(
        architecture=preset.config.architecture,
        optimizer=SGD(learning_rate=0.1, momentum=0.0, nesterov=False, weight_decay=0.0),
        schedule=Constant(),
        batch_size=200,
        label_smoothing=0.0,
        augmentation=Augmentation(flip=False, crop=0, cutout=0),
    )


def parts_of(architecture: Architecture) -> list[LinearLayer | ConvBlock]:
    if isinstance(architecture, MLP):
        return list(architecture.layers)
    return [*architecture.blocks, *architecture.head]


@ALL
def test_layers_are_relu_without_norm(preset):
    parts = parts_of(preset.config.architecture)
    assert {(part.activation, part.norm) for part in parts} == {("relu", "none")}


@ALL
def test_a_preset_survives_its_json(preset):
    assert config_from_json(config_to_json(preset.config)) == preset.config


def test_presets_are_different_configs():
    assert len({config_id(preset.config) for preset in PRESETS.values()}) == len(PRESETS)


def test_only_row_7_has_dropout_and_only_after_its_first_block():
    dropouts = {
        name: [part.dropout for part in parts_of(p.config.architecture)] for name, p in PRESETS.items()
    }
    assert dropouts.pop("cnn-32-128-pool-dropout") == [0.2, 0.0]
    assert not any(any(rates) for rates in dropouts.values())


@ALL
def test_description_says_something(preset):
    assert len(preset.description) > 20


def test_the_open_dropout_rate_is_called_our_choice():
    assert "our choice" in get_preset("cnn-32-128-pool-dropout").description


def test_an_unknown_name_is_refused_with_the_nearest_and_all_names():
    with pytest.raises(UsageError) as error:
        get_preset("cnn-32-128-pol")
    message = str(error.value)
    assert "'cnn-32-128-pol'. Did you mean cnn-32-128-pool" in message
    assert all(name in message for name in PRESETS)


def test_a_name_like_no_other_is_refused_without_a_guess():
    with pytest.raises(UsageError, match=r"'zzz'\. The presets are"):
        get_preset("zzz")


def test_presets_cannot_be_changed():
    with pytest.raises(TypeError):
        PRESETS["mlp"] = PRESETS["mlp-128-64"]  # type: ignore[index]


def test_presets_need_no_torch():
    code = "import sys, mc1opt.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- Rows 8 to 11: the config can say them ---------------------------------------------------------------


def deep_network(norm: str = "none") -> ConvNet:
    """Row 8: kernel 5 and padding 1 everywhere; pooling with stride 2, none, 1, 1."""
    overlapping = Pooling(kind="max", size=2, stride=1)
    poolings = [Pooling(kind="max"), overlapping, None, overlapping]
    return ConvNet(
        blocks=tuple(
            ConvBlock(
                width=width,
                kernel_size=5,
                padding=1,
                norm=norm,
                pooling=pooling,
                dropout=0.2 if number == 0 else 0.0,
            )
            for number, (width, pooling) in enumerate(zip([64, 128, 256, 256], poolings, strict=True))
        ),
        head=(LinearLayer(width=4096, norm=norm, dropout=0.5),),
    )


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


def test_the_deep_network_costs_exactly_the_published_table():
    printed = [layer for layer in layers(deep_network()) if layer.kind in ("Conv2d", "Linear", "Dropout")]
    assert [(layer.kind, layer.output, layer.parameters) for layer in printed] == DEEP_TABLE
    assert cost(deep_network()).parameters == 54_093_194


def test_the_built_deep_network_is_exactly_the_published_table():
    with torch.device("meta"):
        model = build_model(deep_network())
    rows = []
    for module in model.modules():
        if type(module).__name__ in ("Conv2d", "Linear", "Dropout"):
            module.register_forward_hook(
                lambda module, inputs, output: rows.append(
                    (
                        type(module).__name__,
                        tuple(output.shape[1:]),
                        sum(p.numel() for p in module.parameters()),
                    )
                )
            )
    model(torch.zeros(2, 3, 32, 32, device="meta"))
    assert rows == DEEP_TABLE
    assert sum(parameter.numel() for parameter in model.parameters()) == 54_093_194


@pytest.mark.parametrize(
    "config",
    [
        Config(
            architecture=ConvNet(
                blocks=(
                    ConvBlock(width=64, kernel_size=3, padding=1, pooling=Pooling(kind="max"), dropout=0.2),
                    ConvBlock(width=128, kernel_size=3, padding=1, stride=2),
                    ConvBlock(width=256, kernel_size=3, padding=1),
                    ConvBlock(width=256, kernel_size=3, padding=1, pooling=Pooling(kind="max")),
                ),
                head=(LinearLayer(width=4096, dropout=0.5),),
            ),
            optimizer=SGD(learning_rate=0.1),
            batch_size=200,
        ),
        Config(architecture=deep_network(norm="batch"), optimizer=SGD(learning_rate=0.1), batch_size=200),
        Config(architecture=deep_network(), optimizer=Adam(learning_rate=0.001), batch_size=200),
    ],
    ids=["adjusted", "batchnorm", "adam"],
)
def test_the_config_can_say_rows_9_to_11(config):
    assert config_from_json(config_to_json(config)) == config
    with torch.device("meta"):
        model = build_model(config.architecture)
    assert model(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 10)
