"""The record of exports: the files that mc1opt wrote, by SHA-256. It decides which pt2 files are opened."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from mc1opt.database.location import files_folder
from mc1opt.files import append_line, read_lines

EXPORTS = "exports"
"""The folder of exported files, beside the models of studies."""
RECORD = "exports.jsonl"
"""The record in it."""


def exports_folder(storage: str) -> Path:
    """Where exports go by default."""
    return files_folder(storage) / EXPORTS


def export_record(storage: str) -> Path:
    """The file of the record."""
    return exports_folder(storage) / RECORD


def record_export(
    record: Path,
    path: Path,
    format_: str,
    *,
    sha256: str,
    config_id: str,
    weights_sha256: str,
    folder: str = "",
    milliseconds: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Appends a line for a file that was checked, before it is moved to its place.

    Args:
        record: see `export_record`.
        path: where the file will be.
        format_: onnx, pt2 or safetensors.
        sha256: of the file.
        config_id: of the model.
        weights_sha256: of the weights that it was made from.
        folder: the name of the folder of its study's files; empty if unknown.
        milliseconds: that it takes, median by batch size.

    Raises:
        StorageError: the record cannot be written.
    """
    append_line(
        record,
        {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "format": format_,
            "path": str(path.resolve()),
            "sha256": sha256,
            "config_id": config_id,
            "weights_sha256": weights_sha256,
            "folder": folder,
            "milliseconds": dict(milliseconds),
        },
    )


def recorded_hashes(record: Path, format_: str) -> dict[str, str]:
    """The SHA-256 of the recorded files of a format, each with the name of its study's folder.

    The name is empty where it is unknown; old records have none.

    Raises:
        StorageError: the record cannot be read.
    """
    lines = [line for line in read_lines(record) if line.get("format") == format_]
    return {str(line.get("sha256")): str(line.get("folder") or "") for line in lines}
