"""The config: JSON, identity, schema versions, and which architectures can exist."""

import copy
import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

import mc1opt.config as config_module
from mc1opt.config import (
    MLP,
    SGD,
    Adam,
    AdamW,
    Augmentation,
    Config,
    Constant,
    ConvBlock,
    ConvNet,
    Cosine,
    CustomNetwork,
    LinearLayer,
    Muon,
    OneCycle,
    PlainStem,
    Pooling,
    WhitenedStem,
    config_from_json,
    config_id,
    config_to_json,
    conv_shapes,
)
from mc1opt.errors import ConfigError, describe_validation_error
from mc1opt.fields import canonical_json

# Written by schema version 1. Never edit it: studies hold such configs under such ids.
FIXTURE_V1 = json.loads((Path(__file__).parent / "fixtures" / "config_v1.json").read_text())

SMALL = Config(
    architecture=MLP(layers=(LinearLayer(width=128),)), optimizer=SGD(learning_rate=0.1), batch_size=200
)
CONVNET = Config(
    architecture=ConvNet(
        stem=WhitenedStem(),
        blocks=(
            ConvBlock(width=32, padding=1, norm="batch", pooling=Pooling(kind="max")),
            ConvBlock(width=64, kernel_size=5, stride=2, dropout=0.1),
        ),
        global_pooling="average",
        head=(LinearLayer(width=64, norm="batch", activation="gelu", dropout=0.2),),
    ),
    optimizer=SGD(learning_rate=0.05, momentum=0.9, nesterov=True, weight_decay=0.0005),
    schedule=OneCycle(),
    batch_size=64,
    label_smoothing=0.1,
    augmentation=Augmentation(flip=True, crop=4, cutout=8),
)
ADAM = Config(
    architecture=MLP(layers=()), optimizer=Adam(learning_rate=0.001), schedule=Cosine(), batch_size=128
)
ADAMW = Config(
    architecture=ConvNet(blocks=(ConvBlock(width=8),)), optimizer=AdamW(learning_rate=0.002), batch_size=100
)
MUON = SMALL.model_copy(update={"optimizer": Muon(learning_rate=0.02, sgd_learning_rate=0.1)})
CUSTOM = SMALL.model_copy(
    update={"architecture": CustomNetwork(arguments={"width": 8}, code="0" * 16, path="/there/net.py")}
)
CONFIGS = {"small": SMALL, "convnet": CONVNET, "adam": ADAM, "adamw": ADAMW, "muon": MUON, "custom": CUSTOM}
ALL = pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))


# ---- JSON ------------------------------------------------------------------------------------------------


@ALL
def test_a_config_survives_its_json(config):
    text = json.dumps(config_to_json(config), allow_nan=False)
    assert config_from_json(json.loads(text)) == config


@ALL
def test_json_carries_the_schema_version(config):
    assert config_to_json(config)["schema_version"] == config_module.SCHEMA_VERSION


def test_reading_leaves_the_stored_json_as_it_is():
    stored = config_to_json(CONVNET)
    before = copy.deepcopy(stored)
    config_from_json(stored)
    assert stored == before


# ---- Identity --------------------------------------------------------------------------------------------


def test_ids_are_the_ones_that_version_1_gave():
    assert config_id(SMALL) == "c91a95b7cdbb"
    assert config_id(CONVNET) == "3da0f9ed7521"
    assert config_id(ADAMW) == "27382a68f5b0"


@pytest.mark.parametrize("entry", FIXTURE_V1, ids=[entry["name"] for entry in FIXTURE_V1])
def test_configs_stored_by_version_1_are_read_to_the_same_id(entry):
    assert config_id(config_from_json(entry["config"])) == entry["id"]


def test_the_fixture_has_every_part_of_a_config():
    text = json.dumps(FIXTURE_V1)
    for kind in [
        "mlp",
        "convnet",
        "plain",
        "whitened",
        "max",
        "average",
        "sgd",
        "adam",
        "adamw",
        "constant",
        "cosine",
        "one_cycle",
    ]:
        assert f'"kind": "{kind}"' in text


