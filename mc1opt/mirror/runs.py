"""From stored records to what W&B shall hold: runs of the best trials, of the retrainings, and of the study.

Pure. Not here: what a run is (`mc1opt.mirror.messages`), and where the records come from
(`mc1opt.mirror.command`).
"""

import functools
import hashlib
import json
import math
import re
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mc1opt.data.cache import own_name
from mc1opt.database.records import Outcome, StudyRecord, TrialRecord, by_value
from mc1opt.display.progress import record_summary
from mc1opt.errors import ConfigError
from mc1opt.measurement.store import StoredTraining
from mc1opt.mirror.ledger import short_identity
from mc1opt.mirror.messages import AttachedFile, Leaderboard, MirroredRun, Row, Scalar
from mc1opt.seeds import retrain_seed
from mc1opt.text import plural

LEADERBOARD = 100
"""Trials in the table of the study's run."""
NAME_IN_ID = 24
"""Characters of the study's name in an id: W&B allows 64 for all of it."""
NAMED_SEEDS = 100
"""How many seeds of retrainings are numbered, as people know them; another one is named by its value."""
LONGEST = 128
"""Characters of the name of a run or a group that W&B takes."""

TRAINED: tuple[Outcome, ...] = ("complete", "pruned", "failed")
"""Outcomes of trials that were trained, if not to their end."""


@dataclass(frozen=True)
class Retrained:
    """A training of a retraining."""

    stored: StoredTraining
    test_accuracy: float | None = None
    """What the one look at the test images gave for it."""
    files: tuple[AttachedFile, ...] | None = None
    """See `MirroredRun`."""


@dataclass(frozen=True)
class Selection:
    """Which trials are mirrored."""

    top: int = 5
    """How many of the best."""
    everything: bool = False
    """All that were trained, pruned and failed ones as well."""
    best_before: frozenset[int] = frozenset()
    """Those that were among the best at an earlier mirroring: one that no longer is gets another tag."""


def mirrored_runs(
    record: StudyRecord,
    identity: str,
    selection: Selection,
    retrained: Sequence[Retrained] = (),
    files: Mapping[int, Sequence[AttachedFile]] | None = None,
    called: str | None = None,
) -> list[MirroredRun]:
    """What W&B shall hold of a study, the study's own run first.

    Args:
        record: the study with all its trials.
        identity: tells it from studies of the same name in other databases.
        selection: which trials.
        retrained: the trainings of its retrainings; those of configs that it does not know, or on
            other images, are left out: a study that had this name before may have left them.
        files: what is uploaded with a trial, by its number; None for no artifacts.
        called: what the ids of its runs begin with, if there are any: a renamed study keeps its runs.
    """
    about = _Study(record, identity, retrained, called)
    best = {trial.number for trial in best_trials(record.trials, selection.top)}
    runs = [about.run()]
    for trial in record.trials:
        if _is_selected(trial, best, selection):
            tags = _tags(trial, best, selection.best_before, about.retrained_configs)
            attached = None if files is None else tuple(files.get(trial.number, ()))
            runs.append(about.trial(trial, tags, attached, is_best=trial.number in best))
    return runs + about.retrainings(failed_too=selection.everything)


def best_trials(trials: Iterable[TrialRecord], top: int) -> list[TrialRecord]:
    """The completed trials with the highest values, the earlier one of equals first."""
    return by_value(trials)[:top]


def flat(value: Any, name: str = "") -> dict[str, Scalar]:
    """A nested value as one level of names: `optimizer/learning_rate`, `architecture/blocks/0/width`.

    Not with periods, by which W&B's filters find nothing. None and what is not finite are left out.
    """
    if isinstance(value, Mapping):
        parts = {str(key): part for key, part in value.items()}
    elif isinstance(value, list | tuple):
        parts = {str(index): part for index, part in enumerate(value)}
    else:
        return {name: value} if _is_known(value) else {}
    found: dict[str, Scalar] = {}
    for key, part in parts.items():
        found |= flat(part, f"{name}/{key}" if name else key)
    return found


def _is_known(value: Any) -> bool:
    return isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _known(**values: Any) -> dict[str, Scalar]:
    """Of these values, those that are known."""
    return {name: value for name, value in values.items() if _is_known(value)}


def _is_selected(trial: TrialRecord, best: Collection[int], selection: Selection) -> bool:
    if selection.everything and trial.outcome in TRAINED:
        return True
    return trial.number in best or (trial.number in selection.best_before and trial.value is not None)


