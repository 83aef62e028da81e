"""Groups of differences between two configs: which there are, and what applying some of them gives."""

import itertools
from collections.abc import Set

import pytest

from mc1opt.config import (
    MLP,
    SGD,
    Adam,
    Augmentation,
    Config,
    ConvBlock,
    ConvNet,
    CustomNetwork,
    LinearLayer,
    Pooling,
    WhitenedStem,
    config_id,
)
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.explanation import groups as groups_module
from mc1opt.explanation.groups import Differences
from mc1opt.presets import PRESETS, RECIPES

EVERY_PRESET = [preset.with_recipe(recipe) for preset in PRESETS.values() for recipe in RECIPES]
MAX = Pooling(kind="max")


def config_of(architecture: MLP | ConvNet | CustomNetwork, **changes: object) -> Config:
    fields = {"optimizer": SGD(learning_rate=0.1), "batch_size": 64}
    return Config(architecture=architecture, **(fields | changes))


def convnet(*widths: int, poolings: str = "", head: tuple[LinearLayer, ...] = (), **fields: object) -> Config:
    """Convolutions 3x3 with padding; m and a in `poolings` are poolings."""
    kinds = {"m": MAX, "a": Pooling(kind="average")}
    blocks = [
        ConvBlock(width=width, padding=1, pooling=kinds.get(mark), **fields)
        for width, mark in itertools.zip_longest(widths, poolings.ljust(len(widths)))
    ]
    return config_of(ConvNet(blocks=tuple(blocks), head=head))


def differences(source: Config, target: Config) -> Differences:
    return Differences(source, target, CIFAR10_SHAPE)


def network(config: Config | None) -> ConvNet:
    assert config is not None
    assert isinstance(config.architecture, ConvNet)
    return config.architecture


# ---- Any of the presets to any other ---------------------------------------------------------------------


@pytest.mark.parametrize("source", EVERY_PRESET[::3], ids=config_id)
def test_groups_applied_one_by_one_lead_from_any_preset_to_any_other(source: Config) -> None:
    for target in EVERY_PRESET:
        between = differences(source, target)
        assert between.config(set()) == source
        assert between.config(set(between.groups)) == target
        for first in (0, -1):  # the first that can be applied, or the last
            applied: set[str] = set()
            config = source
            while configs := between.next_configs(applied):
                taken = list(configs)[first]
                assert not taken & applied
                assert configs[taken] != config
                config = Config.model_validate(configs[taken].model_dump())
                applied |= taken
            assert config == target


def test_what_groups_give_does_not_depend_on_their_order() -> None:
    between = differences(PRESETS["cnn-32-128-pool-dropout"].config, PRESETS["cnn-deep-batchnorm"].config)
    for pair in itertools.combinations(between.groups, 2):
        assert between.config(frozenset(pair)) == between.config(frozenset(reversed(pair)))


# ---- Which groups ----------------------------------------------------------------------------------------


def test_groups_that_differ_in_nothing_are_left_out() -> None:
    source = convnet(32, 64)
    assert differences(source, source).groups == ()
    assert differences(source, convnet(32, 96)).groups == ("widths",)
    smoothed = source.model_copy(update={"label_smoothing": 0.1, "batch_size": 32})
    assert differences(source, smoothed).groups == ("optimizer", "recipe")


def test_each_group_has_its_own_changes() -> None:
    source = convnet(32, 64)
    target = Config(
        architecture=ConvNet(
            stem=WhitenedStem(),
            blocks=tuple(
                ConvBlock(
                    width=width,
                    kernel_size=5,
                    norm="batch",
                    activation="gelu",
                    pooling=pooling,
                    dropout=0.1,
                    residual=residual,
                )
                for width, pooling, residual in ((48, None, True), (96, MAX, False), (128, MAX, False))
            ),
            global_pooling="max",
            head=(LinearLayer(width=100, norm="batch", activation="gelu", dropout=0.3),),
        ),
        optimizer=Adam(learning_rate=0.001),
        batch_size=128,
        augmentation=Augmentation(flip=True),
    )
    between = differences(source, target)
    changed = {}
    for group in between.groups:
        before, after = network(source), network(between.config({group}))
        names = type(before.blocks[0]).model_fields
        first, last = before.blocks[-1], after.blocks[-1]
        changed[group] = {name for name in names if getattr(first, name) != getattr(last, name)}
    assert changed == {
        "depth": set(),
        "widths": {"width"},
        "kernels": {"kernel_size", "padding"},
        "pooling": {"pooling"},
        "dropout": {"dropout"},
        "linear head": set(),
        "norm and activation": {"norm", "activation"},
        "stem": set(),
        "optimizer": set(),
        "recipe": set(),
    }
    assert [block.residual for block in network(between.config({"depth"})).blocks] == [True, False, False]
    assert network(between.config({"pooling"})).global_pooling == "max"
    assert network(between.config({"stem"})).stem == WhitenedStem()


