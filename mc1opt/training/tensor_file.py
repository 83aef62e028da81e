"""Named tensors in a safetensors file with a checksum, written atomically and durably.

A crash leaves the old file or the new one; later damage is noticed on reading. Reading a file executes
nothing. Not here: what the tensors are (`checkpoint.py`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from mc1opt.files import write_whole

CHECKSUM = "sha256"
"""Key in the header: the SHA-256 of everything else."""

_LENGTH_BYTES = 8  # the header of a safetensors file begins with its own length, little-endian


class TensorFileError(ValueError):
    """Why a file is not one that was written here: cut off, changed, or something else."""


@dataclass(frozen=True)
class TensorFile:
    """The content of a file."""

    tensors: dict[str, torch.Tensor]
    """Contiguous, on the CPU."""
    metadata: dict[str, str]
    """The texts of its header."""


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors and texts; returns when they are on disk.

    Args:
        path: the file, replaced atomically; its folder is made.
        tensors: in any memory format, on any device.
        metadata: texts for the file's header; the checksum is added.

    Raises:
        OSError: the file cannot be written, for example because the disk is full. An existing one stays.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, save(plain, metadata={**metadata, CHECKSUM: _checksum(plain, metadata)}))


def read_tensors(path: Path, *, checksum_required: bool = True) -> TensorFile:
    """Reads a file and verifies its checksum.

    Args:
        path: the file.
        checksum_required: whether to refuse a file without one, as other programs write it.

    Raises:
        FileNotFoundError, OSError: the file is missing or cannot be read.
        TensorFileError: it is damaged or not a safetensors file.
    """
    content = path.read_bytes()
    try:
        tensors = load(content)
        length = int.from_bytes(content[:_LENGTH_BYTES], "little")
        header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length])
    except (SafetensorError, ValueError, KeyError) as error:
        raise TensorFileError(f"it is cut off, damaged or not a safetensors file ({error})") from error
    metadata = dict(header.get("__metadata__") or {})
    checksum = metadata.pop(CHECKSUM, None)
    if checksum is None and checksum_required:
        raise TensorFileError("it has no checksum")
    if checksum is not None and checksum != _checksum(tensors, metadata):
        raise TensorFileError("it is damaged: its checksum does not match")
    return TensorFile(tensors, metadata)


def _checksum(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of texts, names, types, shapes and values, whatever their order in the file."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
