"""Weights on disk, and checkpoints from which a training resumes.

A checkpoint is one safetensors file: weights, buffers and optimizer state; and, as JSON in its header, the
training it belongs to and the results of the epochs so far, whose number gives the place in the schedule. It
needs no state of random generators: every epoch draws from its own seed. Not here: files (`tensor_file.py`)
and training itself (`loop.py`).
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from mc1opt import __version__
from mc1opt.config import config_to_json
from mc1opt.machine.devices import bfloat16_instructions
from mc1opt.models.custom import CUSTOM
from mc1opt.spec import EpochResult, Training
from mc1opt.training.tensor_file import TensorFileError, read_tensors, write_tensors

logger = logging.getLogger(__name__)

CHECKPOINT_FORMAT = 1
"""Version of a checkpoint's content and names. Others are not read."""

_BELONGS_TO = "training"
_RESULTS = "results"
_WEIGHTS = "model."
_AVERAGED = "averaged."
_OPTIMIZER = "optimizer."
_CURVE: TypeAdapter[list[EpochResult]] = TypeAdapter(list[EpochResult])

State = dict[str, torch.Tensor]
"""Tensors of a network and its optimizer, by name."""


# ---- Weights ---------------------------------------------------------------------------------------------


def save_weights(model: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Writes a model's parameters and buffers, contiguous, from the CPU.

    Args:
        model: what to save.
        path: the file, replaced atomically; its folder is made.
        metadata: texts for the file's header, such as the config. A checksum is added, and "memory_format",
            because channels_last tensors must be written contiguous and should run channels_last again.

    Raises:
        OSError: the file cannot be written; an existing one stays.
    """
    write_tensors(path, model.state_dict(), {**metadata, "memory_format": "channels_last"})


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads weights written by `save_weights` into a model of the same config.

    Raises:
        FileNotFoundError, OSError: the file is missing or cannot be read.
        TensorFileError: it is damaged or not a safetensors file.
        RuntimeError: names or shapes do not match the model.
    """
    model.load_state_dict(read_tensors(path, checksum_required=False).tensors)


# ---- State of a network and its optimizer ----------------------------------------------------------------


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer, averaged: nn.Module | None = None) -> State:
    """Weights, buffers and optimizer state by name: the tensors themselves, not copies.

    Includes the averaged network unless it is the model itself.
    """
    state = _weights(model, averaged)
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"{_OPTIMIZER}{key}.{name}"] = value
    return state


def _weights(model: nn.Module, averaged: nn.Module | None) -> State:
    state = {f"{_WEIGHTS}{name}": tensor for name, tensor in model.state_dict().items()}
    if averaged is not None and averaged is not model:
        state |= {f"{_AVERAGED}{name}": tensor for name, tensor in averaged.state_dict().items()}
    return state


