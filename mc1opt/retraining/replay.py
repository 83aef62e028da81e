"""A trial trained again from what is stored of it: is its curve what it was?"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast, get_args

from mc1opt.config import config_from_json
from mc1opt.data.libraries import check_libraries
from mc1opt.database import records
from mc1opt.database.opening import load_study, open_storage
from mc1opt.database.records import study_record
from mc1opt.display.progress import ending, passed_over_lines
from mc1opt.errors import Mc1optError, UsageError
from mc1opt.machine.devices import resolve_device
from mc1opt.machine.environment import versions
from mc1opt.measurement.store import REPEATABLE, Failure
from mc1opt.retraining.comparison import study_data
from mc1opt.spec import DataSet, Device, EpochResult, Fidelity, Precision, Training, TrainingFailed
from mc1opt.text import plural
from mc1opt.workers.memory import train
from mc1opt.workers.pool import Pool, ProcessPool

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Difference:
    """The first epoch in which two curves differ."""

    epoch: int
    """Counted from 1, as people do."""
    stored: dict[str, float] | None
    """Validation accuracy, and the loss where it is stored; None where the curve has ended."""
    replayed: dict[str, float] | None


@dataclass(frozen=True)
class Replay:
    """What came of a replay."""

    study: str
    trial: int
    equal: bool | None
    """None where nothing was trained, because it could not be compared."""
    epochs: int
    """Epochs that were compared."""
    difference: Difference | None
    reason: str | None
    """Why it could not be compared; or what else differs, where the curves do."""
    diverged: bool = False
    """Whether the trial diverged, in the epoch after those that were compared."""

    def to_json(self) -> dict[str, Any]:
        """As `replay --json` prints it."""
        return asdict(self)

    def line(self) -> str:
        """In words."""
        name = f"Trial {self.trial} of study {self.study}"
        if self.equal is None:
            return f"{name} cannot be compared here: {self.reason}."
        if self.equal:
            again = f"it diverges again in epoch {self.epochs + 1}"
            if self.epochs == 0:
                return f"{name}: {again}."
            same = f"the curve is equal, bit for bit, over {plural(self.epochs, 'epoch')}"
            return f"{name}: {same}; {again}." if self.diverged else f"{name}: {same}."
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
        number: the trial's.
        data: other files of the study's images.
        output: where progress is shown.
        new_pool: makes the worker for a number of threads; tests put a cheap one in its place.

    Raises:
        UsageError: there is no such trial, or it has no curve.
        DataError: the images are missing, or not the study's.
        Mc1optError: the worker failed.
    """
    check_libraries()
    loaded = load_study(open_storage(storage, create=False), study)
    for line in passed_over_lines(study_record(loaded).trials):
        print(line, file=output)
    trial = _trial(loaded, number)
    stored = _stored_curve(trial)
    elsewhere = _elsewhere(trial)
    if elsewhere is not None:
        return Replay(study, number, None, 0, None, elsewhere)
    training = _training(trial, study_data(study_record(loaded), data, output))
    print(
        f"Training trial {number} again: {plural(len(stored), 'epoch')}, {training.fidelity.train_images:,} "
        f"images, seed {training.seed}.",
        file=output,
        flush=True,
    )
    make = new_pool or (lambda threads: ProcessPool(1, threads=threads))
    # A trial that diverged must diverge again: an epoch more than it had is a difference.
    diverged = records.FAILURE in trial.user_attrs
    epochs = len(stored) + diverged
    curve, failure = _train(make(training.threads), training, epochs)
    difference = _first_difference(stored, [_numbers(result) for result in curve])
    reason = None if difference is None else _what_else(trial, failure)
    return Replay(study, number, difference is None, len(stored), difference, reason, diverged)


def _trial(study: "Study", number: int) -> "FrozenTrial":
    record = study_record(study).own_trial(number)
    trial = study.get_trials(deepcopy=False)[number]
    again = record.outcome in ("complete", "pruned") or (
        record.failure is not None and record.failure["kind"] in REPEATABLE
    )
    if not again or record.config is None:
        raise UsageError(
            f"trial {number} of study {study.study_name!r} has no curve to compare ({ending(record)}). "
            "Complete, pruned and diverged trials have one."
        )
    return trial