PLACES = {("CustomNetwork", "path")}
"""Fields that are no part of the identity."""

# For every field of every part: a config, the way to the field, another value. (A kind is changed by
# exchanging the whole part, or alone where the other kind has the same fields.)
CHANGES: list[tuple[Config, tuple[str | int, ...], Any]] = [
    (SMALL, ("architecture",), ADAM.architecture),
    (SMALL, ("architecture", "layers", 0, "width"), 127),
    (SMALL, ("architecture", "layers", 0, "norm"), "batch"),
    (SMALL, ("architecture", "layers", 0, "activation"), "silu"),
    (SMALL, ("architecture", "layers", 0, "dropout"), 0.01),
    (SMALL, ("architecture", "layers"), ()),
    (CONVNET, ("architecture", "stem"), PlainStem()),
    (CONVNET, ("architecture", "stem", "kernel_size"), 3),
    (CONVNET, ("architecture", "stem", "activation"), "relu"),
    (CONVNET, ("architecture", "blocks"), CONVNET.architecture.blocks[:1]),
    (CONVNET, ("architecture", "blocks", 0, "width"), 33),
    (CONVNET, ("architecture", "blocks", 0, "kernel_size"), 5),
    (CONVNET, ("architecture", "blocks", 0, "stride"), 2),
    (CONVNET, ("architecture", "blocks", 0, "padding"), 0),
    (CONVNET, ("architecture", "blocks", 0, "norm"), "none"),
    (CONVNET, ("architecture", "blocks", 0, "activation"), "gelu"),
    (CONVNET, ("architecture", "blocks", 0, "pooling"), None),
    (CONVNET, ("architecture", "blocks", 0, "dropout"), 0.3),
    (CONVNET, ("architecture", "blocks", 0, "residual"), True),
    (CONVNET, ("architecture", "blocks", 0, "pooling", "kind"), "average"),
    (CONVNET, ("architecture", "blocks", 0, "pooling", "size"), 3),
    (CONVNET, ("architecture", "blocks", 0, "pooling", "stride"), 1),
    (CONVNET, ("architecture", "order"), "norm_activation_pool"),
    (CONVNET, ("architecture", "global_pooling"), "max"),
    (CONVNET, ("architecture", "head"), ()),
    (CONVNET, ("architecture", "logit_scale"), 0.5),
    (SMALL, ("architecture", "logit_scale"), 0.5),
    (CONVNET, ("architecture", "identity_initialisation"), True),
    (SMALL, ("architecture",), CUSTOM.architecture),
    (CUSTOM, ("architecture", "function"), "other"),
    (CUSTOM, ("architecture", "arguments"), {"width": 9}),
    (CUSTOM, ("architecture", "code"), "1" * 16),
    (SMALL, ("optimizer",), ADAM.optimizer),
    (CONVNET, ("optimizer", "learning_rate"), 0.051),
    (CONVNET, ("optimizer", "momentum"), 0.95),
    (CONVNET, ("optimizer", "nesterov"), False),
    (CONVNET, ("optimizer", "weight_decay"), 0.0),
    (ADAM, ("optimizer", "kind"), "adamw"),
    (ADAM, ("optimizer", "learning_rate"), 0.002),
    (ADAM, ("optimizer", "beta1"), 0.8),
    (ADAM, ("optimizer", "beta2"), 0.99),
    (ADAM, ("optimizer", "weight_decay"), 0.01),
    (ADAMW, ("optimizer", "kind"), "adam"),
    (ADAMW, ("optimizer", "learning_rate"), 0.001),
    (ADAMW, ("optimizer", "beta1"), 0.8),
    (ADAMW, ("optimizer", "beta2"), 0.99),
    (ADAMW, ("optimizer", "weight_decay"), 0.02),
    (SMALL, ("optimizer",), MUON.optimizer),
    (MUON, ("optimizer", "learning_rate"), 0.03),
    (MUON, ("optimizer", "sgd_learning_rate"), 0.2),
    (MUON, ("optimizer", "momentum"), 0.9),
    (MUON, ("optimizer", "weight_decay"), 0.01),
    (SMALL, ("schedule",), Cosine()),
    (SMALL, ("schedule", "kind"), "cosine"),
    (ADAM, ("schedule", "kind"), "constant"),
    (CONVNET, ("schedule", "warmup"), 0.3),
    (CONVNET, ("schedule", "start"), 0.1),
    (CONVNET, ("schedule", "end"), 0.0),
    (CONVNET, ("batch_size",), 65),
    (CONVNET, ("label_smoothing",), 0.0),
    (SMALL, ("weight_averaging",), 0.5),
    (CONVNET, ("progressive_size",), 24),
    (SMALL, ("augmentation",), Augmentation(flip=True)),
    (CONVNET, ("augmentation", "flip"), False),
    (CONVNET, ("augmentation", "flip"), "alternating"),
    (CONVNET, ("augmentation", "crop"), 2),
    (CONVNET, ("augmentation", "cutout"), 0),
    (SMALL, ("initialisation",), "torch"),
    (SMALL, ("normalisation",), "symmetric"),
]


