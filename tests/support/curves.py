"""Learning curves instead of training: cheap, deterministic, and with failures on request.

`train` stands in for `mc1opt.training.loop:train` in worker processes (`TRAINER` is its name), `CurvePool`
for the processes themselves. The accuracies are made up, but depend on the config as real ones do: there is a
best learning rate for each optimizer, wider and deeper is better with diminishing returns, batch norm, a
whitened stem, augmentation and more images help. So a search has something to find. No torch.

What a training does besides is decided by `Switches`: rules in a folder that an environment variable names,
so that they reach worker processes, also those that are running already.
"""

import contextlib
import hashlib
import json
import math
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from mc1opt.config import MLP, SGD, Config, ConvNet, LinearLayer, config_id
from mc1opt.dataset import DataSet
from mc1opt.spec import EpochResult, Fidelity, Training, TrainingFailed
from mc1opt.workers.engine import Engine
from mc1opt.workers.protocol import TrainingInterrupted
from mc1opt.workers.speed import SPEED_SEED

TRAINER = "tests.support.curves:train"
"""For `ProcessPool(trainer=...)`."""

SWITCHES_VARIABLE = "MC1OPT_TEST_SWITCHES"
"""Names the folder of the `Switches`; without it all trainings simply go well."""

NOISE = 0.004
"""Standard deviation of an epoch's accuracy between seeds."""


# ---- Curves ----------------------------------------------------------------------------------------------


def with_engine(options: dict[str, Any]) -> dict[str, Any]:
    """Options of which `workers` and `device` have become an engine."""
    given = {name: options[name] for name in options.keys() & {"workers", "device"}}
    rest = {name: value for name, value in options.items() if name not in given}
    return {**rest, "engine": Engine(**given)}


def example_training(
    *,
    seed: int = 0,
    epochs: int = 3,
    learning_rate: float = 0.1,
    width: int = 64,
    train_images: int = 1000,
    **changes: Any,
) -> Training:
    """A small training; `changes` are further fields of `Training`."""
    config = Config(
        architecture=MLP(layers=(LinearLayer(width=width),)),
        optimizer=SGD(learning_rate=learning_rate),
        batch_size=64,
    )
    data = DataSet(name="curves", folder="", sha256="0" * 64, train_images=50_000, validation_images=5_000)
    fields: dict[str, Any] = {"config": config, "seed": seed, "data": data}
    fields["fidelity"] = Fidelity(train_images=train_images, epochs=epochs)
    return Training(**(fields | changes))


def asymptote(config: Config, train_images: int) -> float:
    """The accuracy that endless training would give, between 0.1 and 0.97; no randomness."""
    architecture = config.architecture
    convolutional = isinstance(architecture, ConvNet)
    layers = architecture.blocks if convolutional else getattr(architecture, "layers", ())  # custom: none
    mean_width = sum(math.log2(layer.width) for layer in layers) / max(1, len(layers))
    norm = any(layer.norm == "batch" for layer in layers)
    score = 0.9 if convolutional else 0.0
    score += 0.5 * (1 - math.exp(-mean_width / 5)) + 0.4 * (1 - math.exp(-len(layers) / 3))
    score += 0.2 * norm
    score += 0.3 * (convolutional and architecture.stem.kind == "whitened")
    score += 0.1 * (bool(config.augmentation.flip) + (config.augmentation.crop > 0))
    score += 0.1 * (config.schedule.kind != "constant")
    score += 0.15 * math.log(train_images / 10_000)
    score -= 0.5 * _learning_rate_error(config) ** 2
    score -= 5 * (config.label_smoothing - 0.05) ** 2
    return 0.1 + 0.87 / (1 + math.exp(-score))


def accuracy(training: Training, epoch: int) -> float:
    """Validation accuracy after an epoch (from 0): asymptote * (1 - exp(-rate * (epoch + 1))) and noise."""
    rate = 0.3 + 0.5 * math.exp(-(_learning_rate_error(training.config) ** 2))
    rate *= math.sqrt(training.fidelity.train_images / 10_000)
    trained = training.fidelity.within_schedule(epoch)[0] + 1
    value = asymptote(training.config, training.fidelity.train_images) * (1 - math.exp(-rate * trained))
    fold = () if training.fold is None else (training.fold.index, training.fold.count)
    noise = NOISE * _normal(config_id(training.config), training.seed, epoch, *fold)
    return min(1.0, max(0.0, value + noise))


def curve(training: Training) -> list[EpochResult]:
    """All that `train` yields for this training if nothing happens to it."""
    return [_result(training, epoch) for epoch in range(training.fidelity.all_epochs)]


def _learning_rate_error(config: Config) -> float:
    """Distance from the best learning rate, in factors of ten."""
    best = 0.05 if config.optimizer.kind == "sgd" else 0.002
    return math.log10(config.optimizer.learning_rate / best)


