"""A trial trained again from what is stored of it: is its curve the same?"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO, cast, get_args

from mc1opt.config import config_from_json
from mc1opt.data.libraries import check_libraries
from mc1opt.data.model_images import study_data
from mc1opt.database.location import models_folder
from mc1opt.database.records import StudyRecord, TrialRecord
from mc1opt.database.studies import read_study
from mc1opt.dataset import DataSet
from mc1opt.display.progress import ending, passed_over_lines
from mc1opt.errors import Mc1optError, UsageError
from mc1opt.files import append_line
from mc1opt.machine.devices import resolve_device
from mc1opt.machine.environment import versions
from mc1opt.measurement.store import REPEATABLE
from mc1opt.spec import Device, Precision, Training, TrainingFailed
from mc1opt.text import plural
from mc1opt.workers.pool import Pool, ProcessPool
from mc1opt.workers.train import train

REPLAYS = "replays.jsonl"
"""A line for each replay, in the folder of a study's models."""

Numbers = dict[str, float]
"""The metric's value of an epoch, and its loss where it is stored."""


@dataclass(frozen=True)
class Difference:
    """The first epoch in which two curves differ."""

    epoch: int
    """From 1."""
    stored: Numbers | None
    """None where the curve has ended."""
    replayed: Numbers | None


@dataclass(frozen=True)
class Replay:
    """What came of a replay."""

    study: str
    trial: int
    equal: bool | None
    """None where the curves cannot be compared, so that nothing was trained."""
    epochs: int
    """Epochs that were compared."""
    difference: Difference | None
    reason: str | None
    """Why the curves cannot be compared, or what else differs where they do."""
    diverged: bool = False
    """Whether the trial diverged in the next epoch."""

    def to_json(self) -> dict[str, Any]:
        """As `replay --json` prints it."""
        return asdict(self)

    def line(self) -> str:
        """In words."""
        name = f"Trial {self.trial} of study {self.study}"
        if self.equal is None:
            return f"{name} cannot be compared here: {self.reason}."
        if self.equal:
            same = f"the curve is equal, bit for bit, over {plural(self.epochs, 'epoch')}"
            again = f"it diverges again in epoch {self.epochs + 1}"
            parts = [same] * (self.epochs > 0) + [again] * self.diverged
            return f"{name}: {'; '.join(parts)}."
        assert self.difference is not None
        also = f" ({self.reason})" if self.reason else ""
        return (
            f"{name}: the curves differ from epoch {self.difference.epoch} on: stored "
            f"{_words(self.difference.stored)}, replayed {_words(self.difference.replayed)}{also}."
        )


def replay(
    storage: str,
    study: str,
    number: int,
    *,
    data: Path | None,
    output: TextIO,
    new_pool: Callable[[int], Pool] | None = None,
) -> Replay:
    """Trains a trial again with its stored config, seed, fidelity, precision and threads.

    Args:
        storage: the study database.
        study: the study's name.
        number: of the trial.
        data: files of the study's images; None for those in the cache.
        output: where progress is shown.
        new_pool: makes a pool of one worker for a number of threads.

    Raises:
        UsageError: there is no such trial, or it has no curve.
        DataError: the images are missing, or not the study's.
        StorageError: the result cannot be recorded.
        Mc1optError: the worker failed.
    """
    check_libraries()
    record = read_study(storage, study)
    for line in passed_over_lines(record.trials):
        print(line, file=output)
    trial = _trial(record, number)
    elsewhere = incomparable(trial)
    if elsewhere is not None:
        return Replay(study, number, None, 0, None, elsewhere)
    training = training_again(record, trial, study_data(record.study, record.data, data, output))
    stored = _stored_curve(trial)
    print(
        f"Training trial {number} again: {plural(len(stored), 'epoch')}, {training.fidelity.train_images:,} "
        f"images, seed {training.seed}.",
        file=output,
        flush=True,
    )
    make = new_pool or (lambda threads: ProcessPool(1, threads=threads))
    # A trial that diverged must diverge again: an epoch more than it had is a difference.
    diverged = trial.failure is not None
    curve, failure = _train(make(training.threads), training, len(stored) + diverged)
    difference = _first_difference(stored, curve)
    reason = None if difference is None else _what_else(trial, failure)
    done = Replay(study, number, difference is None, len(stored), difference, reason, diverged)
    time = datetime.now(UTC).isoformat(timespec="seconds")
    told = {"time": time, "config_id": trial.config_id, **done.to_json()}
    append_line(models_folder(storage, record.folder) / REPLAYS, told)
    return done


