"""What W&B shall hold of a study, from stored records: runs of its best trials, its retrainings and itself.

Pure. Not here: where the records come from (`mc1opt.mirror.command`), and W&B (`mc1opt.mirror.writer`).
"""

import hashlib
import json
import math
import re
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mc1opt.data.cache import own_name
from mc1opt.database.records import Outcome, StudyRecord, TrialRecord, by_value
from mc1opt.display.progress import record_summary
from mc1opt.errors import ConfigError
from mc1opt.measurement.store import StoredTraining
from mc1opt.metric import Metric
from mc1opt.seeds import retrain_seed
from mc1opt.text import first_line, plural

TOP = 5
"""Best trials that are mirrored unless another number is given."""
LEADERBOARD = 100
"""Rows of the table in the study's run."""
NAME_IN_ID = 24
"""Characters of the study's name in an id, of which W&B allows 64."""
NAMED_SEEDS = 100
"""Seeds of retrainings that a run's name gives by number, as people know them; others by value."""
LONGEST = 128
"""Characters that W&B allows in the name of a run or a group."""
TRAINED: tuple[Outcome, ...] = ("complete", "pruned", "failed")
"""Outcomes of trials that were trained, at least in part."""

Scalar = bool | int | float | str
Row = dict[str, int | float]


@dataclass(frozen=True)
class AttachedFile:
    """A file that is uploaded with a run."""

    path: str
    """Absolute."""
    sha256: str


