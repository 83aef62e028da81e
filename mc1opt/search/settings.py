"""The options of a search, and the settings resolved from options, stored study and definition."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from mc1opt.database import records, study_attributes
from mc1opt.database.storage import StudyStorage
from mc1opt.dataset import DataSet
from mc1opt.errors import UsageError
from mc1opt.machine.devices import resolve_precision
from mc1opt.metric import Aim, Metric
from mc1opt.models.cost import Cost
from mc1opt.search.definition import StudyDefinition
from mc1opt.search.sampling import GRID_SAMPLER, grid_trials
from mc1opt.spec import CHECKPOINT_SECONDS, Device, Fidelity, Precision
from mc1opt.workers.engine import Engine

SHORT_SHARE = 5
"""The short schedule has one epoch for so many of the long one."""


@dataclass(frozen=True)
class SearchCommand:
    """The options of `mc1opt run`; None for the stored study's value, else its definition's, or a default."""

    study: str
    trials: int
    storage: str
    name: str | None = None
    epochs: int | None = None
    train_images: int | None = None
    seed: int | None = None
    timeout: float | None = None
    patience: int | None = None
    until: float | None = None
    engine: Engine = field(default_factory=Engine)
    sampler: str | None = None
    pruner: str | None = None
    max_macs: int | None = None
    max_failures: int = 10
    confirm: int = 3
    keep: int = 5
    max_trial_seconds: float | None = None
    """Seconds of training; None for no limit."""
    data: Path | None = None
    image_size: int | None = None
    max_unreadable: int | None = None
    starting_points: bool = True
    """Whether a new study begins with those of its definition."""
    begin_from: str | None = None
    """Name of a stored study: a new one begins with what it knows."""


@dataclass(frozen=True)
class SearchSettings:
    """The settings of a search, apart from its definition, data and database."""

    study: str
    """Name of the stored study."""
    trials: int
    """The study's total number of counted trials at the end."""
    fidelity: Fidelity
    seed: int
    device: Device
    max_macs: int
    aim: Aim = field(default_factory=Aim)
    precision: Precision = "float32"
    threads: int = 1
    """Intra-op threads of a training."""
    timeout: float | None = None
    """Seconds of the search; None for no limit."""
    patience: int | None = None
    """Counted trials in a row without a better one that end the search; None for no limit."""
    until: float | None = None
    """The value that the best trial shall reach; then the search ends. None for no such end."""
    sampler: str = "tpe"
    pruner: str = "narrowing"
    max_failures: int = 10
    """Failed trials in a row that end the search."""
    confirm: int = 3
    """Best trials that are trained again with new seeds at the end."""
    keep: int = 5
    """Trials that keep their weights: this many by value, and this many by expected value."""
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    """Least seconds between two checkpoints of a training."""
    is_stored: bool = False
    """Whether there is a study of that name before the search."""
    begin_from: str | None = None
    """Name of the study that this one begins from; None for none, or for the stored one's."""

    @property
    def target(self) -> float:
        """The score of `until`; infinite without it."""
        return math.inf if self.until is None else self.aim.metric.score(self.until)

    def excess(self, size: Cost) -> dict[str, float]:
        """By how much a network is too large, as a share of each limit that it exceeds, by constraint."""
        limits = {
            records.TOO_LARGE: (size.macs, min(self.max_macs, self.aim.macs or self.max_macs)),
            records.TOO_MANY_PARAMETERS: (size.parameters, self.aim.parameters or size.parameters),
        }
        # How far it is beyond lets TPE rank those that are too large.
        return {name: value / limit - 1.0 for name, (value, limit) in limits.items() if value > limit}


def search_settings(
    command: SearchCommand,
    definition: StudyDefinition,
    data: DataSet,
    device: Device,
    storage: StudyStorage,
) -> SearchSettings:
    """The command's value of each setting, else the stored study's, else the definition's.

    Raises:
        UsageError: more training images than the data has.
        StudyFileError: the study file's metric cannot be computed.
    """
    name = command.name or definition.name
    stored = {study.study_name: study.user_attrs for study in storage.get_all_studies()}.get(name, {})
    fidelity = Fidelity.model_validate(stored.get(records.FIDELITY) or definition.fidelity.model_dump())
    chosen = {"epochs": command.epochs, "train_images": command.train_images}
    fidelity = fidelity.model_copy(update={key: value for key, value in chosen.items() if value is not None})
    if stored:
        what = f"study {name!r} trains on {fidelity.train_images} images, which"
        check_train_images(what, fidelity.train_images, data)
    elif command.train_images is None:
        most = min(fidelity.train_images, data.train_images - data.validation_images)
        fidelity = fidelity.model_copy(update={"train_images": most})
    if not stored and data.train_images - fidelity.train_images >= 2 * data.validation_images:
        fidelity = fidelity.model_copy(update={"validation": "unused"})
    pruner = command.pruner or stored.get(study_attributes.STUDY_PRUNER) or definition.pruner
    if not stored and pruner != "none":
        fidelity = fidelity.model_copy(update={"short_epochs": fidelity.epochs // SHORT_SHARE})
    sampler = command.sampler or stored.get(study_attributes.STUDY_SAMPLER) or definition.sampler
    trials = command.trials
    if sampler == GRID_SAMPLER:
        trials = min(trials, grid_trials(definition.grid, definition.starting_points.values()))
    return SearchSettings(
        study=name,
        is_stored=bool(stored),
        trials=trials,
        fidelity=fidelity,
        seed=command.seed if command.seed is not None else stored.get(study_attributes.STUDY_SEED, 0),
        device=device,
        precision=resolve_precision(device),
        threads=command.engine.cpus,
        max_macs=command.max_macs or stored.get(study_attributes.STUDY_MAX_MACS) or definition.max_macs,
        aim=definition.aim_on(data),
        timeout=command.timeout,
        patience=command.patience,
        until=command.until,
        sampler=sampler,
        pruner=pruner,
        max_failures=command.max_failures,
        confirm=command.confirm,
        keep=command.keep,
        begin_from=command.begin_from,
    )


def check_train_images(what: str, wanted: int, data: DataSet) -> None:
    """Checks that training and validation images together do not exceed the data.

    Raises:
        UsageError: they do; the message begins with `what`.
    """
    available = data.train_images - data.validation_images
    if wanted > available:
        raise UsageError(
            f"{what} is too many: {data.name} has {data.train_images} training images, of which "
            f"{data.validation_images} are kept for validation, so at most {available} are left."
        )


def check_until(until: float | None, metric: Metric) -> None:
    """Checks that trials can have the value of `--until`.

    Raises:
        UsageError: it is not finite, or the metric is a share and it is none.
    """
    if until is None:
        return
    if metric.is_share and not 0.0 <= until <= 1.0:
        raise UsageError(f"--until {until:g}: {metric.label} lies between 0 and 1; 90 % is --until 0.9.")
    if not math.isfinite(until):
        raise UsageError(f"--until {until:g}: give a finite number, in the unit of {metric.label}.")