def _stored_curve(trial: "FrozenTrial") -> list[dict[str, float]]:
    """Accuracy by epoch, and the loss where it is stored."""
    losses = trial.user_attrs.get(records.LOSSES, [])
    values = records.values_by_epoch(trial)
    return [
        {"accuracy": value} | ({} if loss is None else {"loss": loss})
        for value, loss in itertools.zip_longest(values, losses[: len(values)])
    ]


def _elsewhere(trial: "FrozenTrial") -> str | None:
    """Why this machine cannot give the same curve, if it cannot."""
    then = trial.user_attrs[records.VERSIONS]
    device: Device = trial.user_attrs[records.DEVICE]
    now = versions(then.get("threads", 1), then.get("precision", "float32"), device)
    if then.get("torch") != now["torch"]:
        return f"it was trained with torch {then.get('torch')}, and this is torch {now['torch']}"
    if device == "cpu" and then.get("cpu") != now["cpu"]:
        return f"it was trained on a CPU with {then.get('cpu')}, and this one has {now['cpu']}"
    try:
        resolve_device(device)
    except UsageError:
        return f"it was trained on {device}, which is not here"
    if "gpu" in then and "gpu" in now and then["gpu"] != now["gpu"]:
        return f"it was trained on {then['gpu']}, and here is {now['gpu']}"
    return None


def _training(trial: "FrozenTrial", data: DataSet) -> Training:
    attributes = trial.user_attrs
    environment = attributes[records.VERSIONS]
    precision = environment.get("precision", "float32")
    if precision not in get_args(Precision):
        raise UsageError(
            f"trial {trial.number} was trained in {precision!r}, which this mc1opt does not know."
        )
    return Training(
        config=config_from_json(attributes[records.CONFIG]),
        fidelity=Fidelity.model_validate(attributes[records.FIDELITY]),
        seed=attributes[records.SEED],
        data=data,
        device=attributes[records.DEVICE],
        threads=environment.get("threads", 1),
        precision=cast(Precision, precision),
        accumulation=attributes.get(records.ACCUMULATION, 1),
    )


def _train(pool: Pool, training: Training, epochs: int) -> tuple[Sequence[EpochResult], Failure | None]:
    """The first so many epochs of the training, and its failure, if its config made it fail."""
    try:
        return train(pool, training, lambda result: result.epoch + 1 < epochs).results, None
    except TrainingFailed as error:
        if error.kind not in REPEATABLE:
            raise Mc1optError(f"the replay failed ({error.kind}): {error.message}") from error
        return error.results, Failure(kind=error.kind, message=error.message)
    finally:
        pool.close()


def _first_difference(
    stored: Sequence[dict[str, float]], replayed: Sequence[dict[str, float]]
) -> Difference | None:
    for epoch, (before, now) in enumerate(itertools.zip_longest(stored, replayed), start=1):
        if before is None or now is None or any(now[name] != value for name, value in before.items()):
            return Difference(epoch, before, now)
    return None


def _numbers(result: EpochResult) -> dict[str, float]:
    return {"accuracy": result.accuracy, "loss": result.loss}


def _what_else(trial: "FrozenTrial", failure: Failure | None) -> str | None:
    """What else is not as it was, where curves differ."""
    then = trial.user_attrs[records.VERSIONS]
    device = trial.user_attrs[records.DEVICE]
    now = versions(then.get("threads", 1), then.get("precision", "float32"), device)
    changed = [
        f"{name} was {then.get(name)}, is {value}" for name, value in now.items() if then.get(name) != value
    ]
    if device != "cpu":
        changed.append(f"on {device} equal curves are not promised")
    if failure is not None:
        changed.append(f"the replay failed: {failure.message}")
    return "; ".join(changed) or None


def _words(numbers: dict[str, float] | None) -> str:
    if numbers is None:
        return "nothing"
    return ", ".join(f"{name} {value!r}" for name, value in numbers.items())