def set_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    keys: Sequence[str],
    state: State,
    averaged: nn.Module | None = None,
) -> None:
    """Copies a state, as from `state_of` for the same config, into a network and its optimizer.

    Args:
        model: keeps its device and memory format.
        optimizer: of that model.
        keys: state that the optimizer keeps for each parameter, e.g. "momentum_buffer".
        state: what to copy.
        averaged: the averaged network, if there is one.

    Raises:
        ValueError: names, shapes or types do not match the network; nothing has changed then.
    """
    trainable = {
        name: parameter
        for name, parameter in model.named_parameters()
        # What a custom network has and does not use gets no gradient, and so no state.
        if parameter.requires_grad
        and (not name.startswith(f"{CUSTOM}.") or any(f"{_OPTIMIZER}{key}.{name}" in state for key in keys))
    }
    weights = _weights(model, averaged)
    expected = {name: _kind(tensor) for name, tensor in weights.items()}
    for name, parameter in trainable.items():
        for key in keys:
            # The number of steps, a float32 scalar, is the only state not shaped like its parameter.
            shape = torch.Size() if key == "step" else parameter.shape
            expected[f"{_OPTIMIZER}{key}.{name}"] = (shape, parameter.dtype)
    found = {name: _kind(tensor) for name, tensor in state.items()}
    if found != expected:
        names = expected.keys() | found.keys()
        first = min(name for name in names if expected.get(name) != found.get(name))
        raise ValueError(f"its tensors do not match this network: {first}, for one")
    with torch.no_grad():
        for name, tensor in weights.items():
            tensor.copy_(state[name])
    names_of = {parameter: name for name, parameter in trainable.items()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    by_index = {
        index: {key: _like(parameter, state[f"{_OPTIMIZER}{key}.{names_of[parameter]}"]) for key in keys}
        for index, parameter in enumerate(parameters)
        if parameter in names_of
    }
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": by_index if keys else {}, "param_groups": groups})


def _like(parameter: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
    """In the parameter's memory format, which fused optimizers expect."""
    if stored.shape != parameter.shape:  # the number of steps, whose device the optimizer chooses
        return stored
    return torch.empty_like(parameter, requires_grad=False).copy_(stored)


def _kind(tensor: torch.Tensor) -> tuple[torch.Size, torch.dtype]:
    return tensor.shape, tensor.dtype


# ---- Checkpoints -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkpoint:
    """A training at the end of an epoch."""

    state: State
    results: tuple[EpochResult, ...]
    """Of all epochs so far."""


class CheckpointError(Exception):
    """Why a training cannot resume from a checkpoint."""


def save_checkpoint(path: Path, training: Training, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint atomically; returns when it is on disk.

    Raises:
        OSError: it cannot be written.
    """
    metadata = {
        _BELONGS_TO: json.dumps(_identity(training), sort_keys=True),
        _RESULTS: _CURVE.dump_json(list(checkpoint.results)).decode(),
    }
    write_tensors(path, checkpoint.state, metadata)


def load_checkpoint(path: Path, training: Training) -> Checkpoint | None:
    """Reads the checkpoint of a training; None if there is none. `set_state` checks whether its tensors fit.

    Raises:
        CheckpointError: the file cannot be read, is damaged or not a checkpoint (a pickle is not opened), or
            belongs to another training, mc1opt, torch or CPU capability.
    """
    try:
        file = read_tensors(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"it cannot be read: {error.strerror or error}") from error
    except TensorFileError as error:
        raise CheckpointError(str(error)) from error
    _check_identity(file.metadata.get(_BELONGS_TO), training)
    try:
        results = _CURVE.validate_json(file.metadata.get(_RESULTS, ""))
    except ValidationError as error:
        raise CheckpointError("its results cannot be read") from error
    if not 0 < len(results) <= training.fidelity.all_epochs or any(
        result.epoch != epoch for epoch, result in enumerate(results)
    ):
        raise CheckpointError("its results are not those of the first epochs")
    return Checkpoint(file.tensors, tuple(results))


def _identity(training: Training) -> dict[str, Any]:
    """Everything that a learning curve depends on."""
    left_out: Any = {
        "config": True,
        "weights": True,
        "checkpoint": True,
        "checkpoint_seconds": True,
        "data": {"name", "folder"},
        "metric": {"path"},
    }
    return {
        **training.model_dump(mode="json", exclude=left_out),
        "config": config_to_json(training.config),
        "format": CHECKPOINT_FORMAT,
        "mc1opt": __version__,
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability()
        + bfloat16_instructions(training.device, training.precision, training.config),
    }


def _check_identity(text: str | None, training: Training) -> None:
    try:
        stored = json.loads(text or "")
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        raise CheckpointError("it does not say which training it belongs to")
    expected = _identity(training)
    missing = object()
    different = [
        name
        for name in sorted(expected.keys() | stored.keys())
        if expected.get(name, missing) != stored.get(name, missing)
    ]
    if different:
        raise CheckpointError(f"it belongs to a training with another {', '.join(different)}")


class CheckpointWriter:
    """Writes checkpoints of a training: at ends of epochs, at most one every `checkpoint_seconds`.

    Between two of them it keeps the state at the last epoch's end in memory, for an interruption.

    Args:
        training: names the file and the interval; nothing is kept or written without a file.
        state: returns the state of the network and its optimizer, as `state_of` does.
    """

    def __init__(self, training: Training, state: Callable[[], State]) -> None:
        self._training = training
        self._state = state
        self._last = time.monotonic()
        self._unwritten: Checkpoint | None = None
        self._warned = False

    def epoch_ended(self, results: Sequence[EpochResult]) -> None:
        """Writes a checkpoint if one is due, else keeps the state in memory.

        A checkpoint that cannot be written is a warning; the training continues.
        """
        if self._training.checkpoint is None:
            return
        self._unwritten = Checkpoint(self._state(), tuple(results))
        if time.monotonic() - self._last >= self._training.checkpoint_seconds:
            self.write()
        else:
            copies = {name: tensor.detach().clone() for name, tensor in self._unwritten.state.items()}
            self._unwritten = Checkpoint(copies, self._unwritten.results)

    def write(self) -> None:
        """Writes the state at the last epoch's end, unless it is on disk already."""
        if self._unwritten is None or self._training.checkpoint is None:
            return
        path = Path(self._training.checkpoint)
        try:
            save_checkpoint(path, self._training, self._unwritten)
        except OSError as error:
            if not self._warned:
                self._warned = True
                logger.warning(
                    "the checkpoint %s cannot be written: %s. The training continues; if interrupted, it "
                    "starts over.",
                    path,
                    error.strerror or error,
                )
        self._unwritten = None
        self._last = time.monotonic()
