"""Opening a model of any format with its runtime: a folder, ONNX, a program of `torch.export`, safetensors.

An opened model takes images as arrays, and returns logits and probabilities. Files that could execute code
are not opened: no pickle at all, and a pt2 file only if it is in the record of exports.
"""

import hashlib
import importlib
import io
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mc1opt.data.model_images import known_data
from mc1opt.dataset import Task
from mc1opt.errors import Mc1optError, ModelError
from mc1opt.inference.export_record import recorded_hashes
from mc1opt.machine.resources import available_cpus
from mc1opt.program import program
from mc1opt.spec import INFERENCE_BATCH
from mc1opt.text import first_line, plural
from mc1opt.training.model_folder import CONFIG, read_model_folder, stored_config, stored_task, weights_model

if TYPE_CHECKING:
    import torch

Images = NDArray[np.uint8]
Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]

METADATA = (
    "labels",
    "config",
    "config_id",
    "weights_sha256",
    "mc1opt",
    "study",
    "data",
    "precision",
    "shape",
)
"""Texts in an exported file. Labels, config, data and shape (channels and size) are JSON; the study's name
may be empty."""
INPUT = "images"
OUTPUTS = ("logits", "probabilities")
LARGEST = 1 << 30
"""Bytes of a file that is opened, at most; mc1opt's models have a thousandth of it."""


@dataclass(frozen=True)
class OpenModel:
    """A model that can be run."""

    path: Path
    format: str
    study: str
    """The study that it comes from; empty if unknown."""
    data: dict[str, str] | None
    """Name and SHA-256 of the images that it was trained on; None if unknown."""
    task: Task
    """The images that it takes, and their classes."""
    run: Callable[[Images], Outputs]
    """Images (uint8, N x C x H x W, RGB or grey) to logits and probabilities (float32, N x classes)."""

    def probabilities(self, images: Images) -> NDArray[np.float32]:
        """The probabilities (N x classes) of images (uint8, N x C x H x W, at least one).

        Raises:
            ModelError: it cannot be run on them, or its result is not N x classes finite numbers.
        """
        parts = []
        for first in range(0, len(images), INFERENCE_BATCH):
            batch = images[first : first + INFERENCE_BATCH]
            try:
                _, probabilities = self.run(batch)
            except Exception as error:  # whatever its own runtime raises
                raise ModelError(
                    f"{self.path} cannot be run on {plural(len(batch), 'image')}: {first_line(error)}"
                ) from error
            if probabilities.shape != (len(batch), self.task.classes) or not np.isfinite(probabilities).all():
                raise ModelError(
                    f"{self.path} gives probabilities that are not finite, or not {self.task.classes} for "
                    "each image."
                )
            parts.append(probabilities)
        return np.concatenate(parts)


def open_model(path: Path, record: Path) -> OpenModel:
    """Opens a model folder or an exported file, and runs it once on images of one colour.

    Args:
        path: the folder or file; the suffix is the format.
        record: the record of exports, for pt2 files.

    Raises:
        ModelError: it is missing, damaged, of another format or other classes, or it does not run.
        Mc1optError: packages for ONNX are missing.
    """
    opened = _open(path, record)
    for count in (1, 2):  # the batch size may be fixed
        opened.probabilities(np.full((count, *opened.task.image_shape), 127, dtype=np.uint8))
    return opened


def _open(path: Path, record: Path) -> OpenModel:
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise ModelError(f"there is no model {path}: give a model folder or an exported file.")
    if path.stat().st_size > LARGEST:
        raise ModelError(f"{path} has {path.stat().st_size:,} bytes; at most {LARGEST:,} are opened.")
    ending = path.suffix.lower()
    if ending == ".onnx":
        return open_onnx(path)
    if ending == ".pt2":
        return open_pt2(path, known=recorded_hashes(record, "pt2"), record=record)
    if ending == ".safetensors":
        return open_safetensors(path)
    raise ModelError(
        f"{path} is not opened: a model is a model folder, or a file .onnx, .safetensors or .pt2 that mc1opt "
        "exported. Pickles (.pt, .pth, .pkl) can execute code when they are read."
    )


def _open_folder(path: Path) -> OpenModel:
    folder = read_model_folder(path)
    study = folder.metrics.get("study")
    run = torch_runner(weights_model(folder.weights, folder.config, folder.task.shape))
    data = known_data(folder.metrics.get("data"))
    return OpenModel(path, "folder", study if isinstance(study, str) else "", data, folder.task, run)


