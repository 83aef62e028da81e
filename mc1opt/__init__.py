"""mc1opt finds a good image classifier, and shows why it is good.

One trial, in five files: `search/run.py` has a thread for each worker, which asks, trains and tells.
`search/objective.py` draws a config, writes it to the trial (`database/trial.py`), has the pool train it,
reports each epoch and asks the pruner. `workers/pool.py` gives the training to a process, which trains with
`training/loop.py`: an `EpochResult` an epoch, after its checkpoint.

`--trials` comes from `cli/run.py` as a `SearchCommand`, holds as a `SearchSettings` (`search/settings.py`)
and is looked at in `search/run.py` before each trial. An `EpochResult` goes back through the pool to the
objective, which reports it and emits it to the observers (`search/observers.py`), the display among them.

The ground, which all packages may import:

    uncertainty  intervals, the paired test, seed noise
    describe     a config in one line
    presets      the published models
    spec         a training as data: config, fidelity, seed, data; and its results
    config       the config: its models, JSON, identity and shape arithmetic
    fields       what configs are made of: frozen models with fields that came later
    paths        paths as people write them: `~`
    program      how the program was called, for commands to copy; the start of the machine it runs in
    files        JSON in files: records, a line each; one process at a time in a folder
    seeds        every random draw's seed
    errors       the errors that people see
    suggest      suggestions that search spaces share
    text         numbers as people read them
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__version__ = "0.1.0"


def load_model(path: str | Path) -> "nn.Module":
    """The model of a model folder, such as storage/models/cnn, as a `torch.nn.Module` in evaluation mode.

    It takes images (uint8, N x 3 x 32 x 32, RGB) on the CPU and gives logits (N x 10); normalisation is part
    of it. See `mc1opt.training.model_folder.load_model`.

    Raises:
        mc1opt.errors.ModelError: the folder is missing, damaged, of a newer mc1opt, or of other classes.
    """
    from mc1opt.training import model_folder  # imports torch, which takes seconds

    return model_folder.load_model(path)
