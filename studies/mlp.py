"""Multilayer perceptrons: depth, widths, and how they are trained.

Copy this file to `./studies/`, edit it, and run it with `mc1opt run --study NAME`. The published models 1
and 2 lie in this search space.
"""

from optuna.trial import BaseTrial

from mc1opt.config import MLP, Config, LinearLayer
from mc1opt.dataset import DataSet
from mc1opt.suggest import suggest_augmentation, suggest_optimizer, suggest_schedule


def search_space(trial: BaseTrial, data: DataSet) -> Config:
    """One to four hidden layers, each of its own width."""
    count = trial.suggest_int("layers", 1, 4)
    widths = [trial.suggest_int(f"layer{i}_width", 32, 1024, log=True) for i in range(1, count + 1)]
    activation = trial.suggest_categorical("activation", ["relu", "gelu", "silu"])
    norm = trial.suggest_categorical("norm", ["none", "batch"])
    use_dropout = trial.suggest_categorical("use_dropout", [False, True])
    dropout = trial.suggest_float("dropout_rate", 0.05, 0.5) if use_dropout else 0.0
    return Config(
        architecture=MLP(
            layers=tuple(
                LinearLayer(width=width, norm=norm, activation=activation, dropout=dropout)
                for width in widths
            )
        ),
        optimizer=suggest_optimizer(trial),
        schedule=suggest_schedule(trial),
        batch_size=trial.suggest_int("batch_size", 20, 512, log=True),
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.2),
        augmentation=suggest_augmentation(trial, data.size),
        # Without a norm, He's larger weights cost accuracy; with one, it hardly matters.
        initialisation="torch" if norm == "none" else "he",
        normalisation="symmetric" if norm == "none" else "channels",
    )


# The recipe of the published models: plain SGD at a constant learning rate, nothing else.
PUBLISHED = {
    "activation": "relu",
    "norm": "none",
    "use_dropout": False,
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

PRESETS = {
    "mlp-128-64": {"layers": 2, "layer1_width": 128, "layer2_width": 64, **PUBLISHED},
    "mlp-256-128-64": {
        "layers": 3,
        "layer1_width": 256,
        "layer2_width": 128,
        "layer3_width": 64,
        **PUBLISHED,
    },
}

STARTING_POINTS = PRESETS
