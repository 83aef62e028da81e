"""The record of exports: the files mc1opt wrote, by SHA-256. It decides which pt2 files are opened."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from mc1opt.database.location import files_folder
from mc1opt.files import append_line, read_lines

EXPORTS = "exports"
"""The folder of exported files, beside the models of studies."""
RECORD = "exports.jsonl"
"""The record in it."""


@dataclass(frozen=True)
class ExportEntry:
    """A line of the record."""

    time: str
    """ISO 8601, UTC."""
    format: str
    path: str
    sha256: str
    config_id: str
    weights_sha256: str
    folder: str
    """The name of the folder of its study's files; empty if that is not known, missing in old records."""


def exports_folder(storage: str) -> Path:
    """Where exports go, if no other folder is named."""
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
) -> None:
    """Appends a line for a file that was checked and is about to be put into its place.

    Args:
        record: see `export_record`.
        path: where the file will be.
        format_: its format.
        sha256: its own.
        config_id: of the model.
        weights_sha256: of the weights that it was made from.
        folder: see `ExportEntry`.

    Raises:
        StorageError: the record cannot be written.
    """
    entry = ExportEntry(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        format=format_,
        path=str(path.resolve()),
        sha256=sha256,
        config_id=config_id,
        weights_sha256=weights_sha256,
        folder=folder,
    )
    append_line(record, asdict(entry))


def recorded_hashes(record: Path, format_: str) -> dict[str, str]:
    """The SHA-256 of all recorded files of a format, each with the name of its study's folder.

    The name is empty where it is not known, as in records of before.

    Raises:
        StorageError: the record cannot be read.
    """
    lines = [line for line in read_lines(record) if line.get("format") == format_]
    return {str(line.get("sha256")): str(line.get("folder") or "") for line in lines}