def _tags(
    trial: TrialRecord, best: Collection[int], best_before: Collection[int], retrained: Collection[str]
) -> tuple[str, ...]:
    holds = {
        "best": trial.number in best,
        "left-the-best": trial.number in best_before and trial.number not in best,
        "starting-point": trial.starting_point is not None,
        "confirmed": bool(trial.confirmations),
        "retrained": trial.config_id in retrained,
        trial.outcome: trial.outcome != "complete",
    }
    return tuple(tag for tag, it_does in holds.items() if it_does)


class _Study:
    """Makes runs of what belongs to a study."""

    def __init__(
        self, record: StudyRecord, identity: str, retrained: Sequence[Retrained], called: str | None
    ) -> None:
        self.record = record
        self.identity = identity
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", record.study).strip("-")[:NAME_IN_ID]
        self.called = called or plain or "study"
        self._by_config: dict[str, TrialRecord] = {}
        for trial in record.trials:
            if trial.config_id is not None:
                self._by_config.setdefault(trial.config_id, trial)
        self._retrained = [
            entry
            for entry in retrained
            if entry.stored.key.config_id in self._by_config and self._has_images(entry.stored.key.data)
        ]

    def _has_images(self, sha256: str) -> bool:
        """Whether a training was on the study's images; an older mc1opt hashed own ones in another way."""
        data = self.record.data or {}
        return sha256 == data.get("sha256") or data.get("name") == own_name(sha256)

    @property
    def retrained_configs(self) -> set[str]:
        """The ids of the configs that were trained again."""
        return {entry.stored.key.config_id for entry in self._retrained}

    def run(self) -> MirroredRun:
        """The study's own run."""
        record, fidelity, best = self.record, self.record.fidelity, self.record.best
        outcomes = [trial.outcome for trial in record.trials]
        return MirroredRun(
            id=self._id("study"),
            name=record.study[:LONGEST],
            group=record.study[:LONGEST],
            job_type="study",
            tags=("study",),
            config=_known(
                study=record.study,
                definition=record.definition,
                seed=_exact(record.seed),
                epochs=fidelity.epochs if fidelity else None,
                train_images=fidelity.train_images if fidelity else None,
                data=(record.data or {}).get("name"),
            ),
            axis="trial",
            history=tuple(_best_so_far(record.trials)),
            summary={
                **_known(best_value=best.value if best else None, best_trial=best.number if best else None),
                **{f"trials/{outcome}": outcomes.count(outcome) for outcome in TRAINED},
            },
            leaderboard=_leaderboard(record.trials),
        )

    def trial(
        self,
        trial: TrialRecord,
        tags: tuple[str, ...],
        files: tuple[AttachedFile, ...] | None,
        *,
        is_best: bool,
    ) -> MirroredRun:
        """A trial's run."""
        record, fidelity, failure = self.record, self.record.fidelity, trial.failure
        return MirroredRun(
            id=self._id(f"trial-{trial.number}"),
            name=f"{record.study} #{trial.number}"[-LONGEST:],
            group=record.study[:LONGEST],
            job_type="trial",
            tags=tags,
            config={
                **_config(trial),
                **flat(trial.params, "params"),
                **_known(
                    study=record.study,
                    trial=trial.number,
                    starting_point=trial.starting_point,
                    seed=_exact(trial.seed),
                    epochs=fidelity.epochs if fidelity else None,
                    train_images=fidelity.train_images if fidelity else None,
                    data=(record.data or {}).get("name"),
                ),
            },
            axis="epoch",
            history=_curve(trial.values_by_epoch, trial.losses),
            summary=_known(
                value=trial.value,
                state=trial.outcome,
                parameters=trial.parameters,
                macs=trial.macs,
                seconds=trial.seconds,
                epoch_seconds=trial.epoch_seconds,
                confirmed_mean=_confirmed_mean(trial),
                failure=None if failure is None else _reason(failure["kind"], failure["message"]),
            ),
            files=files,
            trial=trial.number,
            is_best=is_best,
        )

    def retrainings(self, *, failed_too: bool) -> list[MirroredRun]:
        """A run for each training of the retrainings, in the order in which they ended."""
        runs = []
        for entry in self._retrained:
            trial = self._by_config[entry.stored.key.config_id]
            if entry.stored.failure is None or failed_too:
                runs.append(self._retraining(entry, trial, f"#{trial.number}, {self._part(entry.stored)}"))
        return runs

    def _part(self, stored: StoredTraining) -> str:
        """Which part of which retraining a training is; folds have all one seed."""
        key = stored.key
        if key.fold is not None:
            part = f"fold {key.fold.index + 1} of {key.fold.count}"
        else:
            part = "retrained" if key.validation_images else "on all images"
            part += f", seed {self._seed_numbers.get(key.seed, key.seed)}"
        return f"{part}, {plural(key.fidelity.epochs, 'epoch')}"

    @functools.cached_property
    def _seed_numbers(self) -> dict[int, int]:
        """The numbers that people know the first seeds by."""
        return {retrain_seed(self.record.seed or 0, index): index + 1 for index in range(NAMED_SEEDS)}

    def _retraining(self, entry: Retrained, trial: TrialRecord, place: str) -> MirroredRun:
        stored, key, failure = entry.stored, entry.stored.key, entry.stored.failure
        digest = hashlib.sha256(json.dumps(key.model_dump(mode="json"), sort_keys=True).encode())
        fold = "fold" if key.fold else "comparison" if key.validation_images else "all-images"
        return MirroredRun(
            id=self._id(f"retrain-{digest.hexdigest()[:12]}"),
            name=f"{self.record.study} {place}"[-LONGEST:],
            group=self.record.study[:LONGEST],
            job_type="retraining",
            tags=("retrained", fold, *(("failed",) if failure else ())),
            config={
                **_config(trial),
                **_known(
                    study=self.record.study,
                    trial=trial.number,
                    seed=_exact(key.seed),
                    epochs=key.fidelity.epochs,
                    train_images=key.fidelity.train_images,
                    validation_images=key.validation_images,
                    fold=key.fold.index + 1 if key.fold else None,
                    folds=key.fold.count if key.fold else None,
                    data=(self.record.data or {}).get("name"),
                ),
            },
            axis="epoch",
            history=_curve(
                [result.validation_accuracy for result in stored.curve],
                [result.loss for result in stored.curve],
            ),
            summary=_known(
                value=stored.value,
                test_accuracy=entry.test_accuracy,
                state="complete" if failure is None else "failed",
                parameters=trial.parameters,
                macs=trial.macs,
                seconds=stored.seconds,
                failure=None if failure is None else _reason(failure.kind, failure.message),
            ),
            files=entry.files,
            trial=trial.number,
        )

    def _id(self, part: str) -> str:
        """An id from what was stored once: a name alone may be given in two databases."""
        return f"{self.called}-{short_identity(self.identity)}-{part}"


