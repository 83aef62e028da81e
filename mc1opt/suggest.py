"""Suggestions that search spaces share: residual pairs, optimizers, schedules, augmentation, switches.

Study files import them.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mc1opt.config import (
    IMAGE_SIZE,
    SGD,
    Adam,
    AdamW,
    Architecture,
    Augmentation,
    Config,
    Constant,
    ConvBlock,
    ConvNet,
    Cosine,
    CustomNetwork,
    Muon,
    OneCycle,
    conv_shapes,
)

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

SMALLEST_SIZE = 16
"""Pixels: of `progressive_size`."""


def suggest_residual(trial: "BaseTrial", blocks: Iterable[ConvBlock]) -> list[ConvBlock]:
    """The blocks, each with or without a residual pair after it: `conv1_residual` and so on.

    In a copy of `studies/cnn.py`, whose own search space has none:

        blocks = suggest_residual(trial, suggest_blocks(trial, size, norm, activation))
    """
    return [
        block.model_copy(
            update={"residual": trial.suggest_categorical(f"conv{number}_residual", [False, True])}
        )
        for number, block in enumerate(blocks, start=1)
    ]


def suggest_optimizer(trial: "BaseTrial", *, muon: bool = False) -> SGD | Adam | AdamW | Muon:
    """SGD, Adam or AdamW, each with its own learning rate and the parameters that only it has.

    With `muon` also Muon (Jordan et al., 2024).
    """
    kind = trial.suggest_categorical("optimizer", ["sgd", "adam", "adamw"] + ["muon"] * muon)
    if kind == "muon":
        return Muon(
            learning_rate=trial.suggest_float("muon_learning_rate", 0.01, 0.5, log=True),
            sgd_learning_rate=trial.suggest_float("muon_sgd_learning_rate", 0.003, 0.3, log=True),
            momentum=trial.suggest_float("muon_momentum", 0.5, 0.98),
            weight_decay=_suggest_weight_decay(trial, "muon", 1e-3, 0.5),
        )
    if kind == "sgd":
        momentum_kind = trial.suggest_categorical("sgd_momentum_kind", ["none", "classical", "nesterov"])
        return SGD(
            learning_rate=trial.suggest_float("sgd_learning_rate", 0.003, 0.3, log=True),
            momentum=0.0 if momentum_kind == "none" else trial.suggest_float("sgd_momentum", 0.5, 0.98),
            nesterov=momentum_kind == "nesterov",
            weight_decay=_suggest_weight_decay(trial, "sgd", 1e-5, 1e-2),
        )
    learning_rate = trial.suggest_float("adam_learning_rate", 1e-4, 2e-2, log=True)
    beta2 = trial.suggest_float("adam_beta2", 0.9, 0.999)
    if kind == "adam":
        weight_decay = _suggest_weight_decay(trial, "adam", 1e-6, 1e-3)
        return Adam(learning_rate=learning_rate, beta2=beta2, weight_decay=weight_decay)
    weight_decay = _suggest_weight_decay(trial, "adamw", 1e-3, 0.5)
    return AdamW(learning_rate=learning_rate, beta2=beta2, weight_decay=weight_decay)


def _suggest_weight_decay(trial: "BaseTrial", optimizer: str, low: float, high: float) -> float:
    if not trial.suggest_categorical("use_weight_decay", [False, True]):
        return 0.0
    return trial.suggest_float(f"{optimizer}_weight_decay", low, high, log=True)


def suggest_schedule(trial: "BaseTrial") -> Constant | Cosine | OneCycle:
    """A constant learning rate, half a cosine, or one cycle with its own warm-up."""
    kind = trial.suggest_categorical("schedule", ["constant", "cosine", "one_cycle"])
    if kind == "constant":
        return Constant()
    if kind == "cosine":
        return Cosine()
    return OneCycle(warmup=trial.suggest_float("one_cycle_warmup", 0.1, 0.5))


def suggest_augmentation(trial: "BaseTrial", size: int = IMAGE_SIZE) -> Augmentation:
    """Flip, crop and cutout for images of `size` x `size` pixels; 0 pixels are none."""
    return Augmentation(
        flip=trial.suggest_categorical("flip", [False, True]),
        crop=trial.suggest_int("crop", 0, min(max(size // 8, 2), 16)),
        cutout=trial.suggest_int("cutout", 0, 3 * size // 8 // 4 * 4, step=4),
    )


def suggest_switches(trial: "BaseTrial", config: Config, size: int = IMAGE_SIZE) -> Config:
    """The config with or without further methods, mostly of the CIFAR-10 speed records.

    `size` is that of the images in pixels. A custom network has those alone that are no part of it.

    - `alternating_flip`, where there is a flip, `identity_initialisation` of convolutions, and `logit_scale`:
      Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024.
    - `weight_averaging`: Izmailov et al., "Averaging Weights Leads to Wider Optima", 2018.
    - `progressive_size`, where the network takes smaller images: Tan and Le, "EfficientNetV2", 2021.

    `studies/cnn.py` has them all.
    """
    network, augmentation = config.architecture, config.augmentation
    switches: dict[str, Any] = {}
    if not isinstance(network, CustomNetwork):
        switches["logit_scale"] = trial.suggest_float("logit_scale", 0.05, 1.0, log=True)
    if isinstance(network, ConvNet):
        switches["identity_initialisation"] = trial.suggest_categorical(
            "identity_initialisation", [False, True]
        )
    changes: dict[str, Any] = {
        "architecture": network.model_copy(update=switches),
        "weight_averaging": trial.suggest_float("weight_averaging", 0.0, 0.5),
    }
    if augmentation.flip and trial.suggest_categorical("alternating_flip", [False, True]):
        changes["augmentation"] = augmentation.model_copy(update={"flip": "alternating"})
    steps = (size - SMALLEST_SIZE) // 4
    if steps > 0 and _takes_images_of(SMALLEST_SIZE, network):
        first = trial.suggest_int("progressive_size", SMALLEST_SIZE, SMALLEST_SIZE + 4 * steps, step=4)
        changes["progressive_size"] = first if first < size else None
    return config.model_copy(update=changes)


def _takes_images_of(size: int, network: Architecture) -> bool:
    if not isinstance(network, ConvNet) or network.global_pooling == "none":
        return False
    try:
        conv_shapes(network, size)
    except ValueError:
        return False
    return True
