"""Exports a model to files that other programs read, each proven to be the same model.

A file is written under a temporary name, opened by its own runtime, compared with the model, and only then
moved to its place: a failure leaves nothing behind and overwrites nothing.
"""

import contextlib
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from mc1opt import __version__
from mc1opt.config import CustomNetwork, config_id, config_to_json
from mc1opt.data.model_images import check_same_task, model_data
from mc1opt.dataset import DataSet
from mc1opt.errors import ModelError, UsageError
from mc1opt.export.formats import write_onnx, write_pt2, write_safetensors
from mc1opt.export.parity import TOLERANCE, Check, all_logits, compare, images_to_compare, latency
from mc1opt.export.script import run_script_network, training_script
from mc1opt.export.source import ExportSource, folder_source, trial_source
from mc1opt.inference.export_record import EXPORTS, RECORD, exports_folder, record_export
from mc1opt.inference.open_model import (
    Images,
    onnx_package,
    open_onnx,
    open_pt2,
    open_safetensors,
    torch_runner,
)
from mc1opt.measurement.store import TRAININGS
from mc1opt.text import plural
from mc1opt.training.model_folder import file_sha256, weights_model

FORMATS = {"onnx": ".onnx", "pt2": ".pt2", "safetensors": ".safetensors", "python": ".py"}
"""Formats, and the endings of their files."""
DEFAULT_FORMATS = ("onnx",)
LEFT_BEHIND = 3600.0
"""Seconds without a change after which a partly written file is taken to be of a killed process."""


@dataclass(frozen=True)
class ExportCommand:
    """The options of `mc1opt export`."""

    storage: str
    study: str | None = None
    trial: int | None = None
    model: Path | None = None
    formats: tuple[str, ...] = DEFAULT_FORMATS
    output: Path | None = None
    half: bool = False
    force: bool = False
    data: Path | None = None


@dataclass(frozen=True)
class ExportedFile:
    """A written file, and how it compares with the model."""

    format: str
    path: str
    bytes: int
    max_logit_difference: float
    different_decisions: int
    images: int
    """Images compared: validation images and noise."""
    latency: dict[str, float]
    """Median milliseconds by batch size."""

    def to_json(self) -> dict[str, Any]:
        """As `export --json` lists it."""
        return asdict(self)


def export(command: ExportCommand, *, write: Callable[[str], None], output: TextIO) -> list[ExportedFile]:
    """Exports a model as the options say.

    Args:
        command: the options.
        write: takes each line for people.
        output: where the progress of fetching images is shown.

    Raises:
        UsageError: wrong options, nothing to export, or files that exist already.
        ModelError: a file is not the same model.
        Mc1optError: anything else that people can mend.
    """
    formats = _formats(command)
    if command.model is not None:
        source = folder_source(command.model)
        if command.study not in (None, source.study):
            raise UsageError(
                f"{command.model} is a model of study {source.study!r}, not of {command.study!r}."
            )
    else:
        assert command.study is not None  # `_formats` has looked
        source = trial_source(command.storage, command.study, command.trial, write)
    folder = command.output or _exports_folder(command) / source.folder
    stem = source.stem + ("-half" if command.half else "")
    paths = {name: folder / f"{stem}{FORMATS[name]}" for name in formats}
    there = [str(path) for path in paths.values() if path.exists()]
    if there and not command.force:
        verb, what = ("exists", "it") if len(there) == 1 else ("exist", "them")
        raise UsageError(
            f"{', '.join(there)} {verb} already; --force replaces {what}, --output names another folder."
        )
    with tempfile.TemporaryDirectory(prefix="mc1opt-") as temporary:
        # A running search deletes weights when other trials are better.
        weights = Path(temporary) / source.weights.name
        try:
            shutil.copyfile(source.weights, weights)
        except OSError as error:
            raise ModelError(f"the weights {source.weights} cannot be read: {error.strerror}.") from error
        source = replace(source, weights=weights)
        write(f"Exporting {source.title}: {source.quality}")
        data = model_data(source.title, source.data, command.data, output)
        check_same_task(source.title, source.task, source.data, data)
        if "python" in paths and source.data is not None and data.name != source.data["name"]:
            raise UsageError(
                f"{source.title} was trained on {source.data['name']}, and {command.data} holds other "
                "images: a script for those would not be of this training. Leave out --data, or --format "
                "python."
            )
        network = source.config.architecture
        if isinstance(network, CustomNetwork):
            if "python" in paths:
                raise UsageError(
                    f"the network of {source.title} is built by {network.path}, so --format python cannot "
                    "write it. Its code is that file, and its weights are in --format safetensors."
                )
            if "safetensors" in paths:
                write(f"mc1opt opens the safetensors file where {network.path} is, which builds the network.")
        exporter = Exporter(source, data, _exports_folder(command) / RECORD)
        return [
            exporter.export(name, path, half=command.half, force=command.force, write=write)
            for name, path in paths.items()
        ]