def _result(training: Training, epoch: int) -> EpochResult:
    value = accuracy(training, epoch)
    validates = training.fold is not None or training.data.validation_images > 0
    metric, metric_value = training.metric, None
    if validates and not metric.is_accuracy:  # another metric says the same, in its own direction
        metric_value = value if metric.direction == "maximize" else 1.0 - value
    return EpochResult(
        epoch=epoch,
        loss=2.3 * (1 - value),
        validation_accuracy=value if validates else None,
        metric_value=metric_value,
        seconds=0.01,
    )


def _normal(*key: object) -> float:
    """A normally distributed number that depends on nothing but the key (Box and Muller, 1958)."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    first, second = (int.from_bytes(part, "big") / 2**64 for part in (digest[:8], digest[8:16]))
    return math.sqrt(-2 * math.log(1 - first)) * math.cos(2 * math.pi * second)


# ---- Switches --------------------------------------------------------------------------------------------

Action = Literal["sleep", "hang", "diverge", "raise", "out_of_memory", "crash", "kill", "print"]


class Rule(BaseModel):
    """What happens in the trainings that it matches, before an epoch's result."""

    action: Action
    """sleep: for `value` seconds. hang: for ever. diverge, raise: TrainingFailed, ValueError. out_of_memory:
    takes more than there is. crash: the process ends with exit code `value`. kill: with SIGKILL. print: to
    both standard streams, in every way."""
    seed: int | None = None
    """Only trainings with this seed."""
    config_id: str | None = None
    """Only trainings with this config."""
    epoch: int | None = 0
    """Before which epoch (from 0); None is before every one."""
    value: float = 0.0
    times: int | None = None
    """How often at most, over all processes."""