def _trial(record: StudyRecord, number: int) -> TrialRecord:
    trial = record.own_trial(number)
    again = trial.outcome in ("complete", "pruned") or (
        trial.failure is not None and trial.failure["kind"] in REPEATABLE
    )
    if not again or trial.config is None:
        raise UsageError(
            f"trial {number} of study {record.study!r} has no curve to compare ({ending(trial)}). Complete, "
            "pruned and diverged trials have one."
        )
    return trial


def _stored_curve(trial: TrialRecord) -> list[Numbers]:
    values = trial.values_by_epoch
    return [
        {trial.metric: value} | ({} if loss is None else {"loss": loss})
        for value, loss in itertools.zip_longest(values, trial.losses[: len(values)])
    ]


def _versions_here(trial: TrialRecord) -> dict[str, Any]:
    """The versions that the trial would have here."""
    then = trial.versions
    assert trial.config is not None
    return versions(
        then.get("threads", 1),
        then.get("precision", "float32"),
        cast(Device, trial.device),
        config_from_json(trial.config),
    )


def incomparable(trial: TrialRecord) -> str | None:
    """Why this machine cannot give the same curve, if it cannot."""
    then, now = trial.versions, _versions_here(trial)
    if then.get("torch") != now["torch"]:
        return f"it was trained with torch {then.get('torch')}, and this is torch {now['torch']}"
    if trial.device == "cpu" and then.get("cpu") != now["cpu"]:
        return f"it was trained on a CPU with {then.get('cpu')}, and this one has {now['cpu']}"
    try:
        resolve_device(trial.device or "")
    except UsageError:
        return f"it was trained on {trial.device}, which is not here"
    if "gpu" in then and "gpu" in now and then["gpu"] != now["gpu"]:
        return f"it was trained on {then['gpu']}, and this is {now['gpu']}"
    return None


def training_again(record: StudyRecord, trial: TrialRecord, data: DataSet) -> Training:
    """The training of a trial of mc1opt's, to its end: with its config, seed, precision and threads.

    Raises:
        UsageError: it was trained in a precision that this mc1opt does not know.
    """
    precision = trial.versions.get("precision", "float32")
    if precision not in get_args(Precision):
        raise UsageError(
            f"trial {trial.number} was trained in {precision!r}, which this mc1opt does not know."
        )
    assert trial.config is not None
    assert record.fidelity is not None
    assert trial.seed is not None
    return Training(
        config=config_from_json(trial.config),
        fidelity=record.fidelity,
        seed=trial.seed,
        data=data,
        device=cast(Device, trial.device),
        threads=trial.versions.get("threads", 1),
        precision=cast(Precision, precision),
        accumulation=trial.accumulation,
        metric=record.metric,
        class_weights=record.aim.class_weights,
    )


def _train(pool: Pool, training: Training, epochs: int) -> tuple[list[Numbers], str | None]:
    """The first epochs of a training, and its failure, if its config made it fail."""
    failure = None
    try:
        results = train(pool, training, lambda result: result.epoch + 1 < epochs).results
    except TrainingFailed as error:
        if error.kind not in REPEATABLE:
            raise Mc1optError(f"the replay failed ({error.kind}): {error.message}") from error
        results, failure = error.results, error.message
    finally:
        pool.close()
    return [{training.metric.name: result.value, "loss": result.loss} for result in results], failure


def _first_difference(stored: Sequence[Numbers], replayed: Sequence[Numbers]) -> Difference | None:
    for epoch, (before, now) in enumerate(itertools.zip_longest(stored, replayed), start=1):
        if before is None or now is None or any(now[name] != value for name, value in before.items()):
            return Difference(epoch, before, now)
    return None


def _what_else(trial: TrialRecord, failure: str | None) -> str | None:
    """What else is not as it was, where curves differ."""
    then = trial.versions
    now = _versions_here(trial).items()
    changed = [f"{key} was {then.get(key)}, is {value}" for key, value in now if then.get(key) != value]
    if trial.device != "cpu":
        changed.append(f"on {trial.device} equal curves are not promised")
    if failure is not None:
        changed.append(f"the replay failed: {failure}")
    return "; ".join(changed) or None


def _words(numbers: Numbers | None) -> str:
    if numbers is None:
        return "nothing"
    return ", ".join(f"{name} {value!r}" for name, value in numbers.items())
