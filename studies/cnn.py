"""Convolutional networks: depth, widths, kernel, pooling, stem, head, and how they are trained.

Copy this file to `./studies/`, edit it, and run it with `mc1opt run --study NAME`. The published models 3
to 7 lie in this search space.
"""

import math

from optuna.trial import BaseTrial

from mc1opt.config import (
    Config,
    ConvBlock,
    ConvNet,
    LinearLayer,
    PlainStem,
    Pooling,
    WhitenedStem,
)
from mc1opt.dataset import CIFAR10_SHAPE, DataSet
from mc1opt.suggest import suggest_augmentation, suggest_optimizer, suggest_schedule, suggest_switches

NARROWEST = 4
"""Channels of the narrowest convolution."""
CHANNEL_BLOCK = 16
"""Channels that the fast convolutions of CPUs and GPUs compute at once."""
BLOCK_MACS = 20_000_000
"""Multiply-accumulates that one convolution may cost for an image of CIFAR-10's size: see `width_bound`."""


def search_space(trial: BaseTrial, data: DataSet) -> Config:
    """Two to six convolutions, each of its own width and pooling, and what comes before and after them."""
    stem = trial.suggest_categorical("stem", ["plain", "whitened"])
    activation = trial.suggest_categorical("activation", ["relu", "gelu"])
    norm = trial.suggest_categorical("norm", ["none", "batch"])
    # Off, after the first convolution, after each of them, or before the classifier.
    dropout_at = trial.suggest_categorical("dropout_at", ["off", "first", "convolutions", "last"])
    dropout = 0.0 if dropout_at == "off" else trial.suggest_float("dropout_rate", 0.05, 0.5)
    linear_layers = trial.suggest_int("linear_layers", 0, 2)

    size = data.size if stem == "plain" else data.size - 1
    blocks = suggest_blocks(trial, size, norm, activation, budget=block_macs(data.size))
    for i, block in enumerate(blocks):
        last = dropout_at == "last" and i == len(blocks) - 1 and linear_layers == 0
        if dropout_at == "convolutions" or (dropout_at == "first" and i == 0) or last:
            blocks[i] = block.model_copy(update={"dropout": dropout})
    head = [
        LinearLayer(
            width=trial.suggest_int(f"linear{i}_width", 32, 1024, log=True),
            norm=norm,
            activation=activation,
            dropout=dropout if dropout_at == "last" and i == linear_layers else 0.0,
        )
        for i in range(1, linear_layers + 1)
    ]
    global_pooling = trial.suggest_categorical("global_pooling", ["none", "max", "average"])
    config = Config(
        architecture=ConvNet(
            stem=PlainStem() if stem == "plain" else WhitenedStem(activation=activation),
            blocks=tuple(blocks),
            global_pooling=global_pooling,
            head=tuple(head),
        ),
        optimizer=suggest_optimizer(trial, muon=True),
        schedule=suggest_schedule(trial),
        batch_size=trial.suggest_int("batch_size", 20, 512, log=True),
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.2),
        augmentation=suggest_augmentation(trial, data.size),
        # Without a norm, He's larger weights cost accuracy; with one, it hardly matters.
        initialisation="torch" if norm == "none" else "he",
        normalisation="symmetric" if norm == "none" else "channels",
    )
    return suggest_switches(trial, config, data.size)


def suggest_blocks(
    trial: BaseTrial, size: int, norm: str, activation: str, budget: int = BLOCK_MACS
) -> list[ConvBlock]:
    """Convolutions for an image of `size` pixels; a pooling is suggested only where the rest still fits.

    `budget` is what a convolution may cost: see `width_bound`.
    """
    count = trial.suggest_int("conv_layers", 2, 6)
    kernel_size = trial.suggest_categorical("kernel_size", [3, 5])
    padding = kernel_size // 2
    # In small images, many convolutions without padding would leave nothing.
    if size > count * (kernel_size - 1) and trial.suggest_categorical("padding", ["none", "same"]) == "none":
        padding = 0
    shrinks = kernel_size - 1 - 2 * padding  # pixels a convolution takes away
    blocks = []
    for i in range(1, count + 1):
        size -= shrinks
        # A share of the widest that is affordable here, so that what is learnt of a layer's width holds in
        # networks of every depth and resolution: to Optuna, another range is another parameter.
        share = trial.suggest_float(f"conv{i}_width_share", 0.0, 1.0)
        width = width_of(share, width_bound(size, kernel_size, count, budget))
        pooling = None
        if size // 2 >= 2 and size // 2 > (count - i) * shrinks:
            kind = trial.suggest_categorical(f"conv{i}_pooling", ["none", "max", "average"])
            pooling = None if kind == "none" else Pooling(kind=kind)
        if pooling is not None:
            size //= 2
        blocks.append(
            ConvBlock(
                width=width,
                kernel_size=kernel_size,
                padding=padding,
                norm=norm,
                activation=activation,
                pooling=pooling,
            )
        )
    return blocks


