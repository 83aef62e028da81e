"""What `mc1opt data` says of images: where they are, what they are, and what was found in them."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from mc1opt.data.cache import verify
from mc1opt.data.examine import Examination, examine, keep_examination
from mc1opt.data.intake import FolderRecord
from mc1opt.data.sources import find_entry
from mc1opt.dataset import DataShape

MOST = 20
"""Classes that are listed one by one."""
SMALLEST = 10
"""Of more classes, so many are listed."""


@dataclass(frozen=True)
class DataReport:
    """What `mc1opt data` shows of verified images."""

    name: str
    folder: str
    source: str
    fetched: str
    train_images: int
    validation_images: int
    test_images: int
    bytes: int
    sha256: dict[str, str]
    shape: DataShape
    examination: Examination
    record: FolderRecord | None
    """Of a folder of image files."""

    def to_json(self) -> dict[str, Any]:
        """As `data --json` prints it."""
        content = asdict(self)
        del content["examination"], content["record"]
        record = self.record
        return content | {
            "shape": self.shape._asdict(),
            "classes": {
                name: dict(zip(("train", "validation", "test"), counts, strict=True))
                for name, counts in self.examination.counts.items()
            },
            "least_difference": self.examination.least_difference,
            "unreadable": [] if record is None else record.unreadable,
            "shorter_sides": None if record is None else list(record.sides),
            "other_files": {} if record is None else record.others,
            "findings": [finding.to_json() for finding in self.examination.findings],
        }

    def lines(self) -> list[str]:
        """As text."""
        channels, size, classes = self.shape
        lines = [
            f"{self.name}: {self.train_images:,} training images ({self.validation_images:,} of them kept "
            f"for validation), {self.test_images:,} test images",
            f"  images   {size} x {size} pixels, {'grey' if channels == 1 else 'RGB'}, {classes} classes",
            f"  folder   {self.folder} ({self.bytes / 1e6:.0f} MB)",
            f"  source   {self.source}, {self.fetched}",
            "  SHA-256",
        ]
        lines += [f"    {name:<13} {digest}  verified" for name, digest in self.sha256.items()]
        lines += [*self._record_lines(), "  images that train, validate, test"]
        counts = self.examination.counts
        shown = (
            dict(sorted(counts.items(), key=lambda item: item[1])[:SMALLEST]) if classes > MOST else counts
        )
        lines += ["    {:>7,} {:>7,} {:>7,}  {}".format(*parts, name) for name, parts in shown.items()]
        if len(shown) < len(counts):
            lines.append(f"    the {SMALLEST} smallest of {len(counts):,} classes")
        return [*lines, "  found", *(f"    {finding.line()}" for finding in self.examination.findings)]

    def _record_lines(self) -> list[str]:
        if self.record is None:
            return []
        least, median, greatest = self.record.sides
        lines = [f"  shorter sides of the files: {least:,} to {greatest:,} pixels, median {median:,}"]
        if self.record.others:
            others = ", ".join(
                f"{count:,} {ending or 'without one'}" for ending, count in self.record.others.items()
            )
            lines.append(f"  files that are no images, by their ending: {others}")
        lines += [f"  unreadable, left out: {why}" for why in self.record.unreadable]
        return lines


def describe_data(
    path: Path | None = None,
    *,
    image_size: int | None = None,
    max_unreadable: int | None = None,
    output: TextIO | None = None,
) -> DataReport:
    """Describes and examines the images after verifying their hashes; gets them as `find_data` does.

    Raises:
        DataError: they cannot be obtained, or are damaged.
        UsageError: a size is given, but no folder of image files.
    """
    entry, record = find_entry(path, image_size, max_unreadable, output)
    verify(entry, anew=True)
    files = () if record is None else (record.train_files, record.test_files)
    examination = examine(entry.data, *files)
    keep_examination(entry.data, examination)
    return DataReport(
        name=entry.data.name,
        folder=str(entry.folder),
        source=entry.source,
        fetched=entry.fetched,
        train_images=entry.counts[0],
        validation_images=entry.data.validation_images,
        test_images=entry.counts[1],
        bytes=sum(entry.sizes.values()),
        sha256=entry.sha256,
        shape=entry.data.shape,
        examination=examination,
        record=record,
    )
