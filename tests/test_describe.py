"""A config in one line."""

import itertools
from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial

from mc1opt.config import (
    MLP,
    SGD,
    Augmentation,
    Config,
    ConvBlock,
    ConvNet,
    CustomNetwork,
    LinearLayer,
    Muon,
    Pooling,
)
from mc1opt.describe import describe_change, describe_config
from mc1opt.presets import PRESETS
from mc1opt.search.definition import load_definition

CNN = load_definition("cnn")
MLPS = load_definition("mlp")
TUNED = CNN.starting_points["whitened-16-32-64"]
PLAIN = CNN.presets["cnn-32-128-fc"]
LAYERS = {**MLPS.presets["mlp-128-64"], "use_dropout": True, "dropout_rate": 0.2}


def described(definition: Any, params: Any) -> str:
    return describe_config(definition.config(FixedTrial(params)))


@pytest.mark.parametrize(
    ("params", "line"),
    [
        (
            TUNED,
            "whitened conv 16m 32m 64m, 3x3 same, gelu, batch norm | nesterov 0.2 momentum 0.9, "
            "decay 0.0005, one-cycle 0.25, batch 64, smoothing 0.1, flip, crop 2",
        ),
        (
            PLAIN,
            "conv 32 128, 5x5 unpadded, relu, linear 128 64 | sgd 0.1, constant, batch 200, "
            "pixels -1 to 1, torch init",
        ),
    ],
    ids=["tuned", "plain"],
)
def test_the_line_says_the_architecture_and_then_the_recipe(params: Any, line: str) -> None:
    assert described(CNN, params) == line


def test_another_geometry_of_a_published_model_is_seen() -> None:
    deep, adjusted = (describe_config(PRESETS[name].config) for name in ("cnn-deep", "cnn-deep-adjusted"))
    recipe = "sgd 0.1, constant, batch 200, pixels -1 to 1, torch init"
    head = "relu, dropout 0.2 0 0 0 0.5, linear 4096"
    assert deep == f"conv 64m 128m2/1 256 256m2/1, 5x5 padded 1, {head} | {recipe}"
    assert adjusted == f"conv 64m 128m 256 256m, 3x3 padded 2, {head} | {recipe}"


def test_what_is_not_there_is_not_named() -> None:
    config = Config(architecture=MLP(layers=()), optimizer=SGD(learning_rate=0.1), batch_size=10)
    assert describe_config(config) == "mlp | sgd 0.1, constant, batch 10"