class Switches:
    """Rules for trainings and a record of them, in a folder, so that other processes see them.

    In a test: `switches = Switches(tmp_path)`, `monkeypatch.setenv(SWITCHES_VARIABLE, str(tmp_path))`, then
    `switches.add("kill", seed=3, epoch=1)`. A rule holds from the next epoch of any training on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, action: Action, **fields: Any) -> None:
        """Adds a rule; `fields` are those of `Rule`."""
        name = f"{time.monotonic_ns():020d}-{uuid.uuid4().hex}"
        unfinished = self.folder / f"{name}.new"
        unfinished.write_text(Rule(action=action, **fields).model_dump_json())
        unfinished.rename(self.folder / f"{name}.rule")

    def clear(self) -> None:
        """Removes all rules, not the record."""
        for path in self.folder.glob("*.rule"):
            path.unlink()

    def epochs(self) -> list[dict[str, Any]]:
        """The record: process id, seed, config id and epoch of each epoch that was begun, in that order."""
        with contextlib.suppress(FileNotFoundError):
            return [json.loads(line) for line in (self.folder / "epochs.jsonl").read_text().splitlines()]
        return []

    def wait_for_epochs(self, count: int, seconds: float = 60.0) -> list[dict[str, Any]]:
        """Waits until `count` epochs were begun."""
        deadline = time.monotonic() + seconds
        while len(epochs := self.epochs()) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(epochs)} of {count} epochs began within {seconds} seconds")
            time.sleep(0.01)
        return epochs

    def _begin(self, training: Training, epoch: int) -> list[Rule]:
        """Records an epoch, and gives the rules that hold for it."""
        identity = config_id(training.config)
        rules = []
        for path in sorted(self.folder.glob("*.rule")):
            rule = Rule.model_validate_json(path.read_text())
            matches = rule.seed in (None, training.seed) and rule.config_id in (None, identity)
            if matches and rule.epoch in (None, epoch) and self._claim(path, rule.times):
                rules.append(rule)
        # Last: who waits for this line may kill the process, and a rule must be used up by then.
        line = {"pid": os.getpid(), "seed": training.seed, "config_id": identity, "epoch": epoch}
        # One write in append mode: lines of several processes don't mix.
        with (self.folder / "epochs.jsonl").open("ab", buffering=0) as file:
            file.write(json.dumps(line).encode() + b"\n")
        return rules

    def _claim(self, path: Path, times: int | None) -> bool:
        """Counts a use of the rule over all processes; False if it was used up."""
        if times is None:
            return True
        for number in range(times):
            with contextlib.suppress(FileExistsError):
                path.with_suffix(f".used{number}").touch(exist_ok=False)
                return True
        return False


def _switches() -> Switches | None:
    folder = os.environ.get(SWITCHES_VARIABLE)
    return Switches(Path(folder)) if folder else None


# ---- The trainer -----------------------------------------------------------------------------------------


class _Process:
    """What rules do to a process of its own."""

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def crash(self, code: int) -> None:
        print("about to crash", file=sys.stderr, flush=True)
        os._exit(code)

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    def print(self) -> None:
        print("printed")
        print("{}", flush=True)
        os.write(1, b'written\n{"type":"finished"}\n')
        os.write(2, b"warned " * 20_000)  # more than a pipe holds


def train(training: Training) -> Iterator[EpochResult]:
    """The stand-in for `mc1opt.training.loop:train`, for worker processes: rules may end the process."""
    return _train(training, _Process())


def _train(training: Training, process: _Process) -> Iterator[EpochResult]:
    done = _epochs_in_checkpoint(training)
    results = curve(training)
    if training.weights is not None and done == len(results):
        # As in a real training: one that was killed after its last checkpoint has no weights yet.
        _save_weights(Path(training.weights), results[-1])
    yield from [result.model_copy(update={"restored": True}) for result in results[:done]]
    try:
        for result in _new_epochs(training, process, results[done:]):
            done = result.epoch + 1
            yield result
    except (KeyboardInterrupt, TrainingInterrupted):
        _write_checkpoint(training, done)
        raise


def _new_epochs(training: Training, process: _Process, results: list[EpochResult]) -> Iterator[EpochResult]:
    saved = time.monotonic()
    for result in results:
        # Rules are for a study's trainings, not for those that measure how fast the machine is.
        if training.seed != SPEED_SEED and (switches := _switches()) is not None:
            for rule in switches._begin(training, result.epoch):
                _apply(rule, process)
        if time.monotonic() - saved >= training.checkpoint_seconds:
            _write_checkpoint(training, result.epoch + 1)
            saved = time.monotonic()
        if training.weights is not None and result.epoch == training.fidelity.all_epochs - 1:
            _save_weights(Path(training.weights), result)
        yield result


def _write_checkpoint(training: Training, epochs: int) -> None:
    """A curve has no state but the number of its epochs. Written when a real training writes its own."""
    if training.checkpoint is None or epochs == 0:
        return
    path = Path(training.checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    content = {"seed": training.seed, "config_id": config_id(training.config), "epochs": epochs}
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def _epochs_in_checkpoint(training: Training) -> int:
    if training.checkpoint is None or not (path := Path(training.checkpoint)).exists():
        return 0
    content = json.loads(path.read_text())
    assert (content["seed"], content["config_id"]) == (training.seed, config_id(training.config))
    epochs: int = content["epochs"]
    return epochs


def _apply(rule: Rule, process: _Process) -> None:
    if rule.action == "sleep":
        process.wait(rule.value)
    elif rule.action == "hang":
        while True:
            process.wait(60)
    elif rule.action == "diverge":
        raise TrainingFailed("diverged", "the training loss is nan")
    elif rule.action == "raise":
        raise ValueError("raised on request")
    elif rule.action == "out_of_memory":
        bytearray(1 << 62)
    elif rule.action == "crash":
        process.crash(int(rule.value))
    elif rule.action == "kill":
        process.kill()
    elif rule.action == "print":
        process.print()


def _save_weights(path: Path, result: EpochResult) -> None:
    """A real safetensors file with one small tensor."""
    import numpy as np
    from safetensors.numpy import save

    path.parent.mkdir(parents=True, exist_ok=True)
    value = result.loss if result.validation_accuracy is None else result.validation_accuracy
    # Under the name that a killed training leaves, too: safetensors' own `save_file` leaves another one.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(save({"validation_accuracy": np.array([value])}))
    temporary.replace(path)


# ---- A pool without processes ----------------------------------------------------------------------------


class CurvePool:
    """A `Pool` whose trainings are curves in the calling threads: no start-up, no processes.

    Rules work as in processes; what would end a process fails the training as `ProcessPool` says it.
    """

    def __init__(self, size: int = 1) -> None:
        self.size = size
        self.closed = False
        self._free = threading.Semaphore(size)
        self._stopped = threading.Event()

    def __enter__(self) -> "CurvePool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def train(self, training: Training, on_epoch: Callable[[EpochResult], bool]) -> bool:
        while not self._free.acquire(timeout=0.02):
            self._raise_if_stopped()
        try:
            self._raise_if_stopped()
            epochs = _train(training, _Thread(self._stopped))
            while (result := self._next(epochs)) is not None:
                if not on_epoch(result):
                    return False
                if self._stopped.is_set():
                    with contextlib.suppress(KeyboardInterrupt):
                        epochs.throw(KeyboardInterrupt)
                if result.epoch < training.fidelity.epochs - 1:
                    self._raise_if_stopped()
            return True
        finally:
            self._free.release()

    def interrupt(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        self.closed = True
        self._stopped.set()

    def _next(self, epochs: Iterator[EpochResult]) -> EpochResult | None:
        try:
            return next(epochs, None)
        except (MemoryError, ValueError) as error:
            kind = "out_of_memory" if isinstance(error, MemoryError) else "crashed"
            raise TrainingFailed(kind, f"{type(error).__name__}: {error}") from error

    def _raise_if_stopped(self) -> None:
        if self._stopped.is_set():
            raise TrainingInterrupted("the pool was interrupted")


class _Thread(_Process):
    """What rules do where no process may end."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped

    def wait(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise TrainingInterrupted("the pool was interrupted")

    def crash(self, code: int) -> None:
        raise TrainingFailed("crashed", f"the worker ended with exit code {code}")

    def kill(self) -> None:
        raise TrainingFailed("killed", "the worker was ended by SIGKILL")

    def print(self) -> None:
        print("printed")