@dataclass(frozen=True)
class MirroredRun:
    """What one W&B run holds. All numbers are finite; unknown ones are left out."""

    id: str
    """The same whenever the same study, trial or training is mirrored."""
    name: str
    group: str
    """The study's name."""
    job_type: Literal["study", "trial", "retraining"]
    tags: tuple[str, ...]
    config: dict[str, Scalar]
    """Flat, and whole as JSON under `config_json`."""
    axis: Literal["epoch", "trial"]
    """The key in `history` against which the others are plotted."""
    history: tuple[Row, ...]
    summary: dict[str, Scalar]
    leaderboard: dict[str, list[Any]] | None = None
    """The best trials as a table: `columns` and `rows`; None where no trial is complete."""
    files: tuple[AttachedFile, ...] | None = None
    """Uploaded as one artifact, with curve and config; None for no artifact."""
    trial: int | None = None
    """The number of the trial that it shows, or whose config it trains again."""
    is_best: bool = False
    """Whether that trial is among the best now."""

    @property
    def failed(self) -> bool:
        """Whether it shows a training that ended without a result."""
        return self.summary.get("state") == "failed"

    @property
    def fingerprint(self) -> str:
        """A hash of everything but the files."""
        content = asdict(self)
        del content["files"]
        return hashlib.sha256(_json(content).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Retrained:
    """A training of a retraining."""

    stored: StoredTraining
    test_accuracy: float | None = None
    files: tuple[AttachedFile, ...] | None = None
    """See `MirroredRun`."""


def mirrored_runs(
    record: StudyRecord,
    identity: str,
    *,
    top: int = TOP,
    everything: bool = False,
    best_before: Collection[int] = (),
    retrained: Sequence[Retrained] = (),
    weights: Mapping[int, tuple[AttachedFile, ...]] | None = None,
    prefix: str | None = None,
) -> list[MirroredRun]:
    """What W&B shall hold of a study, the study's own run first.

    Args:
        record: the study with all its trials.
        identity: tells it from studies of the same name in other databases.
        top: how many of the best trials.
        everything: all trials that were trained, and failed trainings as well.
        best_before: trials that were among the best at an earlier mirroring. Those that have left are
            mirrored with another tag.
        retrained: the trainings of its retrainings. Those of unknown configs or on other images are left
            out: an earlier study of this name may have left them.
        weights: the files to upload with trials, by number; None for no artifacts.
        prefix: what the ids of its runs begin with, which stays when a study is renamed; None for its name.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", record.study).strip("-")[:NAME_IN_ID]
    ids = f"{prefix or plain or 'study'}-{short_identity(identity)}-"
    by_config: dict[str, TrialRecord] = {}
    for trial in record.trials:
        if trial.config_id is not None:
            by_config.setdefault(trial.config_id, trial)
    retrained = [
        entry
        for entry in retrained
        if entry.stored.key.config_id in by_config and _has_images(record, entry.stored.key.data)
    ]
    configs = {entry.stored.key.config_id for entry in retrained}
    best = {trial.number for trial in by_value(record.trials)[:top]}
    runs = [_study_run(record, ids)]
    for trial in record.trials:
        is_best = trial.number in best
        has_left = trial.number in best_before and trial.value is not None and not is_best
        if is_best or has_left or (everything and trial.outcome in TRAINED):
            holds = {
                "best": is_best,
                "left-the-best": has_left,
                "starting-point": trial.starting_point is not None,
                "confirmed": bool(trial.confirmations),
                "retrained": trial.config_id in configs,
                trial.outcome: trial.outcome != "complete",
            }
            tags = tuple(tag for tag, it_does in holds.items() if it_does)
            files = None if weights is None else weights.get(trial.number, ())
            runs.append(_trial_run(record, trial, ids, tags, files, is_best=is_best))
    return runs + [
        _retraining_run(record, entry, by_config[entry.stored.key.config_id], ids)
        for entry in retrained
        if entry.stored.failure is None or everything
    ]


def short_identity(identity: str) -> str:
    """The part of a study's identity that is in the ids of its runs."""
    return identity[:12]


def flat(value: Any, name: str = "") -> dict[str, Scalar]:
    """A nested value with one level of names: `optimizer/learning_rate`, `architecture/blocks/0/width`.

    W&B's filters find no name with a period. None, NaN and infinity are left out.
    """
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        return {name: value} if _is_known(value) else {}
    found: dict[str, Scalar] = {}
    for key, part in value.items():
        found |= flat(part, f"{name}/{key}" if name else str(key))
    return found


# ---- Runs ------------------------------------------------------------------------------------------------


def _study_run(record: StudyRecord, ids: str) -> MirroredRun:
    best, outcomes = record.best, [trial.outcome for trial in record.trials]
    return MirroredRun(
        id=f"{ids}study",
        name=record.study[:LONGEST],
        group=record.study[:LONGEST],
        job_type="study",
        tags=("study",),
        config=_about(record) | _known(definition=record.definition, seed=_exact(record.seed)),
        axis="trial",
        history=tuple(_best_so_far(record.trials)),
        summary={
            **_known(best_value=best.value if best else None, best_trial=best.number if best else None),
            **_known(best_accuracy=best.accuracy if best and not record.metric.is_accuracy else None),
            **{f"trials/{outcome}": outcomes.count(outcome) for outcome in TRAINED},
        },
        leaderboard=_leaderboard(record.trials),
    )


def _trial_run(
    record: StudyRecord,
    trial: TrialRecord,
    ids: str,
    tags: tuple[str, ...],
    files: tuple[AttachedFile, ...] | None,
    *,
    is_best: bool,
) -> MirroredRun:
    own = _known(trial=trial.number, starting_point=trial.starting_point, seed=_exact(trial.seed))
    return MirroredRun(
        id=f"{ids}trial-{trial.number}",
        name=f"{record.study} #{trial.number}"[-LONGEST:],
        group=record.study[:LONGEST],
        job_type="trial",
        tags=tags,
        config=_config(trial) | flat(trial.params, "params") | _about(record) | own,
        axis="epoch",
        history=_curve(record.metric, trial.values_by_epoch, trial.losses, trial.accuracies),
        summary=_beside(record.metric, trial.value, trial.accuracy)
        | _known(
            value=trial.value,
            state=trial.outcome,
            parameters=trial.parameters,
            macs=trial.macs,
            seconds=trial.seconds,
            epoch_seconds=trial.epoch_seconds,
            confirmed_mean=_confirmed_mean(trial),
            failure=_reason(trial.failure["kind"], trial.failure["message"]) if trial.failure else None,
        ),
        files=files,
        trial=trial.number,
        is_best=is_best,
    )


def _retraining_run(record: StudyRecord, entry: Retrained, trial: TrialRecord, ids: str) -> MirroredRun:
    stored, key, failure = entry.stored, entry.stored.key, entry.stored.failure
    digest = hashlib.sha256(_json(key.model_dump(mode="json")).encode()).hexdigest()[:12]
    kind = "fold" if key.fold else "comparison" if key.validation_images else "all-images"
    own = _known(
        trial=trial.number,
        seed=_exact(key.seed),
        epochs=key.fidelity.epochs,
        train_images=key.fidelity.train_images,
        validation_images=key.validation_images,
        fold=key.fold.index + 1 if key.fold else None,
        folds=key.fold.count if key.fold else None,
    )
    return MirroredRun(
        id=f"{ids}retrain-{digest}",
        name=f"{record.study} #{trial.number}, {_part(record, stored)}"[-LONGEST:],
        group=record.study[:LONGEST],
        job_type="retraining",
        tags=("retrained", kind, *(("failed",) if failure else ())),
        config=_config(trial) | _about(record) | own,
        axis="epoch",
        history=_curve(
            key.metric,
            [result.judged for result in stored.curve],
            [result.loss for result in stored.curve],
            [result.validation_accuracy for result in stored.curve],
        ),
        summary=_beside(key.metric, stored.value, stored.accuracy)
        | _known(
            value=stored.value,
            test_accuracy=entry.test_accuracy,
            state="failed" if failure else "complete",
            parameters=trial.parameters,
            macs=trial.macs,
            seconds=stored.seconds,
            failure=_reason(failure.kind, failure.message) if failure else None,
        ),
        files=entry.files,
        trial=trial.number,
    )


def _has_images(record: StudyRecord, sha256: str) -> bool:
    """Whether a training was on the study's images; an older mc1opt hashed own ones in another way."""
    data = record.data or {}
    return sha256 == data.get("sha256") or data.get("name") == own_name(sha256)


def _part(record: StudyRecord, stored: StoredTraining) -> str:
    """Which part of which retraining a training is; all folds have the same seed."""
    key = stored.key
    if key.fold is not None:
        part = f"fold {key.fold.index + 1} of {key.fold.count}"
    else:
        numbers = {retrain_seed(record.seed or 0, index): index + 1 for index in range(NAMED_SEEDS)}
        part = "retrained" if key.validation_images else "on all images"
        part += f", seed {numbers.get(key.seed, key.seed)}"
    return f"{part}, {plural(key.fidelity.epochs, 'epoch')}"


# ---- Contents --------------------------------------------------------------------------------------------


def _about(record: StudyRecord) -> dict[str, Scalar]:
    """What the configs of all runs of a study say."""
    fidelity = record.fidelity.model_dump() if record.fidelity else {}
    aim: dict[str, Any] = {**record.aim.constraints, "class_weights": record.aim.class_weights}
    if not record.metric.is_accuracy:
        aim |= {"metric": record.metric.name, "direction": record.metric.direction}
    return _known(study=record.study, data=(record.data or {}).get("name"), **aim, **fidelity)


def _config(trial: TrialRecord) -> dict[str, Scalar]:
    if trial.config is None:
        return {}
    return flat(trial.config) | _known(config_json=_json(trial.config), config_id=trial.config_id)


def _beside(metric: Metric, value: float | None, accuracy: float | None) -> dict[str, Scalar]:
    """The value under the metric's own name, and the accuracy; nothing where the value is that."""
    return {} if metric.is_accuracy else _known(**{metric.name: value, "accuracy": accuracy})


def _curve(
    metric: Metric,
    values: Sequence[float | None],
    losses: Sequence[float],
    accuracies: Sequence[float | None],
) -> tuple[Row, ...]:
    """A row for each epoch, counted from 1, with what is known of it."""
    columns: dict[str, Sequence[float | None]] = {"validation_accuracy": accuracies, "loss": losses}
    columns[f"validation_{metric.name}"] = values
    return tuple(
        {"epoch": index + 1}
        | {
            name: value
            for name, values in columns.items()
            if index < len(values) and (value := values[index]) is not None and math.isfinite(value)
        }
        for index in range(max(len(values), len(losses)))
    )


def _best_so_far(trials: Sequence[TrialRecord]) -> Iterable[Row]:
    best = -math.inf
    for trial in trials:
        if trial.value is not None:
            best = max(best, trial.score)
            yield {"trial": trial.number, "value": trial.value, "best_value": trial.scored(best)}


def _leaderboard(trials: Sequence[TrialRecord]) -> dict[str, list[Any]] | None:
    rows = [
        {
            "trial": trial.number,
            "value": trial.value,
            "confirmed_mean": _confirmed_mean(trial),
            "parameters": trial.parameters,
            "macs": trial.macs,
            "seconds": trial.seconds,
            "starting_point": trial.starting_point,
            "config": _summary(trial),
        }
        for trial in by_value(trials)[:LEADERBOARD]
    ]
    return {"columns": list(rows[0]), "rows": [list(row.values()) for row in rows]} if rows else None


def _summary(trial: TrialRecord) -> str:
    try:
        return record_summary(trial)
    except ConfigError:  # a newer mc1opt has written it
        return ""


def _confirmed_mean(trial: TrialRecord) -> float | None:
    values = [entry["value"] for entry in trial.confirmations if entry["value"] is not None]
    return statistics.fmean(values) if values else None


def _reason(kind: str, message: str) -> str:
    return f"{kind}: {first_line(message)}"


def _exact(seed: int | None) -> str | None:
    """A seed as text: a web page rounds numbers of 63 bits."""
    return None if seed is None else str(seed)


def _is_known(value: Any) -> bool:
    return isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _known(**values: Any) -> dict[str, Scalar]:
    """Of these values, those that are known."""
    return {name: value for name, value in values.items() if _is_known(value)}


def _json(content: Any) -> str:
    return json.dumps(content, sort_keys=True, allow_nan=False)