ADAM = {"optimizer": "adam", "adam_learning_rate": 0.001, "adam_beta2": 0.99, "use_weight_decay": False}
CHANGES: dict[str, list[dict[str, Any]]] = {
    "stem": [{"stem": "plain"}, {"stem": "whitened"}],
    "activation": [{"activation": "relu"}, {"activation": "gelu"}],
    "norm": [{"norm": "none"}, {"norm": "batch"}],
    "kernel size": [{"kernel_size": 3}, {"kernel_size": 5}],
    "padding": [{"padding": "same"}, {"padding": "none"}],
    "width": [{"conv1_width_share": 0.6}, {"conv1_width_share": 1.0}],
    "pooling": [{"conv1_pooling": kind} for kind in ("none", "max", "average")],
    "global pooling": [{"global_pooling": x, "progressive_size": 32} for x in ("none", "max", "average")],
    "head": [
        {},
        {"linear_layers": 1, "linear1_width": 64},
        {"linear_layers": 1, "linear1_width": 65},
        {"linear_layers": 2, "linear1_width": 64, "linear2_width": 64},
    ],
    "dropout": [
        {},
        *({"dropout_at": at, "dropout_rate": 0.2} for at in ("first", "convolutions", "last")),
        {"dropout_at": "last", "dropout_rate": 0.3},
    ],
    "dropout with a head": [
        {"linear_layers": 1, "linear1_width": 64} | dropout
        for dropout in (
            {},
            *({"dropout_at": at, "dropout_rate": 0.2} for at in ("first", "convolutions", "last")),
        )
    ],
    "optimizer": [{}, ADAM, {**ADAM, "optimizer": "adamw"}],
    "momentum": [
        {"sgd_momentum_kind": "none"},
        {"sgd_momentum_kind": "classical"},
        {"sgd_momentum_kind": "nesterov"},
        {"sgd_momentum_kind": "nesterov", "sgd_momentum": 0.5},
    ],
    "weight decay": [{"use_weight_decay": False}, {}, {"sgd_weight_decay": 1e-3}],
    "learning rate": [{"sgd_learning_rate": 0.1}, {"sgd_learning_rate": 0.12}],
    "schedule": [
        {"schedule": "constant"},
        {"schedule": "cosine"},
        {},
        {"one_cycle_warmup": 0.4},
    ],
    "batch size": [{"batch_size": 64}, {"batch_size": 65}],
    "label smoothing": [{"label_smoothing": 0.0}, {"label_smoothing": 0.1}],
    "flip": [{"flip": True}, {"flip": False}],
    "crop": [{"crop": 0}, {"crop": 1}, {"crop": 2}],
    "cutout": [{"cutout": 0}, {"cutout": 4}, {"cutout": 8}],
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_every_difference_of_two_convolutional_networks_is_named(changes: list[dict[str, Any]]) -> None:
    lines = [described(CNN, {**TUNED, **change}) for change in changes]
    for one, other in itertools.combinations(lines, 2):
        assert one != other


@pytest.mark.parametrize(
    "change",
    [
        {"layer1_width": 129},
        {"layers": 3, "layer3_width": 32},
        {"activation": "silu"},
        {"norm": "batch"},
        {"use_dropout": False},
        {"dropout_rate": 0.3},
        {"batch_size": 100},
    ],
    ids=" ".join,
)
def test_every_difference_of_two_perceptrons_is_named(change: dict[str, Any]) -> None:
    assert described(MLPS, {**LAYERS, **change}) != described(MLPS, LAYERS)


def test_dropout_that_is_somewhere_else_is_named_too() -> None:
    blocks = tuple(ConvBlock(width=8, dropout=dropout) for dropout in (0.0, 0.3, 0.0))
    config = Config(architecture=ConvNet(blocks=blocks), optimizer=SGD(learning_rate=0.1), batch_size=10)
    assert "dropout 0.3 inside" in describe_config(config)
    head = ConvNet(blocks=blocks[:1], head=(LinearLayer(width=5, dropout=0.1),))
    assert "dropout 0.1 last" in describe_config(config.model_copy(update={"architecture": head}))


def test_a_residual_pair_is_named_after_its_width() -> None:
    network = ConvNet(blocks=(ConvBlock(width=8, pooling=Pooling(kind="max"), residual=True),))
    config = Config(architecture=network, optimizer=SGD(learning_rate=0.1), batch_size=10)
    assert describe_config(config).startswith("conv 8mr, 3x3 ")


def test_switches_are_named() -> None:
    network = ConvNet(blocks=(ConvBlock(width=4),), global_pooling="max")
    config = Config(architecture=network, optimizer=SGD(learning_rate=0.1), batch_size=10)
    network = network.model_copy(update={"identity_initialisation": True, "logit_scale": 1 / 9})
    switched = {"architecture": network, "augmentation": Augmentation(flip="alternating")}
    switched |= {"weight_averaging": 0.3, "progressive_size": 24}
    before, after = (describe_config(each) for each in (config, config.model_copy(update=switched)))
    network_before, recipe_before = before.split(" | ")
    assert after == (
        f"{network_before}, identity init, logits x 0.11 | {recipe_before}, averaging 0.3, alternating flip, "
        "from 24 pixels"
    )


def test_muon_is_named_with_what_trains_everything_else() -> None:
    muon = Muon(learning_rate=0.02, sgd_learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    network = ConvNet(blocks=(ConvBlock(width=8),))
    config = Config(architecture=network, optimizer=muon, batch_size=10)
    recipe = describe_config(config).split(" | ")[1]
    assert recipe == "muon 0.02 and nesterov 0.1 momentum 0.9, decay 0.01, constant, batch 10"


def test_the_stride_of_a_convolution_is_named() -> None:
    network = ConvNet(blocks=(ConvBlock(width=8, padding=1, stride=2),))
    config = Config(architecture=network, optimizer=SGD(learning_rate=0.1), batch_size=10)
    assert "3x3 same, stride 2, relu" in describe_config(config)


@pytest.mark.parametrize("definition", [CNN, MLPS], ids=lambda definition: definition.name)
def test_every_config_of_the_shipped_search_spaces_has_one_line(definition: Any) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    lines = {describe_config(definition.config(study.ask())) for _ in range(50)}
    assert len(lines) == 50
    assert not [line for line in lines if "\n" in line or line.count(" | ") != 1]


def test_the_published_models_are_told_apart() -> None:
    lines = [describe_config(preset.config) for preset in PRESETS.values()]
    assert len(set(lines)) == len({preset.config for preset in PRESETS.values()})


# ---- Changes ---------------------------------------------------------------------------------------------


def test_a_change_names_what_is_another() -> None:
    before = PRESETS["cnn-32-128-pool"].config
    after = before.model_copy(update={"batch_size": 64, "label_smoothing": 0.1})
    assert describe_change(before, after) == "batch 200 -> batch 64, smoothing 0.1"
    deeper = before.model_copy(update={"architecture": PRESETS["cnn-32-128-fc"].config.architecture})
    assert describe_change(before, deeper) == "conv 32m 128m -> conv 32 128, linear 128 64"
    assert describe_change(after, before.model_copy(update={"batch_size": 64})) == "smoothing 0.1 -> without"


def test_a_change_of_what_is_not_described_is_named_by_its_field() -> None:
    before = PRESETS["cnn-32-128-pool"].config
    order = before.architecture.model_copy(update={"order": "norm_activation_pool"})
    after = before.model_copy(update={"architecture": order})
    assert describe_change(before, after) == (
        "architecture.order pool_norm_activation -> architecture.order norm_activation_pool"
    )


def test_a_change_of_a_custom_network_names_its_arguments() -> None:
    configs = [
        Config(
            architecture=CustomNetwork(arguments={"width": width, "act": "a, b | c"}),
            optimizer=SGD(learning_rate=0.1),
            batch_size=10,
        )
        for width in (8, 9)
    ]
    assert describe_change(*configs) == "width=8 -> width=9"
