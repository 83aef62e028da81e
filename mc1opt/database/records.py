"""What is where on a stored trial, and reading it back.

The database is the only memory of a search: results start from these records, never from a live trial.
"""

import functools
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from mc1opt.config import SCHEMA_VERSION, config_from_json
from mc1opt.database.location import folder_name
from mc1opt.errors import ConfigError, UsageError
from mc1opt.spec import Fidelity

# ---- User attributes of a trial --------------------------------------------------------------------------

CONFIG = "config"
"""The config as JSON, with its schema version."""
CONFIG_ID = "config_id"
"""The config's identity (`mc1opt.config.config_id`)."""
SEED = "seed"
"""The trial's seed: hash of the study's seed and the trial's number."""
FIDELITY = "fidelity"
"""{"train_images": ..., "epochs": ...}."""
DATA = "data"
"""{"name": ..., "sha256": ...} of the training images."""
PARAMETERS = "parameters"
"""Trainable parameters."""
MACS = "macs"
"""Multiply-accumulates an image."""
EPOCH_SECONDS = "epoch_seconds"
"""Mean seconds an epoch, training and validation."""
LOSSES = "losses"
"""Training loss by epoch, a list."""
DEVICE = "device"
"""cpu, cuda or mps."""
VERSIONS = "versions"
"""Versions of mc1opt, Python, torch, optuna; the CPU's capability; threads a worker."""
COMMIT = "commit"
"""The commit of mc1opt's checkout, or null."""
OWNER = "owner"
"""The process that runs the trial; see `this_owner`."""
INTERRUPTED = "interrupted"
"""How many times the trial was set back to waiting."""
STALLED = "stalled"
"""{"times": ..., "epochs": ...}: owners that died, one after the other, without a new epoch."""
ACCUMULATION = "accumulation"
"""Parts of a batch whose gradients were added up, where whole ones had taken more memory than there was."""
FAILURE = "failure"
"""{"kind": ..., "message": ...} of a training that ended without a result."""
DUPLICATE_OF = "duplicate_of"
"""The number of the trial that trains or trained this very config at this fidelity."""
STARTING_POINT = "starting_point"
"""The name of the starting point that the trial was enqueued with."""
CONFIRMATIONS = "confirmations"
"""[{"seed": ..., "value": ...}, ...]: the config trained again with new seeds; with "accumulation", where
it came to its end and that was stored: of older ones it is the trial's."""
CONFIRMING = "confirming"
"""[{"seed": ..., "owner": ...}, ...]: who is training it again, or was when it died."""
CONFIRMING_STEPS = "confirming_steps"
"""{seed: accumulation}: of new trainings that memory has made take smaller steps, also unfinished ones."""
SUMMARY = "summary"
"""The config in one line, for people: see `mc1opt.describe`."""
INFEASIBLE = "infeasible"
"""Why a combination is no network, in the words of the search space, which may be none; and the name of the
constraint that it violates."""
OUTCOME = "outcome"
"""What became of the trial, for people who look at it with other programs: Optuna's PRUNED stands for five of
them. Written before the trial is told, so that one without an end may have it; `outcome` is what counts."""

# ---- User attributes of a study --------------------------------------------------------------------------

STUDY_SEED = "mc1opt_seed"
STUDY_DEFINITION = "mc1opt_definition"
STUDY_SPACE = "mc1opt_search_space"
STUDY_MAX_MACS = "mc1opt_max_macs"
STUDY_SAMPLER, STUDY_PRUNER = "mc1opt_sampler", "mc1opt_pruner"
"""What the next start takes, unless it is told otherwise."""
STUDY_STARTED = "mc1opt_starting_points_enqueued"
STUDY_FOLDER = "mc1opt_folder"
"""The name of the study's folder among those of its database; see `study_folder_name`."""
STUDY_IDENTITY = "mc1opt_identity"
"""A random id, stored when the study is first mirrored: two studies may have the same name."""

TOO_LARGE = "too_large"
"""The constraint (`trial.set_constraint`) that a network above the limit of multiply-accumulates violates."""
FAILED = "failed"
"""The constraint that a config violates whose training failed."""

Outcome = Literal[
    "complete", "pruned", "too_large", "infeasible", "duplicate", "failed", "foreign", "running", "waiting"
]

UNTRAINED: tuple[Outcome, ...] = ("duplicate", "too_large", "infeasible")
"""Outcomes of trials that needed no training."""

_PLAIN_OUTCOMES: dict[TrialState, Outcome] = {
    TrialState.COMPLETE: "complete",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}

_TYPES: Mapping[str, type | tuple[type, ...]] = MappingProxyType(
    {
        CONFIG: dict,
        CONFIG_ID: str,
        SEED: int,
        FIDELITY: dict,
        PARAMETERS: int,
        MACS: int,
        EPOCH_SECONDS: (int, float),
        LOSSES: list,
        DEVICE: str,
        VERSIONS: dict,
        INTERRUPTED: int,
        STALLED: dict,
        ACCUMULATION: int,
        FAILURE: dict,
        DUPLICATE_OF: int,
        STARTING_POINT: str,
        CONFIRMATIONS: list,
        CONFIRMING: list,
        CONFIRMING_STEPS: dict,
        INFEASIBLE: str,
    }
)
"""What the attributes that are read back are; the others are for people."""


