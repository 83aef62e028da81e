"""Wide convolutional networks in three stages: for a GPU, or for one long training on a CPU.

Copy this file to `./studies/`, edit it, and run it with `mc1opt run --study NAME`. A trial takes minutes of a
CPU core. The starting point is the network of Jordan's CIFAR-10 speed record ("94% on CIFAR-10 in 3.29
seconds on a single GPU", 2024; its later variant with Muon), with hyperparameters for smaller batches.
"""

from optuna.trial import BaseTrial

from mc1opt.config import Config, ConvBlock, ConvNet, Pooling, WhitenedStem
from mc1opt.dataset import DataSet
from mc1opt.suggest import suggest_augmentation, suggest_optimizer, suggest_schedule, suggest_switches

MAX_MACS = 400_000_000
WIDEST = {1: 128, 2: 384, 3: 512}
"""By stage."""


def search_space(trial: BaseTrial, data: DataSet) -> Config:
    """Width and depth of each stage, which begins with a convolution and a pooling; how they are trained."""
    blocks = []
    for stage, widest in WIDEST.items():
        width = trial.suggest_int(f"stage{stage}_width", 32, widest, step=32)
        depth = trial.suggest_int(f"stage{stage}_depth", 1, 3)
        convolution = ConvBlock(width=width, padding=1, norm="batch", activation="gelu")
        pooled = convolution.model_copy(update={"pooling": Pooling(kind="max")})
        blocks += [pooled, *[convolution] * (depth - 1)]
    config = Config(
        architecture=ConvNet(stem=WhitenedStem(), blocks=tuple(blocks), global_pooling="max"),
        optimizer=suggest_optimizer(trial, muon=True),
        schedule=suggest_schedule(trial),
        batch_size=trial.suggest_int("batch_size", 64, 1024, log=True),
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.2),
        augmentation=suggest_augmentation(trial, data.size),
    )
    return suggest_switches(trial, config, data.size)


STARTING_POINTS = {
    "jordan-64-256-256": {
        "stage1_width": 64,
        "stage1_depth": 2,
        "stage2_width": 256,
        "stage2_depth": 2,
        "stage3_width": 256,
        "stage3_depth": 2,
        "optimizer": "muon",
        "muon_learning_rate": 0.1,
        "muon_sgd_learning_rate": 0.2,
        "muon_momentum": 0.85,
        "use_weight_decay": True,
        "muon_weight_decay": 0.0125,
        "schedule": "one_cycle",
        "one_cycle_warmup": 0.25,
        "batch_size": 125,
        "label_smoothing": 0.2,
        "flip": True,
        "alternating_flip": True,
        "crop": 2,
        "cutout": 0,
        "logit_scale": 1 / 9,
        "identity_initialisation": True,
        "weight_averaging": 0.3,
        "progressive_size": 32,
    }
}
