"""Weights on disk, in safetensors: a crash leaves the old file or the new one, never half of one."""

import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


def save_weights(model: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Writes parameters and buffers of a model, contiguous, on the CPU.

    Args:
        model: what to save.
        path: the file; its folder is made. It is replaced in one step.
        metadata: texts for the file's header, such as the config; "memory_format" is added, because tensors
            in channels_last order must be written contiguous and should run channels_last again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata={**metadata, "memory_format": "channels_last"})
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads what `save_weights` wrote into a model of the same config; names and shapes must match."""
    model.load_state_dict(load_file(path))
    model.to(memory_format=torch.channels_last)
