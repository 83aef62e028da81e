"""Two configs as groups of differences: any of them can be applied to the first one.

A group is what people think of as one thing: depth, widths, pooling, how the optimizer steps. A config with
some groups applied depends on which they are, not on their order. Layers are matched by their position in the
network, so that widths or poolings of a network of another depth can be applied.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeVar

from mc1opt.config import (
    MLP,
    Architecture,
    Config,
    ConvBlock,
    ConvNet,
    CustomNetwork,
    LinearLayer,
    config_id,
)
from mc1opt.dataset import DataShape
from mc1opt.errors import NetworkError
from mc1opt.fields import Model
from mc1opt.models.cost import cost

DEPTH, WIDTHS, KERNELS, POOLING, DROPOUT = "depth", "widths", "kernels", "pooling", "dropout"
HEAD, NORM, STEM = "linear head", "norm and activation", "stem"
OPTIMIZER, RECIPE = "optimizer", "recipe"
ARGUMENT = "argument "
"""Before the name of an argument of a custom network."""
ARCHITECTURE = "architecture"
"""The whole of it, where the two are of different kinds."""

OF_A_BLOCK = {
    "width": WIDTHS,
    "kernel_size": KERNELS,
    "stride": KERNELS,
    "padding": KERNELS,
    "norm": NORM,
    "activation": NORM,
    "pooling": POOLING,
    "dropout": DROPOUT,
    "residual": DEPTH,
}
OF_THE_HEAD = {"width": HEAD, "norm": NORM, "activation": NORM, "dropout": DROPOUT}
OF_AN_MLP = {"width": WIDTHS, "norm": NORM, "activation": NORM, "dropout": DROPOUT}
"""The group of each field of a layer."""
OF_THE_OPTIMIZER = {"optimizer", "schedule", "batch_size"}
PLACED = {"pooling": None, "stride": 1, "residual": False}
"""Fields that few layers have, and their value in the others: they are moved, where others are repeated."""

Layer = TypeVar("Layer", ConvBlock, LinearLayer)


@dataclass(frozen=True)
class Differences:
    """What distinguishes two configs, both of which can be trained on images of this shape."""

    source: Config
    target: Config
    shape: DataShape

    @functools.cached_property
    def groups(self) -> tuple[str, ...]:
        """The groups that make a difference, those of the network first."""
        every = (*self._of_the_network, OPTIMIZER, RECIPE)
        kept = frozenset(every)
        ends = config_id(self.source), config_id(self.target)
        for group in every:
            alone, without = self.config({group}), self.config(kept - {group})
            if alone and without and (config_id(alone), config_id(without)) == ends:
                kept -= {group}
        return tuple(group for group in every if group in kept)

    @functools.cached_property
    def _of_the_network(self) -> tuple[str, ...]:
        return _network_groups(self.source.architecture, self.target.architecture)

    def config(self, applied: Set[str]) -> Config | None:
        """The source with some groups of the target; None where there is no such network or training."""

        def of(group: str) -> Config:
            return self.target if group in applied else self.source

        recipe, optimizer = of(RECIPE), of(OPTIMIZER)
        fields = {
            name: getattr(optimizer if name in OF_THE_OPTIMIZER else recipe, name)
            for name in Config.model_fields
        }
        try:
            fields["architecture"] = self._network(lambda group: of(group).architecture)
            config = Config(**fields)
            cost(config.architecture, self.shape)
        except (ValueError, NetworkError):
            return None
        return config

    def _network(self, of: Callable[[str], Any]) -> Architecture:
        """The architecture of which each group is that of `of(group)`.

        Raises:
            ValueError: there is no such network.
        """
        if self._of_the_network == (ARCHITECTURE,):
            whole: Architecture = of(ARCHITECTURE)
            return whole
        target = self.target.architecture
        if isinstance(target, ConvNet):
            return _convnet(of)
        if isinstance(target, MLP):
            return _mlp(of)
        given = {group: of(group).arguments for group in self._of_the_network}
        names = {group: group.removeprefix(ARGUMENT) for group in given}
        arguments = {names[group]: own[names[group]] for group, own in given.items() if names[group] in own}
        return target.model_copy(update={"arguments": arguments})

    @functools.cached_property
    def without(self) -> dict[str, Config]:
        """The target with one group as in the source, by the group, where there is such a network."""
        found = {group: self.config(set(self.groups) - {group}) for group in self.groups}
        return {group: config for group, config in found.items() if config is not None}

    def next_configs(self, applied: Set[str]) -> dict[frozenset[str], Config]:
        """The configs that one more group gives, by that group; none where nothing is left to apply.

        A group that changes nothing yet, or gives no network, waits for others. Where all wait, the smallest
        set of groups that can be applied together takes their place.
        """
        left = [group for group in self.groups if group not in applied]
        here = self.config(applied)
        known = None if here is None else config_id(here)
        for size in range(1, len(left) + 1):
            found = {}
            for groups in itertools.combinations(left, size):
                config = self.config({*applied, *groups})
                if config is not None and config_id(config) != known:
                    found[frozenset(groups)] = config
                    if size > 1:
                        return found
            if found:
                return found
        return {}


def _network_groups(first: Architecture, second: Architecture) -> tuple[str, ...]:
    """The groups of two architectures; one where there is no common measure."""
    if isinstance(first, ConvNet) and isinstance(second, ConvNet):
        return (DEPTH, WIDTHS, KERNELS, POOLING, DROPOUT, HEAD, NORM, STEM)
    if isinstance(first, MLP) and isinstance(second, MLP) and first.layers and second.layers:
        return (DEPTH, WIDTHS, DROPOUT, NORM)
    if not isinstance(first, CustomNetwork) or not isinstance(second, CustomNetwork):
        return (ARCHITECTURE,)
    if (first.function, first.code) != (second.function, second.code):
        return (ARCHITECTURE,)
    return tuple(f"{ARGUMENT}{name}" for name in {**first.arguments, **second.arguments})


def _convnet(of: Callable[[str], ConvNet]) -> ConvNet:
    """The network of which each group is that of `of(group)`."""

    def head(group: str) -> Sequence[Model]:
        last = of(group).blocks[-1]  # where there is no head, what is before it says how one would be
        return of(group).head or (LinearLayer(width=1, norm=last.norm, activation=last.activation),)

    return ConvNet(
        stem=of(STEM).stem,
        blocks=_layers(ConvBlock, OF_A_BLOCK, lambda group: of(group).blocks, len(of(DEPTH).blocks)),
        order=of(NORM).order,
        global_pooling=of(POOLING).global_pooling,
        head=_layers(LinearLayer, OF_THE_HEAD, head, len(of(HEAD).head)),
        identity_initialisation=of(RECIPE).identity_initialisation,
        logit_scale=of(RECIPE).logit_scale,
    )


def _mlp(of: Callable[[str], MLP]) -> MLP:
    """The same of multilayer perceptrons."""
    layers = _layers(LinearLayer, OF_AN_MLP, lambda group: of(group).layers, len(of(DEPTH).layers))
    return MLP(layers=layers, logit_scale=of(RECIPE).logit_scale)


def _layers(
    kind: type[Layer], groups: Mapping[str, str], layers_of: Callable[[str], Sequence[Model]], depth: int
) -> tuple[Layer, ...]:
    """So many layers whose fields come from the layers of their groups."""
    columns = {
        name: _fitted(name, [getattr(layer, name) for layer in layers_of(group)], depth)
        for name, group in groups.items()
    }
    return tuple(kind(**{name: column[i] for name, column in columns.items()}) for i in range(depth))


def _fitted(name: str, values: Sequence[Any], depth: int) -> list[Any]:
    """The values of a field in the layers of one network, for a network of another depth.

    Values are repeated or left out evenly; the last one stays the last. `PLACED` ones go to the layer where
    their part of the network ends, so that there are not more of them than before.
    """
    count = len(values)
    if name not in PLACED:
        return [values[math.ceil((i + 1) * count / depth) - 1] for i in range(depth)]
    fitted = [PLACED[name]] * depth
    for i, value in enumerate(values):
        if value != PLACED[name] and depth:
            fitted[math.ceil((i + 1) * depth / count) - 1] = value
    return fitted
