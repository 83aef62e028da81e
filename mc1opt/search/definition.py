"""Study definitions: finding and loading them.

A study definition is a Python file with a function `search_space(trial) -> Config` or `search_space(trial,
data)`, where `data` is the `mc1opt.dataset.DataSet` that is searched for. It may raise
`optuna.TrialPruned("why")` for an infeasible combination. The file may set:

    DATA                    the default of --data: the name of a data set, or a path
    EPOCHS, TRAIN_IMAGES    the default fidelity; by default it follows from the data (`mc1opt.search.price`)
    MAX_MACS                the default of --max-macs: the most multiply-accumulates per image; larger
                            networks are not trained; by default it follows from the data
    STARTING_POINTS         name -> parameters, tried first, in this order
    METRIC                  what trials are judged by: "accuracy", "balanced_accuracy", "macro_f1", "log_loss"
                            or "auroc"; or define a function `metric(logits, labels) -> float`: it gets NumPy
                            arrays (float32, N x classes; int64, N) of all validation images
    DIRECTION               of such a function: "maximize" or "minimize"
    CLASS_WEIGHTS           "balanced" weighs the classes in the loss by their rarity
    CONSTRAINTS             the most "parameters" or "macs" that a network may have
    SAMPLER, PRUNER         the defaults of --sampler and --pruner
    GRID                    parameter -> its values, for the sampler "grid": every combination is tried once
    PRESETS                 name -> parameters of the published models inside the search space

A config's architecture may be a `CustomNetwork`, which a function of the file builds: `build(data,
**arguments) -> torch.nn.Module`.

It may import modules from its own folder. NumPy values become Python values.
"""

import functools
import importlib.resources
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from optuna import TrialPruned
from optuna.trial import BaseTrial
from pydantic import ValidationError

from mc1opt.config import Config, ConvNet, CustomNetwork, conv_shapes
from mc1opt.data.named import data_path
from mc1opt.dataset import CIFAR10_DATA, DataSet
from mc1opt.errors import StudyFileError, describe_validation_error
from mc1opt.metric import Aim
from mc1opt.paths import user_path
from mc1opt.search.aim import aim_of_file, with_fingerprint
from mc1opt.search.json_values import ALLOWED_VALUES, as_python, as_stored, suggesting_as_stored
from mc1opt.search.price import default_fidelity, default_max_macs
from mc1opt.spec import Fidelity
from mc1opt.study_file import StudyFile, what, where_in

SearchSpace = Callable[[BaseTrial, DataSet], Config]
DEFAULT_SAMPLER = "local"
DEFAULT_PRUNER = "narrowing"


@dataclass(frozen=True)
class StudyDefinition:
    """A study definition, as loaded from its file."""

    name: str
    path: Path
    description: str
    """The first line of the file's docstring."""
    search_space: SearchSpace
    data: DataSet = CIFAR10_DATA
    """The images that are searched for; see `on`."""
    data_path: Path | None = None
    """The default of `--data`."""
    chosen: Mapping[str, int | None] = field(default_factory=dict)
    """The file's own `train_images`, `epochs` and `max_macs`."""
    starting_points: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    aim: Aim = field(default_factory=Aim)
    """Its own metric lacks the fingerprint; see `aim_on`."""
    sampler: str = DEFAULT_SAMPLER
    pruner: str = DEFAULT_PRUNER
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Parameter -> values; empty without a grid."""

    @property
    def fidelity(self) -> Fidelity:
        """The default fidelity."""
        return default_fidelity(self.data, self.chosen.get("train_images"), self.chosen.get("epochs"))

    @property
    def max_macs(self) -> int:
        """The default of `--max-macs`."""
        return self.chosen.get("max_macs") or default_max_macs(self.data.size)

    def aim_on(self, data: DataSet) -> Aim:
        """The aim, with the fingerprint of the file's own metric.

        Raises:
            StudyFileError: that metric cannot be computed for so many classes.
        """
        return with_fingerprint(self.aim, data.classes)

    def on(self, data: DataSet) -> "StudyDefinition":
        """The same definition for other images."""
        return replace(self, data=data)

    def config(self, trial: BaseTrial) -> Config:
        """The config of a trial's parameters.

        Raises:
            StudyFileError: the search space raised, did not return a config, or returned one that does not
                fit the images.
            TrialPruned: the parameters are infeasible.
        """
        try:
            with suggesting_as_stored(trial):
                config = self.search_space(trial, self.data)
        except TrialPruned:
            raise
        except StudyFileError as error:  # raised by a suggestion
            raise StudyFileError(
                f"the search space of {self.path}{where_in(error, self.path)}: {error}"
            ) from error
        except ValidationError as error:
            raise StudyFileError(
                f"the search space of {self.path} made an impossible config from {trial.params}: "
                f"{describe_validation_error(error)}"
            ) from error
        except Exception as error:
            raise StudyFileError(
                f"the search space of {self.path} raised {what(error, self.path)} for {trial.params}"
            ) from error
        if not isinstance(config, Config):
            raise StudyFileError(
                f"the search space of {self.path} returned {type(config).__name__}; it must return a Config"
            )
        if isinstance(config.architecture, ConvNet):
            try:
                conv_shapes(config.architecture, self.data.size)
            except ValueError as error:
                raise StudyFileError(
                    f"the search space of {self.path} made an impossible config from {trial.params}: {error}"
                ) from error
        return config


# ---- Finding and loading ---------------------------------------------------------------------------------


def shipped_folder() -> Path:
    """The folder of the package's own study definitions."""
    return Path(str(importlib.resources.files("mc1opt.studies")))


