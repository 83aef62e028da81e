"""Opening a model with the program that runs it: a folder, ONNX, a program of `torch.export`, safetensors.

Whatever the format, an opened model takes images as arrays and gives logits and probabilities. Files that
could execute code are not opened: no pickle at all, and a pt2 file only if the record of exports knows it.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mc1opt.config import CLASS_NAMES, CLASSES, IMAGE_CHANNELS, IMAGE_SIZE, config_from_json
from mc1opt.errors import ConfigError, ModelError
from mc1opt.results.export_formats import INPUT, OUTPUTS, onnx_package
from mc1opt.results.export_record import recorded_hashes
from mc1opt.results.model_folder import check_labels, read_model_folder, weights_model
from mc1opt.workers.resources import available_cpus

if TYPE_CHECKING:
    import torch

Images = NDArray[np.uint8]
Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]

METADATA = ("labels", "config", "config_id", "weights_sha256", "mc1opt", "study", "precision")
"""The texts that an exported file carries: labels and config as JSON, the study's name (may be empty)."""
LARGEST = 1 << 30
"""Bytes of the largest file that is opened; mc1opt's models have a thousandth of it."""


@dataclass(frozen=True)
class OpenModel:
    """A model that can be asked."""

    path: Path
    format: str
    study: str
    """The study that it comes from; empty if that is not known."""
    run: Callable[[Images], Outputs]
    """Images (uint8, N x 3 x 32 x 32, RGB) to logits and probabilities (float32, N x 10)."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return CLASS_NAMES


def open_model(path: Path, record: Path) -> OpenModel:
    """Opens a model folder or an exported file.

    Args:
        path: the folder or file; its ending says the format.
        record: the record of exports, for pt2 files.

    Raises:
        ModelError: it is missing, damaged, of other classes, or no file that is opened.
        Mc1optError: packages for ONNX are missing.
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise ModelError(f"there is no model {path}: give a model folder or an exported file.")
    if path.stat().st_size > LARGEST:
        raise ModelError(f"{path} has {path.stat().st_size:,} bytes; at most {LARGEST:,} are opened.")
    if path.suffix == ".onnx":
        return open_onnx(path)
    if path.suffix == ".pt2":
        return open_pt2(path, known=recorded_hashes(record, "pt2"), record=record)
    if path.suffix == ".safetensors":
        return open_safetensors(path)
    raise ModelError(
        f"{path} is not opened: a model is a model folder, or a file .onnx, .safetensors or .pt2 that mc1opt "
        "exported. Pickles (.pt, .pth, .pkl) can execute code when they are read."
    )


def _open_folder(path: Path) -> OpenModel:
    folder = read_model_folder(path)
    study = folder.metrics.get("study")
    run = torch_runner(weights_model(folder.weights, folder.config))
    return OpenModel(path, "folder", study if isinstance(study, str) else "", run)


def open_onnx(path: Path) -> OpenModel:
    """An ONNX file that mc1opt exported, in onnxruntime on the CPU.

    Raises:
        ModelError: it is damaged, refers to other files, or has other inputs, outputs or classes.
    """
    onnx, onnxruntime = onnx_package("onnx"), onnx_package("onnxruntime")
    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own, which is no ValueError
        raise ModelError(f"{path} is damaged, or no ONNX file: {error}") from error
    for tensor in _tensors(model, onnx.TensorProto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "?")
            raise ModelError(
                f"{path} keeps its weights in another file ({location}), which is not opened: mc1opt's "
                "exports are one file. Export the model again."
            )
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    _check_metadata(path, metadata)
    try:
        onnx.checker.check_model(model, full_check=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = available_cpus()
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise ModelError(f"{path} cannot be run by onnxruntime: {error}") from error
    shapes = {value.name: (value.type, value.shape[1:]) for value in session.get_inputs()}
    if shapes != {INPUT: ("tensor(uint8)", [IMAGE_CHANNELS, IMAGE_SIZE, IMAGE_SIZE])}:
        raise ModelError(f"{path} is no model of mc1opt: its inputs are {shapes}.")
    outputs = {value.name: (value.type, value.shape[1:]) for value in session.get_outputs()}
    if outputs != dict.fromkeys(OUTPUTS, ("tensor(float)", [CLASSES])):
        raise ModelError(f"{path} is no model of mc1opt: its outputs are {outputs}.")

    def run(images: Images) -> Outputs:
        logits, probabilities = session.run(list(OUTPUTS), {INPUT: images})
        return logits, probabilities

    return OpenModel(path, "onnx", metadata.get("study", ""), run)


def open_pt2(path: Path, *, known: set[str], record: Path | None = None) -> OpenModel:
    """A program of `torch.export` that mc1opt exported: reading another one could execute its code.

    Args:
        path: the file.
        known: the SHA-256 of the files that are opened.
        record: where they were read, for the message.

    Raises:
        ModelError: the file's SHA-256 is not known, or it is of other classes.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest not in known:
        raise ModelError(
            f"{path} (SHA-256 {digest[:12]}...) is not in the record of exports, {record}; reading a pt2 "
            "file can execute code: it is not opened. Export it here, or use its ONNX file or model folder."
        )
    import torch

    metadata = dict.fromkeys(METADATA, "")
    program = torch.export.load(io.BytesIO(content), extra_files=metadata)
    metadata = {key: value.decode() if isinstance(value, bytes) else value for key, value in metadata.items()}
    _check_metadata(path, metadata)
    return OpenModel(path, "pt2", metadata.get("study", ""), _pair_runner(program.module()))


def open_safetensors(path: Path) -> OpenModel:
    """Exported weights with the config in their header; they are computed with in float32.

    Raises:
        ModelError: it is no safetensors file, or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged, or no safetensors file: {error}") from error
    _check_metadata(path, metadata)
    try:
        config = config_from_json(json.loads(metadata["config"]))
    except (KeyError, ValueError, TypeError, ConfigError) as error:
        raise ModelError(f"{path} is no model of mc1opt: {error}") from error
    run = torch_runner(weights_model(path, config))
    return OpenModel(path, "safetensors", metadata.get("study", ""), run)


def torch_runner(network: "torch.nn.Module") -> Callable[[Images], Outputs]:
    """How to ask a network whose outputs are logits."""
    from mc1opt.models.inference import Inference

    return _pair_runner(Inference(network))


def _pair_runner(module: "torch.nn.Module") -> Callable[[Images], Outputs]:
    import torch

    def run(images: Images) -> Outputs:
        with torch.inference_mode():
            logits, probabilities = module(torch.from_numpy(np.ascontiguousarray(images)))
        return logits.numpy(), probabilities.numpy()

    return run


def _check_metadata(path: Path, metadata: dict[str, str]) -> None:
    try:
        labels = json.loads(metadata["labels"])
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"{path} is no model of mc1opt: it does not say the names of its classes."
        ) from error
    check_labels(labels, str(path))


def _tensors(message: Any, kind: type) -> Iterator[Any]:
    """All tensors in an ONNX model, wherever they are: initialisers, attributes, subgraphs, functions."""
    if isinstance(message, kind):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if hasattr(value, "__len__") else (value,):
                yield from _tensors(item, kind)
