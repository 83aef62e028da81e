"""The attributes of stored trials, and the records that are read from them and from studies.

The database is the only memory of a search: results come from these records, never from a live trial.
"""

import contextlib
import functools
import json
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from mc1opt.config import SCHEMA_VERSION, config_from_json
from mc1opt.database import study_attributes
from mc1opt.database.memory import once_a_trial
from mc1opt.database.rows import rows
from mc1opt.dataset import Task
from mc1opt.errors import ConfigError, UsageError
from mc1opt.metric import ACCURACY, Aim, Direction, Metric, score
from mc1opt.spec import Fidelity

# ---- User attributes of a trial; those of a study are in `study_attributes` ------------------------------

CONFIG = "config"
"""The config as JSON, with its schema version."""
CONFIG_ID = "config_id"
"""The config's identity (`mc1opt.config.config_id`)."""
SEED = "seed"
"""The trial's seed: a hash of the study's seed and the trial's number."""
FIDELITY = "fidelity"
"""{"train_images": ..., "epochs": ...}."""
DATA, TASK = "data", "task"
"""{"name": ..., "sha256": ...} of the training images; of a study also their `Task`, as JSON."""
PARAMETERS = "parameters"
"""Trainable parameters."""
MACS = "macs"
"""Multiply-accumulates per image."""
EPOCH_SECONDS = "epoch_seconds"
"""Mean seconds of an epoch, with validation."""
LOSSES = "losses"
"""Training loss by epoch, a list."""
METRIC = "metric"
"""{"name": ..., "direction": ...} of the value and the reports, where they are not accuracies."""
ACCURACIES = "accuracies"
"""Validation accuracy by epoch, a list, beside another metric."""
DEVICE = "device"
"""cpu, cuda or mps."""
VERSIONS = "versions"
"""Versions of mc1opt, Python, torch, optuna; the CPU's capability; threads per worker."""
COMMIT = "commit"
"""The commit of mc1opt's checkout, or null."""
OWNER = "owner"
"""The process that runs the trial; see `this_owner`."""
INTERRUPTED = "interrupted"
"""Number of times that the trial was set back to waiting."""
STALLED = "stalled"
"""{"times": ..., "epochs": ...}: consecutive deaths of owners without a new epoch."""
ACCUMULATION = "accumulation"
"""Number of micro-batches per batch after running out of memory."""
FAILURE = "failure"
"""{"kind": ..., "message": ...} of a training that ended without a result."""
DUPLICATE_OF = "duplicate_of"
"""The number of the trial that trains or trained the same config at this fidelity."""
STARTING_POINT = "starting_point"
"""The name of the trial's starting point."""
DRAWN = "drawn"
"""How the sampler came to the parameters: "1 change from #41: batch_size 64 -> 96"."""
CONFIRMATIONS = "confirmations"
"""[{"seed": ..., "value": ...}, ...]: trainings of the config with new seeds; complete ones also have
"accumulation", except older ones, whose accumulation is the trial's, and "accuracy" beside another metric."""
CONFIRMING = "confirming"
"""[{"seed": ..., "owner": ...}, ...]: the processes that train it again, dead ones among them."""
CONFIRMING_STEPS = "confirming_steps"
"""{seed: accumulation} of confirmations that ran out of memory, unfinished ones included."""
SUMMARY = "summary"
"""The config in one line, for people: see `mc1opt.describe`."""
INFEASIBLE = "infeasible"
"""The search space's reason, or "", why the parameters are infeasible; also the constraint's name."""
OUTCOME = "outcome"
"""The trial's outcome, for people who use other programs. Written before the trial is told, so an unfinished
trial may have it; the function `outcome` decides."""

TOO_LARGE = "too_large"
"""The constraint (`trial.set_constraint`) that limits multiply-accumulates."""
TOO_MANY_PARAMETERS = "too_many_parameters"
"""The constraint that limits parameters. For people, both are "too large"."""
FAILED = "failed"
"""The constraint that a config violates if its training fails."""

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

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys((CONFIG, FIDELITY, VERSIONS, STALLED, FAILURE, CONFIRMING_STEPS, METRIC), dict),
    **dict.fromkeys((CONFIG_ID, DEVICE, STARTING_POINT, INFEASIBLE), str),
    **dict.fromkeys((SEED, PARAMETERS, MACS, INTERRUPTED, ACCUMULATION, DUPLICATE_OF), int),
    **dict.fromkeys((LOSSES, ACCURACIES, CONFIRMATIONS, CONFIRMING), list),
    EPOCH_SECONDS: (int, float),
}
"""The types of the attributes that are read; the others are for people."""


