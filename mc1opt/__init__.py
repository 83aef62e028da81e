"""mc1opt finds a good image classifier, and shows why it is good.

One trial, in five files. `search/run.py`: a thread per worker loops ask, train, tell. `search/objective.py`
draws a config, writes it on the trial (`database/trial.py`), sends a training to the pool, reports each epoch
and asks the pruner. `workers/pool.py` sends it to a worker process (`workers/process.py`), which runs
`training/loop.py`: it writes a checkpoint and yields one `EpochResult` per epoch.

`--trials`: `cli/run.py` puts it into a `SearchCommand`, `search/settings.py` resolves that to
`SearchSettings`, `search/run.py` checks it before each trial. An `EpochResult`: the pool passes it to the
objective, which reports it and emits it to the observers (`search/observers.py`), among them the display.

The packages, from the bottom up: models, machine, data, database; training, workers; search, measurement,
inference, display; the features retraining, explanation, published, export, dashboard, mirror, doctor; the
report; cli. Each docstring lists the package's files. The modules below may be imported by all of them:

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
    calibration  whether probabilities can be believed
    uncertainty  confidence intervals, the paired test, seed noise
    seeds        derives the seed of every random draw
    errors       the errors that people see
    files        JSON files, one record per line; atomic writes; locks
    paths        expands `~` in paths
    program      how the program was called, for commands to copy; installed versions; boot time
    text         numbers, times and first lines as people read them
"""

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

if TYPE_CHECKING:
    from torch import nn

    from mc1opt.cli.api import SearchOptions
    from mc1opt.database.records import StudyRecord

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


def load_study(name: str, storage: str | None = None) -> "StudyRecord":
    """A stored study, read once: its `trials`, the `best` of them, and `rows()` for a table.

    A trial has `value`, `values_by_epoch` (its curve), `params` and `config`, as JSON; see
    `mc1opt.database.records.TrialRecord`, and `mc1opt.config.config_from_json` for the config as an object.

    Args:
        name: the study's name.
        storage: the study database: a SQLite file or an SQLAlchemy URL; None for that of the variable
            MC1OPT_STORAGE, else storage/mc1opt.db.

    Raises:
        mc1opt.errors.StorageError: there is no such database or study.
    """
    from mc1opt.database.location import default_storage, user_storage
    from mc1opt.database.studies import read_study

    return read_study(default_storage() if storage is None else user_storage(storage), name)


def run(
    study: str, trials: int = 100, *, wandb: str | None = None, **options: Unpack["SearchOptions"]
) -> "StudyRecord":
    """Creates a study, or continues it, as `mc1opt run` does; prints the progress, also in a notebook.

    Args:
        study: a study definition: a name, or the path of a file.
        trials: total number of trials in the study.
        wandb: as `--wandb`.
        options: the others of `mc1opt run`, with underscores: `mc1opt.run("cnn", timeout="8m")`; see
            `mc1opt.cli.api.SearchOptions`.

    Returns:
        The study with its trials, as `load_study` gives it.

    Raises:
        mc1opt.errors.UsageError: a value is not allowed.
        mc1opt.errors.SearchStoppedError: too many trials in a row failed.
        mc1opt.errors.Mc1optError: another failure; `mc1opt.errors` has them all.
        KeyboardInterrupt: it was interrupted. Everything is kept, and the same call goes on.
    """
    from mc1opt.cli import api

    return api.run(study, trials, wandb=wandb, **options)
