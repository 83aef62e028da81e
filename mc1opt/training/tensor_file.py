"""Named tensors in a safetensors file: replaced in one step, on disk when that is done, with a checksum.

A crash leaves the old file or the new one, never half of one; what damages a file later is noticed when it is
read. Nothing in it can run: it is numbers and texts. Not here: what the tensors are (`checkpoint.py`).
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
"""The text of the header that holds the SHA-256 of everything else."""

_LENGTH_BYTES = 8  # the header of a safetensors file begins with its own length, little-endian


class TensorFileError(ValueError):
    """A file is not what was written: cut off, changed, or something else altogether. Says what is wrong."""


@dataclass(frozen=True)
class TensorFile:
    """What a file holds."""

    tensors: dict[str, torch.Tensor]
    """Contiguous, on the CPU."""
    metadata: dict[str, str]
    """The texts of its header."""


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors and texts, and waits until they are on disk.

    Args:
        path: the file; its folder is made. It is replaced in one step.
        tensors: in any memory format, on any device.
        metadata: texts for the file's header; the checksum is added.

    Raises:
        OSError: the file cannot be written, because the disk is full, for example. The old one stays.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, save(plain, metadata={**metadata, CHECKSUM: _checksum(plain, metadata)}))


def read_tensors(path: Path, *, checksum_required: bool = True) -> TensorFile:
    """Reads a file and compares its checksum.

    Args:
        path: the file.
        checksum_required: whether a file without one is refused; other programs write none.

    Raises:
        FileNotFoundError, OSError: there is no such file, or it cannot be read.
        TensorFileError: it is damaged, or no safetensors file.
    """
    content = path.read_bytes()
    try:
        tensors = load(content)
        length = int.from_bytes(content[:_LENGTH_BYTES], "little")
        header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length])
    except (SafetensorError, ValueError, KeyError) as error:
        raise TensorFileError(f"it is cut off, damaged or no safetensors file ({error})") from error
    metadata = dict(header.get("__metadata__") or {})
    checksum = metadata.pop(CHECKSUM, None)
    if checksum is None and checksum_required:
        raise TensorFileError("it has no checksum")
    if checksum is not None and checksum != _checksum(tensors, metadata):
        raise TensorFileError("it is damaged: its checksum is not that of its content")
    return TensorFile(tensors, metadata)


def _checksum(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of texts, names, types, shapes and values; the order in the file does not matter."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
