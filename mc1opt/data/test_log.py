"""The record of openings of the test images: when and why. Written before each opening."""

import json
from datetime import UTC, datetime
from pathlib import Path

from mc1opt.dataset import DataSet
from mc1opt.errors import StorageError
from mc1opt.files import append_line

OPENINGS = "test_openings.jsonl"
"""The record's file, in the folder of a study's or a preset's models."""


def record_opening(record: Path, data: DataSet, reason: str) -> None:
    """Records that the test images are about to be opened; it is on disk when this returns.

    Args:
        record: the file.
        data: whose images.
        reason: who opens them and why, such as "retrain of study cnn".

    Raises:
        StorageError: the record cannot be written.
    """
    opening = {
        "time": datetime.now(UTC).isoformat(),
        "reason": reason,
        "data": data.name,
        "sha256": data.sha256,
    }
    append_line(record, opening)


def past_openings(record: Path, data: DataSet) -> list[str]:
    """Time and reason of each recorded opening of these images.

    A damaged line counts as an opening of these images. An incomplete last line does not: the images are
    opened only after it is on disk.

    Raises:
        StorageError: the record cannot be read.
    """
    try:
        lines = record.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"{record} cannot be read: {error.strerror}.") from error
    found = []
    for line in lines:
        try:
            opening = json.loads(line)
            text = f"{opening['time'][:16]} {opening['reason']}"
            others = opening["data"] != data.name and opening["sha256"] != data.sha256
        except (ValueError, KeyError, TypeError, RecursionError):
            found.append("at an unknown time")
            continue
        if not others:
            found.append(text)
    return found
