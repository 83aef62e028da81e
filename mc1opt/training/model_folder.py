"""A model in a folder: weights, config, labels, metrics and model card; writing, checking and loading it.

    model.safetensors    the weights
    config.json          the config, its identity, the SHA-256 of the weights, mc1opt's version
    labels.json          the names of the classes, in the order of the logits
    metrics.json         what was measured
    model_card.md        the same for people

Not here: what is measured and what the card says (`mc1opt.retraining.retrain`), and other formats
(`mc1opt.export.export`). Nothing in a folder is ever executed: no pickle is read.
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

from mc1opt import __version__
from mc1opt.config import CLASS_NAMES, Config, config_from_json, config_id, config_to_json
from mc1opt.errors import ConfigError, ModelError, UsageError
from mc1opt.models.cost import cost

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
LABELS = "labels.json"
METRICS = "metrics.json"
CARD = "model_card.md"
FILES = (WEIGHTS, LABELS, METRICS, CARD, CONFIG)
"""In the order in which they are put into place: the config, which knows the weights' hash, comes last."""


@dataclass(frozen=True)
class ModelFolder:
    """A model folder that was read and found whole."""

    path: Path
    config: Config
    labels: tuple[str, ...]
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
    metrics: dict[str, Any],
    card: str,
    *,
    force: bool = False,
) -> ModelFolder:
    """Writes a model folder; other files that lie in it stay as they are.

    A folder that does not exist appears whole. In one that does, each file is replaced in one step, the
    config last: whoever reads in between finds weights that are not those of the config, never a wrong model.

    Args:
        folder: where to.
        weights: the safetensors file to copy.
        config: what was trained.
        metrics: JSON values.
        card: Markdown.
        force: whether a model that is there already is replaced.

    Raises:
        UsageError: there is a model already, and `force` was not given.
        ModelError: the folder cannot be written.
    """
    there = [name for name in FILES if (folder / name).exists()]
    if there and not force:
        raise UsageError(f"{folder} holds a model already ({', '.join(there)}); --force replaces it.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _fill(staging, weights, config, metrics, card)
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


def _fill(folder: Path, weights: Path, config: Config, metrics: dict[str, Any], card: str) -> None:
    shutil.copyfile(weights, folder / WEIGHTS)
    description = {
        "config": config_to_json(config),
        "config_id": config_id(config),
        "weights_sha256": file_sha256(folder / WEIGHTS),
        "mc1opt": __version__,
    }
    for name, content in ((CONFIG, description), (LABELS, list(CLASS_NAMES)), (METRICS, metrics)):
        (folder / name).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    (folder / CARD).write_text(card)
    for name in FILES:
        with (folder / name).open("rb+") as file:
            os.fsync(file.fileno())


def read_model_folder(folder: Path) -> ModelFolder:
    """Reads a model folder and checks that it is whole; the weights are compared with their hash, not loaded.

    Raises:
        ModelError: files are missing or damaged, the config is of a newer mc1opt, or the classes are others.
    """
    if not folder.is_dir():
        raise ModelError(f"there is no model folder {folder}.")
    missing = [name for name in (CONFIG, LABELS, METRICS, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{folder} is no whole model folder: {', '.join(missing)} missing.")
    description = _read_json(folder / CONFIG, dict)
    labels = _read_json(folder / LABELS, list)
    metrics = _read_json(folder / METRICS, dict)
    config = stored_config(str(folder / CONFIG), description.get("config"), description.get("config_id"))
    check_labels(labels, str(folder))
    try:
        digest = file_sha256(folder / WEIGHTS)
    except OSError as error:
        raise ModelError(f"{folder / WEIGHTS} cannot be read: {error.strerror}.") from error
    if digest != description.get("weights_sha256"):
        raise ModelError(
            f"{folder / WEIGHTS} is damaged, or of another model: its SHA-256 is {digest[:12]}..., not that "
            f"of {CONFIG}. Make the model again."
        )
    return ModelFolder(folder, config, CLASS_NAMES, metrics, digest)


def stored_config(what: str, content: Any, identity: Any) -> Config:
    """A model's config as a file holds it, compared with its identity.

    Args:
        what: the file, for messages.
        content: the config as JSON values; see `config_to_json`.
        identity: the stored `config_id`.

    Raises:
        ModelError: it is no config, of a newer mc1opt, or has been changed.
    """
    if not isinstance(content, dict):
        raise ModelError(f"{what} is damaged, or of no model of mc1opt: it holds no config.")
    try:
        config = config_from_json(content)
    except ConfigError as error:
        raise ModelError(f"{what}: {error}") from error
    if config_id(config) != identity:
        raise ModelError(
            f"{what} is damaged, or was changed: its config is {config_id(config)}, and not {identity}. "
            "Make the model again."
        )
    return config


def load_model(path: str | Path) -> "nn.Module":
    """The model of a folder: in evaluation mode, on the CPU, in channels_last memory format.

    It takes images (uint8, N x 3 x 32 x 32, RGB) and gives logits (N x 10, in the order of the folder's
    labels.json); normalisation is part of it.

    Raises:
        ModelError: the folder is missing, damaged, of a newer mc1opt, or of other classes.
    """
    folder = read_model_folder(Path(path))
    return weights_model(folder.weights, folder.config)


def weights_model(weights: Path, config: Config) -> "nn.Module":
    """The network of a config with these weights, as `load_model` gives it.

    Raises:
        ModelError: the file is missing, no safetensors file, or of another config, or its weights are not
            finite.
    """
    import torch
    from safetensors import SafetensorError

    from mc1opt.models.build import build_model
    from mc1opt.training.checkpoint import load_weights

    try:
        _refuse_too_few(weights, config)
        model = build_model(config.architecture)
        load_weights(model, weights)
    except FileNotFoundError as error:
        raise ModelError(f"the weights {weights} are missing.") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{weights} cannot be read as safetensors ({error}); others, such as pickles, are not opened."
        ) from error
    except RuntimeError as error:  # of load_state_dict, over several lines
        first = str(error).splitlines()[-1].strip()
        raise ModelError(f"the weights {weights} are not of this config: {first}") from error
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"the weights {weights} are damaged: {name} is not finite.")
    return model.eval()


def _refuse_too_few(weights: Path, config: Config) -> None:
    """Before a network is made that is much larger than the file: a changed config may not fill the memory.

    Raises:
        ModelError: the config has more parameters than the file.
    """
    from safetensors import safe_open

    with safe_open(weights, framework="numpy") as file:
        # An object of safetensors that is no mapping.
        stored = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    parameters = cost(config.architecture).parameters
    if parameters > stored:
        raise ModelError(
            f"the weights {weights} are not of this config: {stored:,} numbers for {parameters:,} parameters."
        )


def check_labels(labels: Any, what: str) -> None:
    """Refuses a model of other classes.

    Raises:
        ModelError: the labels are not CIFAR-10's ten, in their order.
    """
    if labels == list(CLASS_NAMES):
        return
    names = [str(label) for label in labels] if isinstance(labels, list) else [str(labels)]
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    raise ModelError(
        f"{what} is a model of other classes ({len(names)}: {shown}); mc1opt's have {len(CLASS_NAMES)}: "
        f"{', '.join(CLASS_NAMES)}."
    )


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