def test_architectures_of_different_kinds_are_one_group() -> None:
    mlp = config_of(MLP(layers=(LinearLayer(width=64),)), label_smoothing=0.1)
    between = differences(mlp, convnet(32))
    assert between.groups == ("architecture", "recipe")
    assert between.config({"architecture"}) == convnet(32).model_copy(update={"label_smoothing": 0.1})
    without_layers = config_of(MLP(layers=()))
    assert differences(without_layers, mlp).groups == ("architecture", "recipe")


def test_each_argument_of_a_custom_network_is_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups_module, "cost", lambda *_: None)  # there is no study file
    source = config_of(CustomNetwork(arguments={"width": 8, "depth": 1, "same": 3}))
    target = config_of(CustomNetwork(arguments={"width": 9, "same": 3, "new": True}))
    between = differences(source, target)
    assert between.groups == ("argument width", "argument depth", "argument new")
    wider = between.config({"argument width"})
    assert wider is not None
    assert wider.architecture == CustomNetwork(arguments={"width": 9, "depth": 1, "same": 3})
    assert between.config(set(between.groups)) == target
    other = config_of(CustomNetwork(function="other", arguments={"width": 9}))
    assert differences(source, other).groups == ("architecture",)


# ---- Networks of different depth -------------------------------------------------------------------------


def test_layers_of_another_depth_are_repeated_or_left_out_evenly_and_the_last_one_stays() -> None:
    shallow, deep = convnet(32, 128), convnet(16, 32, 64, 256)
    widths = [block.width for block in network(differences(shallow, deep).config({"depth"})).blocks]
    assert widths == [32, 32, 128, 128]
    assert [block.width for block in network(differences(deep, shallow).config({"depth"})).blocks] == [
        32,
        256,
    ]


def test_a_deeper_network_has_as_many_poolings_as_before() -> None:
    between = differences(convnet(32, 128, poolings="ma"), convnet(8, 8, 8, 8, 8))
    poolings = [block.pooling for block in network(between.config({"depth"})).blocks]
    assert poolings == [None, None, MAX, None, Pooling(kind="average")]


def test_a_new_head_is_as_the_network_before_it() -> None:
    source = convnet(32, norm="batch", activation="gelu")
    between = differences(source, convnet(32, head=(LinearLayer(width=100, dropout=0.4),)))
    assert network(between.config({"linear head"})).head == (
        LinearLayer(width=100, norm="batch", activation="gelu"),
    )


# ---- What waits ------------------------------------------------------------------------------------------


def test_a_group_that_gives_no_network_waits_for_others() -> None:
    source = convnet(32)
    target = config_of(ConvNet(blocks=source.architecture.blocks, global_pooling="max"), progressive_size=40)
    between = differences(source, target)
    assert between.groups == ("pooling", "recipe")
    assert between.config({"recipe"}) is None
    assert between.without.keys() == {"recipe"}
    assert [set(groups) for groups in between.next_configs(set())] == [{"pooling"}]
    assert list(between.next_configs({"pooling"}).values()) == [target]


class _NeverAlone(Differences):
    """No group can be applied alone, nor the depth with one other."""

    def config(self, applied: Set[str]) -> Config | None:
        unfit = len(applied) == 1 or (len(applied) == 2 and "depth" in applied)
        return None if unfit else super().config(applied)


def test_groups_that_all_wait_are_applied_together() -> None:
    target = convnet(16, 64, 64, poolings="m", norm="batch")
    between = _NeverAlone(convnet(32, 64), target, CIFAR10_SHAPE)
    assert list(between.next_configs(set())) == [frozenset({"widths", "kernels"})]
    left = {"widths", "norm and activation"}
    assert list(between.next_configs(set(between.groups) - left)) == [{group} for group in sorted(left)[::-1]]


def test_a_group_that_changes_nothing_yet_waits() -> None:
    """The dropout of a head that is not there."""
    source = convnet(32)
    target = convnet(32, head=(LinearLayer(width=100, dropout=0.4),))
    between = differences(source, target)
    assert between.groups == ("dropout", "linear head")
    assert [set(groups) for groups in between.next_configs(set())] == [{"linear head"}]
    assert list(between.next_configs({"linear head"}).values()) == [target]
