"""Writing, checking and loading a model folder.

    model.safetensors    the weights
    config.json          the config, its id, the SHA-256 of the weights, mc1opt's version, and the shape of
                         the images if it is not CIFAR-10's
    labels.json          the names of the classes, in the order of the logits
    metrics.json         what was measured
    model_card.md        the same, for people

Not here: what is measured and what the card says (`mc1opt.retraining.retrain`), and other formats
(`mc1opt.export.export`). Reading a folder executes nothing: it holds no pickle.
"""

import hashlib
import json
import math
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mc1opt import __version__
from mc1opt.config import Config, config_from_json, config_id, config_to_json
from mc1opt.dataset import DataShape, Task
from mc1opt.errors import ConfigError, ModelError, UsageError, describe_validation_error
from mc1opt.models.cost import cost

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
LABELS = "labels.json"
METRICS = "metrics.json"
CARD = "model_card.md"
FILES = (WEIGHTS, LABELS, METRICS, CARD, CONFIG)
"""In the order in which they are replaced: the config, which holds the weights' hash, comes last."""
SHAPE = ("channels", "size")
"""Of the images, in the config's file; CIFAR-10's where they are missing."""


@dataclass(frozen=True)
class ModelFolder:
    """A complete model folder."""

    path: Path
    config: Config
    task: Task
    metrics: dict[str, Any]
    weights_sha256: str

    @property
    def weights(self) -> Path:
        """The file of the weights."""
        return self.path / WEIGHTS