def open_onnx(path: Path) -> OpenModel:
    """An ONNX file that mc1opt exported, in onnxruntime on the CPU.

    Raises:
        ModelError: it is damaged, refers to other files, or has other inputs, outputs or classes.
    """
    onnx, onnxruntime = onnx_package("onnx"), onnx_package("onnxruntime")
    content = _read(path)
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
    task = _task(path, metadata)
    try:
        onnx.checker.check_model(model, full_check=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = available_cpus()
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise ModelError(f"{path} cannot be run by onnxruntime: {error}") from error
    shapes = {value.name: (value.type, value.shape[1:]) for value in session.get_inputs()}
    if shapes != {INPUT: ("tensor(uint8)", [*task.image_shape])}:
        raise ModelError(f"{path} is no model of mc1opt: its inputs are {shapes}.")
    outputs = {value.name: (value.type, value.shape[1:]) for value in session.get_outputs()}
    if outputs != dict.fromkeys(OUTPUTS, ("tensor(float)", [task.classes])):
        raise ModelError(f"{path} is no model of mc1opt: its outputs are {outputs}.")

    def run(images: Images) -> Outputs:
        logits, probabilities = session.run(list(OUTPUTS), {INPUT: images})
        return logits, probabilities

    return _exported(path, "onnx", metadata, run)


def open_pt2(path: Path, *, known: Collection[str], record: Path | None = None) -> OpenModel:
    """A program of `torch.export` that mc1opt exported: reading another one could execute code in it.

    Args:
        path: the file.
        known: the SHA-256 of the files that may be opened.
        record: where these were read, for the message.

    Raises:
        ModelError: the file's SHA-256 is not among them, or it is of other classes.
    """
    content = _read(path)
    digest = hashlib.sha256(content).hexdigest()
    if digest not in known:
        raise ModelError(
            f"{path} (SHA-256 {digest[:12]}...) is not opened: a pt2 file can execute code, and this one is "
            f"not in the record of exports, {record}. Name the database beside which its record lies with "
            "--storage, export it here, or use its ONNX file or model folder."
        )
    import torch

    metadata = dict.fromkeys(METADATA, "")
    try:
        program = torch.export.load(io.BytesIO(content), extra_files=metadata)
    except Exception as error:  # torch's own; such as for a file of a newer torch
        raise ModelError(
            f"{path} cannot be read by torch {torch.__version__}: {first_line(error)}"
        ) from error
    metadata = {key: value.decode() if isinstance(value, bytes) else value for key, value in metadata.items()}
    return _exported(path, "pt2", metadata, _pair_runner(program.module()))


def open_safetensors(path: Path) -> OpenModel:
    """Exported weights with the config in their header, run in float32.

    Raises:
        ModelError: it is no safetensors file, or none that mc1opt exported.
    """
    from safetensors import SafetensorError, safe_open

    _read(path)  # without permission to read, safetensors would say "no such file"
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged, or no safetensors file: {error}") from error
    if "labels" not in metadata and {"config", "seed"} <= metadata.keys():
        if (path.parent / CONFIG).exists():
            raise ModelError(f"{path} is part of a model folder: give the folder, {path.parent}.")
        raise ModelError(
            f"{path} has the weights of a training, but no class names. `{program()} export --study NAME "
            "--trial NUMBER` exports the weights of a trial; the model of a retraining is its folder."
        )
    shape = _task(path, metadata).shape
    config = stored_config(str(path), _json(metadata, "config"), metadata.get("config_id"))
    return _exported(path, "safetensors", metadata, torch_runner(weights_model(path, config, shape)))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error


def torch_runner(network: "torch.nn.Module") -> Callable[[Images], Outputs]:
    """Runs a network whose outputs are logits."""
    from mc1opt.models.exported import Inference

    return _pair_runner(Inference(network))


def _pair_runner(module: "torch.nn.Module") -> Callable[[Images], Outputs]:
    import torch

    def run(images: Images) -> Outputs:
        with torch.inference_mode():
            logits, probabilities = module(torch.from_numpy(np.ascontiguousarray(images)))
        return logits.numpy(), probabilities.numpy()

    return run


def _exported(
    path: Path, format_: str, metadata: dict[str, str], run: Callable[[Images], Outputs]
) -> OpenModel:
    data = known_data(_json(metadata, "data"))
    return OpenModel(path, format_, metadata.get("study", ""), data, _task(path, metadata), run)


def _task(path: Path, metadata: dict[str, str]) -> Task:
    labels, shape = _json(metadata, "labels"), _json(metadata, "shape")
    if labels is None:
        raise ModelError(f"{path} is no model of mc1opt: it has no class names.")
    return stored_task(str(path), labels, shape if isinstance(shape, dict) else {})


def _json(metadata: dict[str, str], key: str) -> Any:
    """The content of a text; None where it is missing or no JSON."""
    try:
        return json.loads(metadata.get(key, ""))
    except (ValueError, RecursionError):
        return None


def _tensors(message: Any, kind: type) -> Iterator[Any]:
    """All tensors in an ONNX model: of initialisers, attributes, subgraphs, functions."""
    if isinstance(message, kind):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if hasattr(value, "__len__") else (value,):
                yield from _tensors(item, kind)


def onnx_package(name: str) -> Any:
    """One of the packages onnx, onnxruntime and onnxscript.

    Raises:
        Mc1optError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Mc1optError(
            f"ONNX needs the package {name}, which cannot be imported ({error}). Install it: "
            "pip install 'mc1opt[export]'"
        ) from error
