"""The source's own search on published model 1: four batch sizes by three learning rates, all 12 points.

Is batch size 200 with learning rate 0.1 the winner, as the source says? Run it with
`mc1opt run --study published_grid`: it ends when every point is trained to its end, and the best three are
trained again with new seeds.
"""

from optuna.trial import BaseTrial

from mc1opt.config import SGD, Config
from mc1opt.presets import PRESETS

SAMPLER = "grid"
GRID = {"batch_size": [20, 50, 100, 200], "learning_rate": [0.01, 0.1, 0.2]}
PRUNER = "none"  # a grid of which some points are not trained to their end is none
TRAIN_IMAGES = 45_000  # all but those of validation
EPOCHS = PRESETS["mlp-128-64"].epochs["published"]


def search_space(trial: BaseTrial) -> Config:
    """Published model 1 with another batch size and another learning rate; all else is as it was."""
    published = PRESETS["mlp-128-64"].config
    return Config(
        architecture=published.architecture,
        optimizer=SGD(learning_rate=trial.suggest_categorical("learning_rate", GRID["learning_rate"])),
        batch_size=trial.suggest_categorical("batch_size", GRID["batch_size"]),
        initialisation=published.initialisation,
        normalisation=published.normalisation,
    )