@once_a_trial
def foreign(trial: FrozenTrial) -> str:
    """Why a trial is foreign, in words that follow the noun; empty for a trial of mc1opt's.

    Other programs may add, run and end trials of a study; their values are not comparable, so these trials
    are passed over. mc1opt's trials have an owner from the start, and their value is their last report. A
    waiting trial is never foreign: it will be trained, whoever enqueued it.
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
    """What is wrong with a stored config (JSON), in the words of `foreign`."""
    content = json.loads(stored) or {}
    with contextlib.suppress(ConfigError):
        config_from_json(content)
        return ""
    version = content.get("schema_version")
    newer = type(version) is int and version > SCHEMA_VERSION
    return "with a config that a newer mc1opt wrote" if newer else "with a damaged config"


def own_trials(study: optuna.Study, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
    """The trials of a study in these states, without foreign ones; not to be modified."""
    return [trial for trial in study.get_trials(deepcopy=False, states=states) if not foreign(trial)]


@once_a_trial
def outcome(trial: FrozenTrial) -> Outcome:
    """The outcome of a trial. It distinguishes five kinds of Optuna's PRUNED."""
    if foreign(trial):
        return "foreign"
    if trial.state in _PLAIN_OUTCOMES:
        return _PLAIN_OUTCOMES[trial.state]
    if trial.state == TrialState.FAIL or FAILURE in trial.user_attrs:
        return "failed"
    if INFEASIBLE in trial.user_attrs:
        return "infeasible"
    if trial.user_attrs.get(DUPLICATE_OF) is not None:
        return "duplicate"
    exceeded = any(trial.constraints.get(key, 0.0) > 0.0 for key in (TOO_LARGE, TOO_MANY_PARAMETERS))
    return "too_large" if exceeded else "pruned"


def is_counted(trial: FrozenTrial) -> bool:
    """Whether a trial counts towards `--trials`: it is complete or pruned."""
    return outcome(trial) in ("complete", "pruned")


def values_by_epoch(trial: FrozenTrial) -> list[float]:
    """The reported values, by epoch."""
    return [value for _, value in sorted(trial.intermediate_values.items())]


@dataclass(frozen=True)
class TrialRecord:
    """A stored trial, as in `show --json`."""

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
    """Training loss by epoch; empty during training."""
    started: str | None = None
    """Last start of its training, in UTC (ISO 8601)."""
    ended: str | None = None
    device: str | None = None
    versions: dict[str, Any] = field(default_factory=dict)
    """See `mc1opt.machine.environment.versions`."""
    accumulation: int = 1
    """Number of micro-batches per batch; 1 for whole batches."""
    drawn: str | None = None
    infeasible: str | None = None
    """Why the parameters are infeasible; empty if the search space gives no reason."""
    foreign: str = ""
    """See `foreign`; a foreign trial's record has no value, reports or attributes."""
    metric: str = "accuracy"
    """What `value` and `values_by_epoch` are."""
    direction: Direction = "maximize"
    accuracies: list[float] = field(default_factory=list)
    """Validation accuracy by epoch beside another metric; empty during training."""

    @property
    def score(self) -> float:
        """The value as a number of which larger is better; that of a trial without a value is the least."""
        return -math.inf if self.value is None else self.scored(self.value)

    def scored(self, value: float) -> float:
        """A value of its metric as a number of which larger is better."""
        return score(value, self.direction)

    @property
    def accuracy(self) -> float | None:
        """The validation accuracy at the end; None if it is not known."""
        if self.metric == ACCURACY.name:
            return self.value
        return self.accuracies[-1] if self.accuracies and self.value is not None else None


def trial_record(trial: FrozenTrial) -> TrialRecord:
    """The record of a stored trial; missing fields are None, 0 or empty."""
    passed_over = foreign(trial)
    attributes = {} if passed_over else trial.user_attrs
    metric = attributes.get(METRIC, {})
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        outcome=outcome(trial),
        # Optuna also stores the last report of a pruned trial as its value.
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
        drawn=attributes.get(DRAWN),
        infeasible=attributes.get(INFEASIBLE),
        foreign=passed_over,
        metric=metric.get("name", ACCURACY.name),
        direction="minimize" if metric.get("direction") == "minimize" else "maximize",
        accuracies=attributes.get(ACCURACIES, []),
    )