def write_model_folder(
    folder: Path,
    weights: Path,
    config: Config,
    task: Task,
    metrics: dict[str, Any],
    card: str,
    *,
    force: bool = False,
) -> ModelFolder:
    """Writes a model folder; other files in it stay.

    A new folder appears atomically. In an existing one each file is replaced atomically, the config last: a
    reader in between finds weights that do not match the config, never a wrong model.

    Args:
        folder: the model folder.
        weights: the safetensors file to copy.
        config: the trained config.
        task: the images and classes that it was trained for.
        metrics: JSON values.
        card: Markdown.
        force: whether to replace an existing model.

    Raises:
        UsageError: there is a model, and `force` was not given.
        ModelError: the folder cannot be written.
    """
    there = [name for name in FILES if (folder / name).exists()]
    if there and not force:
        raise UsageError(f"{folder} holds a model already ({', '.join(there)}); --force replaces it.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _fill(staging, weights, config, task, metrics, card)
            if not folder.exists():
                staging.chmod(0o755)
                staging.rename(folder)
            else:
                for name in FILES:
                    (staging / name).replace(folder / name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise ModelError(f"the model folder {folder} cannot be written: {error}") from error
    return read_model_folder(folder)


def _fill(
    folder: Path, weights: Path, config: Config, task: Task, metrics: dict[str, Any], card: str
) -> None:
    shutil.copyfile(weights, folder / WEIGHTS)
    description = {
        "config": config_to_json(config),
        "config_id": config_id(config),
        "weights_sha256": file_sha256(folder / WEIGHTS),
        "mc1opt": __version__,
        **task.model_dump(mode="json", exclude={"class_names"}),
    }
    for name, content in ((CONFIG, description), (LABELS, list(task.class_names)), (METRICS, metrics)):
        (folder / name).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    (folder / CARD).write_text(card)
    for name in FILES:
        with (folder / name).open("rb+") as file:
            os.fsync(file.fileno())


def read_model_folder(folder: Path) -> ModelFolder:
    """Reads and checks a model folder; compares the weights with their hash, without loading them.

    Raises:
        ModelError: files are missing or damaged, or the config is of a newer mc1opt.
    """
    if not folder.is_dir():
        raise ModelError(f"there is no model folder {folder}.")
    missing = [name for name in (CONFIG, LABELS, METRICS, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"the model folder {folder} is incomplete: {', '.join(missing)} missing.")
    description = _read_json(folder / CONFIG, dict)
    labels = _read_json(folder / LABELS, list)
    metrics = _read_json(folder / METRICS, dict)
    config = stored_config(str(folder / CONFIG), description.get("config"), description.get("config_id"))
    task = stored_task(str(folder), labels, {key: description[key] for key in SHAPE if key in description})
    try:
        digest = file_sha256(folder / WEIGHTS)
    except OSError as error:
        raise ModelError(f"{folder / WEIGHTS} cannot be read: {error.strerror}.") from error
    if digest != description.get("weights_sha256"):
        raise ModelError(
            f"{folder / WEIGHTS} is damaged or of another model: its SHA-256 is {digest[:12]}..., not that "
            f"of {CONFIG}. Make the model again."
        )
    return ModelFolder(folder, config, task, metrics, digest)


def stored_config(what: str, content: Any, identity: Any) -> Config:
    """A model's config from a stored value, checked against its id.

    Args:
        what: the file, for messages.
        content: the config as JSON values; see `config_to_json`.
        identity: the stored `config_id`.

    Raises:
        ModelError: it is not a config, is of a newer mc1opt, or was changed.
    """
    if not isinstance(content, dict):
        raise ModelError(f"{what} is damaged or not of an mc1opt model: it holds no config.")
    try:
        config = config_from_json(content)
    except ConfigError as error:
        raise ModelError(f"{what}: {error}") from error
    if config_id(config) != identity:
        raise ModelError(
            f"{what} is damaged or was changed: its config is {config_id(config)}, and not {identity}. "
            "Make the model again."
        )
    return config


def load_model(path: str | Path) -> "nn.Module":
    """Loads the model of a folder: in evaluation mode, on the CPU, in channels_last memory format.

    It maps images (uint8, N x C x H x W, RGB or grey) to logits (N x classes, in the order of labels.json);
    it includes the normalisation.

    Raises:
        ModelError: the folder is missing or damaged, or of a newer mc1opt.
    """
    folder = read_model_folder(Path(path))
    return weights_model(folder.weights, folder.config, folder.task.shape)


def weights_model(weights: Path, config: Config, shape: DataShape) -> "nn.Module":
    """The network of a config for images of this shape with these weights, as `load_model` gives it.

    Raises:
        ModelError: the file is missing, not safetensors, or of another config; or its weights are not finite.
    """
    import torch
    from safetensors import SafetensorError

    from mc1opt.models.build import build_model
    from mc1opt.training.checkpoint import load_weights

    try:
        _refuse_too_few(weights, config, shape)
        model = build_model(config.architecture, shape)
        load_weights(model, weights)
    except FileNotFoundError as error:
        raise ModelError(f"the weights {weights} are missing.") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{weights} cannot be read as safetensors ({error}); others, such as pickles, are not opened."
        ) from error
    except RuntimeError as error:  # of load_state_dict, over several lines
        first = str(error).splitlines()[-1].strip()
        raise ModelError(f"the weights {weights} do not fit the config: {first}") from error
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"the weights {weights} are damaged: {name} is not finite.")
    return model.eval()


def _refuse_too_few(weights: Path, config: Config, shape: DataShape) -> None:
    """Keeps a changed config from filling the memory with a network much larger than the file.

    Raises:
        ModelError: the config has more parameters than the file.
    """
    from safetensors import safe_open

    with safe_open(weights, framework="numpy") as file:
        # safetensors' object is not a mapping.
        stored = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    parameters = cost(config.architecture, shape).parameters
    if parameters > stored:
        raise ModelError(
            f"the weights {weights} do not fit the config: {stored:,} numbers for {parameters:,} parameters."
        )


def stored_task(what: str, labels: object, shape: dict[str, Any]) -> Task:
    """The images and classes of a stored model.

    Args:
        what: the file, for messages.
        labels: the names of the classes.
        shape: `channels` and `size`; CIFAR-10's where they are missing.

    Raises:
        ModelError: they are none, such as in a damaged file.
    """
    try:
        return Task.model_validate({"class_names": labels, **shape})
    except ValidationError as error:
        raise ModelError(
            f"{what} is damaged, or no model of mc1opt: {describe_validation_error(error)}"
        ) from error


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    if not isinstance(content, kind):
        raise ModelError(f"{path} is damaged: it holds no {'list' if kind is list else 'object'}.")
    return content