class Exporter:
    """Writes one model in several formats."""

    def __init__(self, source: ExportSource, data: DataSet, record: Path) -> None:
        """`data`: its validation images are compared; `record`: the record of exports."""
        from mc1opt.data.images import open_training_images

        self._source = source
        self._data = data
        self._record = record
        self._weights_sha256 = file_sha256(source.weights)
        self._images: Images = images_to_compare(
            open_training_images(data, 1, "cpu").validation_images.numpy()
        )
        run = torch_runner(weights_model(source.weights, source.config, source.task.shape))
        self._expected = all_logits(run, self._images)

    def export(
        self, name: str, path: Path, *, half: bool, force: bool, write: Callable[[str], None]
    ) -> ExportedFile:
        """Writes the format `name` to `path`, and checks the file.

        Args:
            name: one of `FORMATS`.
            path: where to.
            half: whether in float16.
            force: whether an existing file is replaced.
            write: takes each line for people.

        Raises:
            UsageError: a file exists by now, and `force` is false; it stays.
            ModelError: the file cannot be written, or is not the same model; no file is left.
        """
        temporary = path.with_name(f".{os.getpid()}.{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(path)
            self._write(name, temporary, path.name, half=half)
            check, milliseconds = self._check(name, temporary)
            if not check.finite:
                why = "float16 does not hold them" if half else "the model has none that are"
                raise ModelError(f"{path} was not written: as {name} its logits are not finite; {why}.")
            if not (half or check.same):
                raise ModelError(
                    f"{path} was not written: as {name} it is not the same model. Logits differ by up to "
                    f"{check.max_logit_difference:.2g} (allowed: {TOLERANCE:g}), "
                    f"{plural(check.different_decisions, 'decision')} of {check.images:,} (allowed: none)."
                )
            # First the record: a pt2 file that is not in it would not be opened.
            record_export(
                self._record,
                path,
                name,
                sha256=file_sha256(temporary),
                config_id=config_id(self._source.config),
                weights_sha256=self._weights_sha256,
                folder=self._source.study_folder,
                milliseconds=milliseconds,
            )
            _place(temporary, path, replace=force)
        except OSError as error:
            raise ModelError(f"{path} cannot be written: {error}") from error
        finally:
            with contextlib.suppress(OSError):  # such as a folder that is a file
                temporary.unlink(missing_ok=True)
        exported = ExportedFile(
            format=name,
            path=str(path),
            bytes=path.stat().st_size,
            latency=milliseconds,
            **asdict(check),
        )
        for line in _lines(exported, half=half):
            write(line)
        return exported

    def _write(self, name: str, path: Path, final_name: str, *, half: bool) -> None:
        source = self._source
        if name == "python":
            path.write_text(training_script(source, self._data, final_name))
            return
        writer = {"onnx": write_onnx, "pt2": write_pt2, "safetensors": write_safetensors}[name]
        metadata = {
            "labels": json.dumps(source.task.class_names),
            "shape": source.task.model_dump_json(include={"channels", "size"}),
            "config": json.dumps(config_to_json(source.config)),
            "config_id": config_id(source.config),
            "weights_sha256": self._weights_sha256,
            "mc1opt": __version__,
            "study": source.study,
            "data": json.dumps(source.data),
            "precision": "float16" if half else "float32",
        }
        writer(path, source.weights, source.config, source.task, metadata, half=half)

    def _check(self, name: str, path: Path) -> tuple[Check, dict[str, float]]:
        """Opens the file with its own runtime, as its users will."""
        if name == "python":
            run = torch_runner(run_script_network(path, self._source))
        elif name == "pt2":
            run = open_pt2(path, known={file_sha256(path)}).run
        else:
            run = {"onnx": open_onnx, "safetensors": open_safetensors}[name](path).run
        return compare(run, self._images, self._expected), latency(run, self._images)


def _formats(command: ExportCommand) -> list[str]:
    """The requested formats, each once; options are checked before anything is opened."""
    formats = list(dict.fromkeys(command.formats or DEFAULT_FORMATS))
    for name in formats:
        if name not in FORMATS:
            raise UsageError(f"unknown format {name!r}. Allowed: {', '.join(FORMATS)}.")
    if command.study is None and command.model is None:
        raise UsageError("give --study NAME or --model DIR: which model to export.")
    if command.model is not None and command.trial is not None:
        raise UsageError("give --trial or --model DIR: a model folder holds one model.")
    if command.half and "python" in formats:
        raise UsageError("--half is for weights, and --format python writes none.")
    if "onnx" in formats:
        for package in ("onnx", "onnxruntime", "onnxscript"):
            onnx_package(package)
    return formats


def _exports_folder(command: ExportCommand) -> Path:
    """Beside the models of the same database, if the model's folder tells which; else of `--storage`."""
    if command.model is not None and (command.model / TRAININGS).exists():
        for models in (command.model.parent, command.model.resolve().parent):
            if models.name == "models":
                return models.with_name(EXPORTS)
    return exports_folder(command.storage)


def _remove_leftovers(path: Path) -> None:
    """Deletes temporary files of killed processes, of any host, that exported to `path`."""
    for leftover in path.parent.glob(f".*.{glob.escape(path.name)}"):
        if not leftover.name.split(".")[1].isdecimal():
            continue
        with contextlib.suppress(FileNotFoundError):  # another process has removed it, or put it into place
            if time.time() - leftover.stat().st_mtime > LEFT_BEHIND:
                leftover.unlink()


def _place(temporary: Path, path: Path, *, replace: bool) -> None:
    """Gives a file its final name, atomically.

    Raises:
        UsageError: a file of this name exists, even if only since now, and `replace` is false.
    """
    if replace:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)  # unlike a renaming, it fails where there is a file
    except OSError as error:  # there is one, or the file system has no links
        if path.exists():
            raise UsageError(
                f"{path} exists by now; --force replaces it, --output names another folder."
            ) from error
        temporary.replace(path)


def _lines(exported: ExportedFile, *, half: bool) -> list[str]:
    different = f"{exported.different_decisions} of {exported.images:,} decisions differ"
    if half:
        different += f" ({exported.different_decisions / exported.images:.2%})"
    times = [f"{value:.3g} ms for {name.split('_')[1]}" for name, value in exported.latency.items()]
    return [
        f"{exported.format:<12} {exported.path} ({exported.bytes:,} bytes)",
        f"{'':<12} logits differ by at most {exported.max_logit_difference:.2g}, {different}",
        f"{'':<12} {', '.join(times)} (median; images a batch)",
    ]