def _seconds(trial: FrozenTrial) -> float | None:
    """Seconds of a trial's epochs, on a monotonic clock.

    Without epochs, seconds from start to end on the wall clock, which may have been set meanwhile.
    """
    each = trial.user_attrs.get(EPOCH_SECONDS)
    if each is not None:
        return float(each) * len(trial.intermediate_values)
    return None if trial.duration is None else max(0.0, trial.duration.total_seconds())


def _in_utc(time: datetime | None) -> str | None:
    """Converts Optuna's naive local time."""
    return None if time is None else time.astimezone(UTC).isoformat(timespec="milliseconds")


def by_value(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The complete trials by value, the best first; of equal values, the lowest number first."""
    complete = [trial for trial in trials if trial.value is not None]
    return sorted(complete, key=lambda trial: (-trial.score, trial.number))


@dataclass(frozen=True)
class StudyRecord:
    """A stored study with its trials; `folder` is its `study_folder_name`."""

    study: str
    definition: str | None
    direction: str
    fidelity: Fidelity | None
    data: dict[str, str] | None
    task: Task
    seed: int | None
    trials: Sequence[TrialRecord]
    folder: str
    aim: Aim = field(default_factory=Aim)
    begun_from: study_attributes.BegunFrom | None = None

    @property
    def metric(self) -> Metric:
        """What the values of its trials are."""
        return self.aim.metric

    @property
    def best(self) -> TrialRecord | None:
        """The first of `by_value`; None if no trial is complete."""
        return next(iter(by_value(self.trials)), None)

    def trial(self, number: int) -> TrialRecord:
        """The trial with a number.

        Raises:
            UsageError: the study has no such trial.
        """
        found = next((trial for trial in self.trials if trial.number == number), None)
        if found is None:
            known = f"its trials are 0 to {len(self.trials) - 1}" if self.trials else "it has no trials yet"
            raise UsageError(f"study {self.study!r} has no trial {number}; {known}.")
        return found

    def own_trial(self, number: int) -> TrialRecord:
        """The trial with a number, which must be mc1opt's.

        Raises:
            UsageError: the study has no such trial, or it is foreign.
        """
        found = self.trial(number)
        if found.foreign:
            raise UsageError(
                f"trial {number} of study {self.study!r} is passed over: it is one {found.foreign}. Choose "
                "another one."
            )
        return found

    def rows(self) -> list[dict[str, Any]]:
        """A flat dict for each trial: `pandas.DataFrame(study.rows())`. See `mc1opt.database.rows`."""
        return rows(self.trials)

    def to_json(self) -> dict[str, Any]:
        """The output of `show --json`."""
        return {
            "study": self.study,
            "definition": self.definition,
            "direction": self.direction,
            "metric": self.metric.name,
            "class_weights": self.aim.class_weights,
            "constraints": self.aim.constraints,
            "fidelity": self.fidelity.model_dump() if self.fidelity else None,
            "data": self.data,
            "seed": self.seed,
            "from": asdict(self.begun_from) if self.begun_from else None,
            "trials": [asdict(trial) for trial in self.trials],
            "best": asdict(self.best) if self.best else None,
        }


def study_record(study: optuna.Study) -> StudyRecord:
    """The record of a stored study."""
    attributes = study.user_attrs
    fidelity = attributes.get(FIDELITY)
    return StudyRecord(
        study=study.study_name,
        definition=attributes.get(study_attributes.STUDY_DEFINITION),
        direction=study.direction.name.lower(),
        fidelity=Fidelity.model_validate(fidelity) if fidelity else None,
        data=attributes.get(DATA),
        task=Task.model_validate(attributes.get(TASK, {})),
        seed=attributes.get(study_attributes.STUDY_SEED),
        trials=[trial_record(trial) for trial in study.get_trials(deepcopy=False)],
        folder=study_attributes.study_folder_name(study.study_name, attributes),
        aim=study_attributes.aim_of(attributes),
        begun_from=study_attributes.begun_from(attributes),
    )