def at(config: Config, path: tuple[str | int, ...]) -> Any:
    value: Any = config
    for step in path:
        value = value[step] if isinstance(step, int) else getattr(value, step)
    return value


def changed(config: Config, path: tuple[str | int, ...], value: Any) -> Config:
    fields = config.model_dump()
    place = fields
    for step in path[:-1]:
        # model_dump keeps tuples; they are made lists on the way, to be written into.
        if isinstance(place[step], tuple):
            place[step] = list(place[step])
        place = place[step]
    place[path[-1]] = value
    return Config.model_validate(fields)


@pytest.mark.parametrize(
    ("config", "path", "value"), CHANGES, ids=[".".join(map(str, path)) for _, path, _ in CHANGES]
)
def test_changing_any_field_changes_the_id(config, path, value):
    other = changed(config, path, value)
    assert at(other, path) != at(config, path)
    assert config_id(other) != config_id(config)


def models_below(annotation: Any) -> set[type[BaseModel]]:
    """The pydantic models that an annotation mentions, and those that their fields mention."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        below = (models_below(field.annotation) for field in annotation.model_fields.values())
        return {annotation}.union(*below)
    return set().union(*(models_below(argument) for argument in get_args(annotation)))


def test_the_list_of_changes_has_every_field_of_every_part():
    fields = {(model.__name__, field) for model in models_below(Config) for field in model.model_fields}
    covered = {(type(at(config, path[:-1])).__name__, path[-1]) for config, path, _ in CHANGES}
    assert {name for name in fields if name[1] != "kind"} - PLACES <= covered <= fields


def test_equal_configs_have_one_id_however_they_were_written():
    assert config_id(SMALL) == config_id(
        Config(
            augmentation=Augmentation(cutout=0, crop=0, flip=False),
            label_smoothing=-0.0,
            batch_size=200,
            schedule=Constant(),
            optimizer=SGD(learning_rate=1e-1, momentum=0),
            architecture=MLP(layers=[LinearLayer(width=128)]),
        )
    )


def test_where_the_file_of_a_custom_network_lies_is_no_part_of_the_id():
    elsewhere = changed(CUSTOM, ("architecture", "path"), "/elsewhere/net.py")
    assert elsewhere.architecture.path == "/elsewhere/net.py"
    assert config_id(elsewhere) == config_id(CUSTOM)
    assert config_from_json(json.loads(json.dumps(config_to_json(elsewhere)))) == elsewhere


@pytest.mark.parametrize(
    "fields",
    [
        {"arguments": {"rate": math.nan}},
        {"arguments": {"width": {1, 2}}},
        {"arguments": {1: 2}},
        {"function": "not a name"},
        {"function": ""},
    ],
    ids=repr,
)
def test_arguments_of_a_custom_network_are_json_and_its_function_is_a_name(fields):
    with pytest.raises(ValidationError):
        CustomNetwork(**fields)


def test_canonical_json_is_sorted_and_has_no_blanks():
    text = canonical_json(CONVNET)
    assert " " not in text
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


LATER = {
    ConvBlock(width=4): {"residual": True},
    ADAMW.architecture: {"identity_initialisation": True, "logit_scale": 0.5},
    CONVNET: {"weight_averaging": 0.5, "progressive_size": 24},
}


@pytest.mark.parametrize(("part", "fields"), LATER.items(), ids=[type(part).__name__ for part in LATER])
def test_a_later_field_is_left_out_of_the_json_at_its_default(part: BaseModel, fields: dict) -> None:
    assert part.model_dump(mode="json").keys() == type(part).model_fields.keys() - fields.keys()
    later = part.model_copy(update=fields)
    assert type(part).model_validate_json(later.model_dump_json()) == later


# ---- Schema versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 2, 99, -1, "1", 1.0, True, None])
def test_an_unknown_schema_version_is_refused_with_what_can_be_read(version):
    stored = {**config_to_json(SMALL), "schema_version": version}
    with pytest.raises(ConfigError, match=f"version {version!r}.*1 to 1"):
        config_from_json(stored)


def test_a_stored_config_without_a_version_is_refused():
    with pytest.raises(ConfigError, match="version None"):
        config_from_json(SMALL.model_dump(mode="json"))


def test_migrations_are_applied_in_order_from_the_stored_version_on(monkeypatch):
    def first(fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "batch_size": fields["batch_size"] + 1}

    def second(fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "batch_size": fields["batch_size"] * 2}

    monkeypatch.setattr(config_module, "MIGRATIONS", (first, second))
    monkeypatch.setattr(config_module, "SCHEMA_VERSION", 3)
    stored = config_to_json(SMALL)
    sizes = [config_from_json({**stored, "schema_version": version}).batch_size for version in (1, 2, 3)]
    assert sizes == [(200 + 1) * 2, 200 * 2, 200]


def test_there_is_a_migration_from_every_older_version():
    assert len(config_module.MIGRATIONS) == config_module.SCHEMA_VERSION - 1


# ---- What is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [("extra",), ("architecture", "extra"), ("architecture", "blocks", 0, "extra"), ("optimizer", "extra")],
)
def test_unknown_fields_are_refused(path):
    with pytest.raises(ValidationError, match="extra"):
        changed(CONVNET, path, 1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("path", [("optimizer", "learning_rate"), ("label_smoothing",)])
def test_values_that_are_not_finite_are_refused(path, value):
    with pytest.raises(ValidationError):
        changed(CONVNET, path, value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("batch_size",), 0),
        (("label_smoothing",), 1.0),
        (("optimizer", "learning_rate"), 0.0),
        (("optimizer", "momentum"), 1.0),
        (("schedule", "warmup"), 0.0),
        (("architecture", "blocks"), ()),
        (("architecture", "blocks", 0, "width"), 0),
        (("architecture", "blocks", 0, "dropout"), 1.0),
        (("architecture", "stem", "kernel_size"), 5),
        (("architecture", "order"), "pool"),
        (("augmentation", "crop"), -1),
    ],
)
def test_values_out_of_range_are_refused_by_the_fields_name(path, value):
    with pytest.raises(ValidationError) as error:
        changed(CONVNET, path, value)
    assert str(path[-1]) in describe_validation_error(error.value)


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ValidationError, match=r"nesterov.*momentum"):
        SGD(learning_rate=0.1, nesterov=True)


def test_muon_needs_a_hidden_layer():
    with pytest.raises(ValidationError, match="muon trains hidden layers"):
        changed(MUON, ("architecture", "layers"), ())
    assert changed(MUON, ("architecture",), ADAMW.architecture)


def test_batch_norm_needs_two_images_a_batch():
    normed = MLP(layers=(LinearLayer(width=8, norm="batch"),))
    with pytest.raises(ValidationError, match=r"batch norm.*batch_size"):
        Config(architecture=normed, optimizer=SGD(learning_rate=0.1), batch_size=1)
    assert Config(architecture=normed, optimizer=SGD(learning_rate=0.1), batch_size=2)
    assert Config(
        architecture=MLP(layers=(LinearLayer(width=8),)), optimizer=SGD(learning_rate=0.1), batch_size=1
    )
    pixels = ConvNet(blocks=(ConvBlock(width=8, kernel_size=3, norm="batch"),))
    assert Config(architecture=pixels, optimizer=SGD(learning_rate=0.1), batch_size=1)


@pytest.mark.parametrize("config", [SMALL, ADAMW], ids=["mlp", "flattened"])
def test_smaller_images_need_global_pooling(config):
    with pytest.raises(ValidationError, match=r"progressive_size.*16.*global_pooling"):
        changed(config, ("progressive_size",), 16)


def test_smaller_images_must_be_large_enough_for_all_blocks():
    blocks = (ConvBlock(width=4, kernel_size=11),) * 2
    config = changed(CONVNET, ("architecture", "blocks"), blocks)
    assert changed(config, ("progressive_size",), 24)
    with pytest.raises(ValidationError, match=r"block 2.* 11 "):
        changed(config, ("progressive_size",), 20)


@ALL
def test_a_config_cannot_be_changed(config):
    with pytest.raises(ValidationError, match="frozen"):
        config.batch_size = 1


def test_a_stored_config_that_is_none_is_refused_with_the_field_and_the_value():
    stored = {**config_to_json(SMALL), "batch_size": -3}
    with pytest.raises(ConfigError, match=r"batch_size: .*1 .*-3"):
        config_from_json(stored)


def test_all_findings_are_named():
    stored = {**config_to_json(SMALL), "batch_size": -3, "label_smoothing": 2.0}
    with pytest.raises(ConfigError, match=r"batch_size: .*; label_smoothing: "):
        config_from_json(stored)


# ---- Architectures that can exist ------------------------------------------------------------------------

SHRINKING = ConvBlock(width=4, kernel_size=11)


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ((SHRINKING, SHRINKING), r"block 4: kernel size 11 .*2x2 .*padding 0"),
        (
            (SHRINKING.model_copy(update={"pooling": Pooling(kind="max", size=3)}),),
            r"block 3: pooling .*3 .*2x2",
        ),
    ],
)
def test_a_kernel_or_a_pooling_larger_than_what_is_left_is_refused_naming_the_block(last, message):
    network = ConvNet(blocks=(SHRINKING, SHRINKING, *last))
    with pytest.raises(ValueError, match=message):
        conv_shapes(network, 32)
    assert conv_shapes(network, 64)  # whether a network fits depends on the images


POOLED = ConvBlock(width=8, kernel_size=5, stride=2, padding=1, pooling=Pooling(kind="max", size=3, stride=2))


@pytest.mark.parametrize(
    ("network", "convolution", "pooled"),
    [
        (
            ConvNet(blocks=(*[SHRINKING] * 3, ConvBlock(width=4, kernel_size=11, padding=5))),
            (4, 2, 2),
            (4, 2, 2),
        ),
        (ConvNet(blocks=(*[SHRINKING] * 3, ConvBlock(width=4, kernel_size=2))), (4, 1, 1), (4, 1, 1)),
        (ConvNet(stem=WhitenedStem(kernel_size=4), blocks=(ConvBlock(width=4),)), (4, 27, 27), (4, 27, 27)),
        (ConvNet(blocks=(POOLED,)), (8, 15, 15), (8, 7, 7)),
    ],
    ids=["padding makes room", "a kernel as large as the image", "a whitened stem takes pixels", "pooled"],
)
def test_the_shapes_of_the_last_block(network, convolution, pooled):
    assert conv_shapes(network, 32)[-1] == (convolution, pooled)


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4])
def test_a_whitened_stem_has_both_signs_of_all_patch_directions(kernel_size):
    assert WhitenedStem(kernel_size=kernel_size).width(3) == 2 * 3 * kernel_size**2