def foreign(trial: FrozenTrial) -> str:
    """Why a trial is passed over, in words that follow the noun; empty for one of mc1opt's.

    A study is open to other programs, which may add trials, run and end them: such values are not measured
    here. One of ours has an owner from its first moment on, and its value is its last report. A trial that
    waits is trained, whoever enqueued it.
    """
    attributes = trial.user_attrs
    if trial.state == TrialState.WAITING:
        return ""
    if not isinstance(attributes.get(OWNER), dict):
        return "written by another program"
    for key, kind in _TYPES.items():
        if attributes.get(key) is not None and not isinstance(attributes[key], kind):
            return f"with a damaged attribute {key!r}"
    if trial.state == TrialState.COMPLETE and values_by_epoch(trial)[-1:] != [trial.value]:
        return "ended by another program"
    if trial.state == TrialState.FAIL or not trial.state.is_finished() or INFEASIBLE in attributes:
        return ""
    fault = _config_fault(json.dumps(attributes.get(CONFIG)))
    return fault or ("" if CONFIG_ID in attributes else "with a damaged config")


@functools.cache
def _config_fault(stored: str) -> str:
    """What is wrong with a stored config, as JSON, in the words of `foreign`."""
    content = json.loads(stored) or {}
    try:
        config_from_json(content)
    except ConfigError:
        version = content.get("schema_version")
        newer = type(version) is int and version > SCHEMA_VERSION
        return "with a config that a newer mc1opt wrote" if newer else "with a damaged config"
    return ""


def own_trials(study: optuna.Study, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
    """The trials of a study, in these states, but for those that are passed over; not to be changed."""
    return [trial for trial in study.get_trials(deepcopy=False, states=states) if not foreign(trial)]


def outcome(trial: FrozenTrial) -> Outcome:
    """What became of a trial, in the words that people read; Optuna's PRUNED stands for five of them."""
    if foreign(trial):
        return "foreign"
    if trial.state in _PLAIN_OUTCOMES:
        return _PLAIN_OUTCOMES[trial.state]
    if trial.state == TrialState.FAIL or FAILURE in trial.user_attrs:
        return "failed"
    untrained: dict[Outcome, bool] = {
        "infeasible": INFEASIBLE in trial.user_attrs,
        "duplicate": trial.user_attrs.get(DUPLICATE_OF) is not None,
        "too_large": trial.constraints.get(TOO_LARGE, 0.0) > 0.0,
    }
    return next((what for what, holds in untrained.items() if holds), "pruned")


def is_counted(trial: FrozenTrial) -> bool:
    """Whether a trial counts towards `--trials`: it was trained to the end, or the pruner ended it."""
    return outcome(trial) in ("complete", "pruned")


def untrained_in_a_row(trials: Sequence[FrozenTrial]) -> int:
    """How many of the last trials that have ended needed no training; foreign ones are left out."""
    outcomes = [outcome(trial) for trial in trials]
    ended = [what for what in reversed(outcomes) if what not in ("running", "waiting", "foreign")]
    return next((i for i, what in enumerate(ended) if what not in UNTRAINED), len(ended))


def values_by_epoch(trial: FrozenTrial) -> list[float]:
    """The reported validation accuracies, in the order of the epochs."""
    return [value for _, value in sorted(trial.intermediate_values.items())]


@dataclass(frozen=True)
class TrialRecord:
    """A stored trial, as `show --json` gives it."""

    number: int
    state: str
    outcome: Outcome
    value: float | None
    config: dict[str, Any] | None
    config_id: str | None
    params: dict[str, Any]
    seed: int | None
    parameters: int | None
    macs: int | None
    values_by_epoch: list[float]
    seconds: float | None
    epoch_seconds: float | None
    constraints: dict[str, float]
    failure: dict[str, str] | None
    interrupted: int
    duplicate_of: int | None
    starting_point: str | None
    confirmations: list[dict[str, Any]]
    losses: list[float] = field(default_factory=list)
    """Training loss by epoch; empty while it is in training."""
    started: str | None = None
    """When its training began, the last time, in UTC (ISO 8601)."""
    ended: str | None = None
    device: str | None = None
    """Where it was trained."""
    versions: dict[str, Any] = field(default_factory=dict)
    """What it was trained with; see `mc1opt.machine.environment.versions`."""
    accumulation: int = 1
    """The steps that each batch was taken in, because memory was short; 1 is the whole batch."""
    infeasible: str | None = None
    """Why the combination is no network; empty where the search space has not said it."""
    foreign: str = ""
    """Why the trial is passed over (`foreign`); its value, its reports and its attributes are left out."""


def trial_record(trial: FrozenTrial) -> TrialRecord:
    """The record of a stored trial; what it does not have is None, 0 or empty."""
    passed_over = foreign(trial)
    attributes = {} if passed_over else trial.user_attrs
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        outcome=outcome(trial),
        # Optuna stores a pruned trial's last report as its value; ours is what a whole training gave.
        value=trial.value if trial.state == TrialState.COMPLETE and not passed_over else None,
        config=attributes.get(CONFIG),
        config_id=attributes.get(CONFIG_ID),
        params=dict(trial.params),
        seed=attributes.get(SEED),
        parameters=attributes.get(PARAMETERS),
        macs=attributes.get(MACS),
        values_by_epoch=[] if passed_over else values_by_epoch(trial),
        seconds=None if passed_over else _seconds(trial),
        epoch_seconds=attributes.get(EPOCH_SECONDS),
        constraints=dict(trial.constraints),
        failure=attributes.get(FAILURE),
        interrupted=attributes.get(INTERRUPTED, 0),
        duplicate_of=attributes.get(DUPLICATE_OF),
        starting_point=attributes.get(STARTING_POINT),
        confirmations=attributes.get(CONFIRMATIONS, []),
        losses=attributes.get(LOSSES, []),
        started=_in_utc(trial.datetime_start),
        ended=_in_utc(trial.datetime_complete),
        device=attributes.get(DEVICE),
        versions=attributes.get(VERSIONS, {}),
        accumulation=attributes.get(ACCUMULATION, 1),
        infeasible=attributes.get(INFEASIBLE),
        foreign=passed_over,
    )


