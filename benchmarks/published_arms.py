"""The configs that `published.py` measures: the rows with both recipes, and rows changed in one thing."""

from dataclasses import dataclass
from typing import Any

from mc1opt.config import Adam, Config, ConvNet
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.models.cost import cost
from mc1opt.presets import PRESETS, RECIPES

SEEDS_OF_ROWS = {4: 3, 5: 3, 8: 3, 9: 3, 10: 3, 11: 3}
"""The others have 5."""
SEEDS_OF_ARMS = 3
DEEP_ROWS = (8, 9, 10, 11)
BASE, DEEP = "cnn-32-128-pool", "cnn-deep"
"""The rows that arms change in one thing: row 6, which a CPU can train, and row 8, which it hardly can."""
UNPOOLED, SHORT = "cnn-32-128", f"{BASE}-short"
"""Row 5, which is row 6 without pooling, and row 6 with the epochs of row 5, a third of its own."""


@dataclass(frozen=True)
class Arm:
    """A config that is measured: a row with a recipe, or a row changed in one thing."""

    name: str
    recipe: str
    config: Config
    epochs: int
    seeds: int
    deep: bool
    """Whether it is for a GPU."""

    @property
    def price(self) -> int:
        """Multiply-accumulates of an image in all epochs: cheap arms are trained first."""
        return cost(self.config.architecture, CIFAR10_SHAPE).macs * self.epochs


def arms() -> list[Arm]:
    """All arms: the rows with both recipes, then those that test a claim."""
    found = [
        Arm(
            preset.name,
            recipe,
            preset.with_recipe(recipe),
            preset.epochs[recipe],
            SEEDS_OF_ROWS.get(preset.row, 5),
            deep=preset.row in DEEP_ROWS,
        )
        for preset in PRESETS.values()
        for recipe in RECIPES
    ]
    base, deep = PRESETS[BASE], PRESETS[DEEP]
    norm = PRESETS["cnn-deep-batchnorm"]
    changed = [
        (f"{BASE}-kernel-3", with_kernel(base.config, 3), base, False),
        (f"{BASE}-adam", with_adam(base.config), base, False),
        (f"{BASE}-batch-50", with_batch(base.config, 50), base, False),
        (f"{BASE}-batchnorm", with_norm(base.config), base, False),
        (f"{BASE}-batchnorm-batch-50", with_batch(with_norm(base.config), 50), base, False),
        (f"{DEEP}-batch-50", with_batch(deep.config, 50), deep, True),
        (f"{DEEP}-batchnorm-batch-50", with_batch(norm.config, 50), deep, True),
    ]
    for name, config, preset, is_deep in changed:
        found.append(Arm(name, "published", config, preset.epochs["published"], SEEDS_OF_ARMS, is_deep))
    epochs = PRESETS[UNPOOLED].epochs["published"]
    found.append(Arm(SHORT, "published", base.config, epochs, SEEDS_OF_ARMS, deep=False))
    return found


# ---- What an arm changes ---------------------------------------------------------------------------------


def with_batch(config: Config, batch_size: int) -> Config:
    """The same with another batch size."""
    return config.model_copy(update={"batch_size": batch_size})


def with_adam(config: Config) -> Config:
    """The same with Adam at row 11's learning rate, constant."""
    return config.model_copy(update={"optimizer": Adam(learning_rate=0.001)})


def with_kernel(config: Config, kernel_size: int) -> Config:
    """The same with another kernel size, which also changes the inputs of the classifier."""
    return _with_blocks(config, kernel_size=kernel_size)


def with_norm(config: Config) -> Config:
    """The same with batch norm after each convolution, before activation and pooling, as in row 10."""
    changed = _with_blocks(config, norm="batch")
    network = changed.architecture.model_copy(update={"order": "norm_activation_pool"})
    return changed.model_copy(update={"architecture": network})


def _with_blocks(config: Config, **changes: Any) -> Config:
    network = config.architecture
    assert isinstance(network, ConvNet)
    blocks = tuple(block.model_copy(update=changes) for block in network.blocks)
    return config.model_copy(update={"architecture": network.model_copy(update={"blocks": blocks})})