def list_definitions(folder: Path | None = None) -> dict[str, Path]:
    """All study definitions by name: those in ./studies first, then the shipped ones.

    Args:
        folder: contains "studies"; the current folder if None.
    """
    found: dict[str, Path] = {}
    for place in ((folder or Path()) / "studies", shipped_folder()):
        for path in sorted(place.glob("[!._]*.py")):  # no hidden files, such as macOS's ._mine.py
            if not path.is_dir():
                found.setdefault(path.stem, path)
    return found


def load_definition(study: str, folder: Path | None = None) -> StudyDefinition:
    """Loads the study definition of `--study`: a name, or the path of a Python file.

    Raises:
        StudyFileError: there is no such file, or it is invalid; the message names the line.
    """
    if study.endswith(".py") or "/" in study:
        path = user_path(study)
    else:
        known = list_definitions(folder)
        if study not in known:
            raise StudyFileError(
                f"unknown study {study!r}. Known: {', '.join(sorted(known))}. Or give the path of a file, "
                "such as --study path/to/mine.py; `mc1opt studies` lists them."
            )
        path = known[study]
    if not path.is_file():  # reading a pipe would block
        raise StudyFileError(f"there is no study file {path}. Give the path of a Python file, or a name.")
    return _from_file(StudyFile(path))


def _importing(search_space: Callable[..., Config], file: StudyFile) -> SearchSpace:
    """A search space, with or without data, which may import the file's neighbours when called.

    It says of custom networks where their function is, and which code it reaches.
    """
    takes_data = _positions(search_space) > 1

    @functools.wraps(search_space)
    def call(trial: BaseTrial, data: DataSet) -> Config:
        with file.neighbours.importable():
            config = search_space(trial, data) if takes_data else search_space(trial)
        network = getattr(config, "architecture", None)
        if not isinstance(network, CustomNetwork):
            return config
        if not callable(getattr(file.module, network.function, None)):
            raise StudyFileError(f"there is no function `{network.function}(data, ...)` in the file")
        place = {"code": file.code_hash(network.function), "path": str(file.path.resolve())}
        return config.model_copy(update={"architecture": network.model_copy(update=place)})

    return call


def _positions(function: Callable[..., Any]) -> int:
    """How many arguments a function needs by position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return sum(each.kind in kinds and each.default is each.empty for each in parameters)


def _from_file(file: StudyFile) -> StudyDefinition:
    module: Any = file.module
    path = file.path
    search_space = getattr(module, "search_space", None)
    if not callable(search_space):
        raise StudyFileError(
            f"{path} has no search space. Define a function `search_space(trial)` that returns a Config; "
            f"{shipped_folder() / 'cnn.py'} is an example to copy."
        )
    images = getattr(module, "DATA", None)
    if not isinstance(images, str | None):
        raise StudyFileError(f"{path}: DATA must be the name of a data set, or a path, not {images!r}.")
    chosen = {
        name: as_python(getattr(module, name.upper(), None))
        for name in ("train_images", "epochs", "max_macs")
    }
    definition = StudyDefinition(
        name=path.stem,
        path=path,
        description=(module.__doc__ or "").strip().split("\n", 1)[0],
        search_space=_importing(search_space, file),
        data_path=None if images is None else data_path(images),
        chosen=chosen,
        starting_points=_starting_points(module, path),
        presets=getattr(module, "PRESETS", {}),
        aim=aim_of_file(file),
        sampler=as_python(getattr(module, "SAMPLER", DEFAULT_SAMPLER)),
        pruner=as_python(getattr(module, "PRUNER", DEFAULT_PRUNER)),
        grid=_grid(module, path),
    )
    try:
        _ = definition.fidelity
    except ValidationError as error:
        raise StudyFileError(f"{path}: {describe_validation_error(error)}") from error
    return definition


def _starting_points(module: Any, path: Path) -> Mapping[str, Mapping[str, Any]]:
    points = as_python(getattr(module, "STARTING_POINTS", {}))
    if not isinstance(points, Mapping) or not all(isinstance(point, Mapping) for point in points.values()):
        raise StudyFileError(
            f"{path}: STARTING_POINTS must give each name a dict of parameters, such as "
            '{"wide": {"width": 512}}.'
        )
    return {
        name: {
            key: _storable(value, f"{key!r} of starting point {name!r}", path) for key, value in point.items()
        }
        for name, point in points.items()
    }


def _grid(module: Any, path: Path) -> Mapping[str, Sequence[Any]]:
    grid = as_python(getattr(module, "GRID", {}))
    if not isinstance(grid, Mapping) or not all(
        isinstance(values, list | tuple) and values for values in grid.values()
    ):
        raise StudyFileError(
            f"{path}: GRID must give each parameter a list of at least one value, such as "
            '{"batch_size": [50, 100]}.'
        )
    return {
        parameter: [_storable(value, f"{parameter!r} of GRID", path) for value in values]
        for parameter, values in grid.items()
    }


def _storable(value: Any, what: str, path: Path) -> Any:
    try:
        return as_stored(value)
    except ValueError as error:
        raise StudyFileError(f"{path}: {what} cannot be stored: {error}. {ALLOWED_VALUES}") from error