def _seconds(trial: FrozenTrial) -> float | None:
    """How long a trial was trained: the seconds of its epochs, by a clock that does not jump.

    Without epochs the time between start and end, by the wall clock, which may have been set meanwhile.
    """
    each = trial.user_attrs.get(EPOCH_SECONDS)
    if each is not None:
        return float(each) * len(trial.intermediate_values)
    return None if trial.duration is None else max(0.0, trial.duration.total_seconds())


def _in_utc(time: datetime | None) -> str | None:
    """Optuna gives local times that don't say so."""
    return None if time is None else time.astimezone(UTC).isoformat(timespec="milliseconds")


def study_folder_name(name: str, attributes: Mapping[str, Any]) -> str:
    """The name of the folder of a study's files: of its checkpoints, of its models, of its exports.

    It is stored in the study, so that a renamed study keeps it. Studies of before have none until they go on:
    their folder is called as they are.

    Args:
        name: the study's.
        attributes: the study's user attributes.
    """
    stored = attributes.get(STUDY_FOLDER)
    # A database may come from anywhere, and what is deleted with a study must lie where studies have theirs.
    if isinstance(stored, str) and stored == folder_name(stored, "study"):
        return stored
    return folder_name(name, "study")


def by_value(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The complete trials, the highest value of the search first; of equal ones, the first drawn."""
    complete = [trial for trial in trials if trial.value is not None]
    return sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number))


@dataclass(frozen=True)
class StudyRecord:
    """A stored study with its trials."""

    study: str
    definition: str | None
    direction: str
    fidelity: Fidelity | None
    data: dict[str, str] | None
    seed: int | None
    trials: Sequence[TrialRecord]
    folder: str
    """The name of the folder of its files; see `study_folder_name`."""

    @property
    def best(self) -> TrialRecord | None:
        """The first of `by_value`; None while no trial is complete."""
        return next(iter(by_value(self.trials)), None)

    def trial(self, number: int) -> TrialRecord:
        """The trial with a number.

        Raises:
            UsageError: the study has no such trial.
        """
        found = next((trial for trial in self.trials if trial.number == number), None)
        if found is None:
            there = f"its trials are 0 to {len(self.trials) - 1}" if self.trials else "it has no trials yet"
            raise UsageError(f"study {self.study!r} has no trial {number}; {there}.")
        return found

    def own_trial(self, number: int) -> TrialRecord:
        """The trial with a number, where only one of mc1opt's will do.

        Raises:
            UsageError: the study has no such trial, or it is passed over.
        """
        found = self.trial(number)
        if found.foreign:
            raise UsageError(
                f"trial {number} of study {self.study!r} is passed over: it is one {found.foreign}. Choose "
                "another one."
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """As `show --json` prints it."""
        return {
            "study": self.study,
            "definition": self.definition,
            "direction": self.direction,
            "fidelity": self.fidelity.model_dump() if self.fidelity else None,
            "data": self.data,
            "seed": self.seed,
            "trials": [asdict(trial) for trial in self.trials],
            "best": asdict(self.best) if self.best else None,
        }


def study_record(study: optuna.Study) -> StudyRecord:
    """The record of a stored study."""
    attributes = study.user_attrs
    fidelity = attributes.get(FIDELITY)
    return StudyRecord(
        study=study.study_name,
        definition=attributes.get(STUDY_DEFINITION),
        direction=study.direction.name.lower(),
        fidelity=Fidelity.model_validate(fidelity) if fidelity else None,
        data=attributes.get(DATA),
        seed=attributes.get(STUDY_SEED),
        trials=[trial_record(trial) for trial in study.get_trials(deepcopy=False)],
        folder=study_folder_name(study.study_name, attributes),
    )