def width_of(share: float, bound: int) -> int:
    """The width of a share, on a logarithmic scale: 0 is 4 channels, 1 the bound.

    Above 12 it is a multiple of CHANNEL_BLOCK: a convolution of 25 channels takes as long as one of 32.
    """
    width = NARROWEST * (bound / NARROWEST) ** share
    return round(width) if width <= 12 else CHANNEL_BLOCK * max(round(width / CHANNEL_BLOCK), 1)


def share_of(width: int, bound: int) -> float:
    """The share of a width: `width_of` gives it back."""
    return math.log(width / NARROWEST) / math.log(bound / NARROWEST)


def block_macs(size: int) -> int:
    """What a convolution may cost in an image of `size` x `size` pixels: in larger ones, each costs more."""
    return round(BLOCK_MACS * max(1.0, size / CIFAR10_SHAPE.size) ** 2)


def width_bound(size: int, kernel_size: int, count: int, budget: int = BLOCK_MACS) -> int:
    """The greatest width of a convolution that puts out `size` x `size` pixels, a power of two.

    Two convolutions of this width in a row cost about `budget`, so that most random networks can be
    trained on a CPU. Networks of two layers are let off: some of the published ones are wider than that.
    """
    if count == 2:
        return 128 if size > 16 else 256
    bound = 16
    while bound < 256 and (2 * bound * kernel_size * size) ** 2 <= budget:
        bound *= 2
    return bound


# None of the further methods of `suggest_switches`.
PLAIN = {"logit_scale": 1.0, "identity_initialisation": False, "weight_averaging": 0.0}

# The recipe of the published models: plain SGD at a constant learning rate, nothing else.
PUBLISHED = {
    **PLAIN,
    "stem": "plain",
    "activation": "relu",
    "norm": "none",
    "dropout_at": "off",
    "linear_layers": 0,
    "conv_layers": 2,
    "kernel_size": 5,
    "padding": "none",
    "conv1_width_share": share_of(32, 128),
    "conv2_width_share": share_of(128, 128),
    "conv1_pooling": "none",
    "conv2_pooling": "none",
    "global_pooling": "none",
    "optimizer": "sgd",
    "sgd_momentum_kind": "none",
    "sgd_learning_rate": 0.1,
    "use_weight_decay": False,
    "schedule": "constant",
    "batch_size": 200,
    "label_smoothing": 0.0,
    "flip": False,
    "crop": 0,
    "cutout": 0,
}
HEAD = {"linear_layers": 2, "linear1_width": 128, "linear2_width": 64}
POOLED = {"conv1_pooling": "max", "conv2_pooling": "max", "conv2_width_share": share_of(128, 256)}

PRESETS = {
    "cnn-6-16-fc": {
        **PUBLISHED,
        **HEAD,
        "conv1_width_share": share_of(6, 128),
        "conv2_width_share": share_of(16, 128),
    },
    "cnn-32-128-fc": {**PUBLISHED, **HEAD},
    "cnn-32-128": PUBLISHED,
    "cnn-32-128-pool": {**PUBLISHED, **POOLED},
    "cnn-32-128-pool-dropout": {**PUBLISHED, **POOLED, "dropout_at": "first", "dropout_rate": 0.2},
}

# What has worked: a whitened stem, batch norm, one cycle with much Nesterov momentum, light augmentation.
TUNED = {
    **PLAIN,
    "stem": "whitened",
    "activation": "gelu",
    "norm": "batch",
    "dropout_at": "off",
    "linear_layers": 0,
    "conv_layers": 3,
    "kernel_size": 3,
    "padding": "same",
    "conv1_pooling": "max",
    "conv2_pooling": "max",
    "conv3_pooling": "max",
    "global_pooling": "none",
    "optimizer": "sgd",
    "sgd_momentum_kind": "nesterov",
    "sgd_momentum": 0.9,
    "sgd_learning_rate": 0.2,
    "use_weight_decay": True,
    "sgd_weight_decay": 5e-4,
    "schedule": "one_cycle",
    "one_cycle_warmup": 0.25,
    "batch_size": 64,
    "label_smoothing": 0.1,
    "flip": True,
    "alternating_flip": False,
    "crop": 2,
    "cutout": 0,
}

# The fastest first.
STARTING_POINTS = {
    "whitened-16-32-64": {
        **TUNED,
        "conv1_width_share": share_of(16, 32),
        "conv2_width_share": share_of(32, 64),
        "conv3_width_share": share_of(64, 128),
    },
    "cnn-32-128-pool": PRESETS["cnn-32-128-pool"],
    "cnn-32-128-pool-dropout": PRESETS["cnn-32-128-pool-dropout"],
    "whitened-32-64-64-128": {
        **TUNED,
        "conv_layers": 4,
        "conv1_width_share": share_of(32, 32),
        "conv2_width_share": share_of(64, 64),
        "conv3_width_share": share_of(64, 128),
        "conv3_pooling": "none",
        "conv4_pooling": "max",
        "conv4_width_share": share_of(128, 128),
    },
}
