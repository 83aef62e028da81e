"""mc1opt finds a good image classifier, and shows why it is good.

One trial, in five files. `search/run.py`: a thread per worker loops ask, train, tell. `search/objective.py`
draws a config, writes it on the trial (`database/trial.py`), sends a training to the pool, reports each epoch
and asks the pruner. `workers/pool.py` sends it to a worker process (`workers/process.py`), which runs
`training/loop.py`: it writes a checkpoint and yields one `EpochResult` per epoch.

`--trials`: `cli/run.py` puts it into a `SearchCommand`, `search/settings.py` resolves that to
`SearchSettings`, `search/run.py` checks it before each trial. An `EpochResult`: the pool passes it to the
objective, which reports it and emits it to the observers (`search/observers.py`), among them the display.

The packages, from the bottom up: models, machine, data, database; training, workers; search, measurement,
inference, display; the features retraining, published, export, dashboard, mirror, doctor; cli. Each docstring
lists the package's files. The modules below may be imported by all of them:

    config       the config: its fields, JSON, identity and shape arithmetic
    fields       what configs are made of: frozen models; fields added later
    spec         a training as data: config, fidelity, seed, images; and its results
    metric       what a search aims at; which of two values is better
    metric_functions  the metrics as functions of logits and labels, those of study files among them
    study_file   loads a study file, and says where its code went wrong
    dataset      which images a training is about: shape, classes, where they are
    presets      the published models as configs
    suggest      suggestions that search spaces share
    describe     a config in one line
    uncertainty  confidence intervals, the paired test, seed noise
    seeds        derives the seed of every random draw
    errors       the errors that people see
    files        JSON files, one record per line; atomic writes; locks
    paths        expands `~` in paths
    program      how the program was called, for commands to copy; installed versions; boot time
    text         numbers, times and first lines as people read them
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__version__ = "0.1.0"


def load_model(path: str | Path) -> "nn.Module":
    """The model of a model folder, such as storage/models/cnn, as a `torch.nn.Module` in evaluation mode.

    It takes images (uint8, N x C x H x W, RGB or grey) on the CPU and gives logits (N x classes);
    normalisation is part of it. See `mc1opt.training.model_folder.load_model`.

    Raises:
        mc1opt.errors.ModelError: the folder is missing, damaged, or of a newer mc1opt.
    """
    from mc1opt.training import model_folder  # imports torch, which takes seconds

    return model_folder.load_model(path)