def _best_so_far(trials: Sequence[TrialRecord]) -> Iterable[Row]:
    """A row for each completed trial: its value, and the best one until then."""
    best = 0.0
    for trial in trials:
        if trial.value is not None:
            best = max(best, trial.value)
            yield {"trial": trial.number, "value": trial.value, "best_value": best}


def _leaderboard(trials: Sequence[TrialRecord]) -> Leaderboard | None:
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
        for trial in best_trials(trials, LEADERBOARD)
    ]
    if not rows:
        return None
    return Leaderboard(columns=tuple(rows[0]), rows=tuple(tuple(row.values()) for row in rows))


def _summary(trial: TrialRecord) -> str:
    try:
        return record_summary(trial)
    except ConfigError:  # a newer mc1opt has written it
        return ""


def _config(trial: TrialRecord) -> dict[str, Scalar]:
    """A trial's config, flat, and as the JSON that can be read back."""
    if trial.config is None:
        return {}
    text = json.dumps(trial.config, sort_keys=True)
    return {**flat(trial.config), "config_json": text, **_known(config_id=trial.config_id)}


def _exact(seed: int | None) -> str | None:
    """A seed as text: a web page would round a number of 63 bits."""
    return None if seed is None else str(seed)


def _confirmed_mean(trial: TrialRecord) -> float | None:
    values = [entry["value"] for entry in trial.confirmations if entry["value"] is not None]
    return statistics.fmean(values) if values else None


def _reason(kind: str, message: str) -> str:
    return f"{kind}: {message.strip().split(chr(10))[0]}"


def _curve(accuracies: Sequence[float | None], losses: Sequence[float]) -> tuple[Row, ...]:
    """A row an epoch, counted from 1, with what is known of it."""
    rows = []
    for index in range(max(len(accuracies), len(losses))):
        row: Row = {"epoch": index + 1}
        for name, values in (("validation_accuracy", accuracies), ("loss", losses)):
            value = values[index] if index < len(values) else None
            if value is not None and math.isfinite(value):
                row[name] = value
        rows.append(row)
    return tuple(rows)
