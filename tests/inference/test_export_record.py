"""The record of exports: what was written is known by its hash."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

from mc1opt.database.location import files_folder
from mc1opt.inference.export_record import export_record, exports_folder, record_export, recorded_hashes

RECORD = Path("exports/exports.jsonl")


def test_each_export_is_a_line_with_its_hash_path_and_format() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    for name in ("a.onnx", "b.pt2"):
        digest = hashlib.sha256(name.encode()).hexdigest()
        record_export(RECORD, Path(name), name[2:], sha256=digest, config_id="c", weights_sha256="w")
    first, second = (json.loads(line) for line in RECORD.read_text().splitlines())
    assert first["path"] == str(Path("a.onnx").resolve())
    assert (first["format"], second["format"]) == ("onnx", "pt2")
    assert (first["config_id"], first["weights_sha256"]) == ("c", "w")
    assert first["sha256"] == hashlib.sha256(b"a.onnx").hexdigest()
    assert before <= datetime.fromisoformat(first["time"]) <= datetime.now(UTC)
    assert recorded_hashes(RECORD, "pt2") == {second["sha256"]: ""}


def test_a_file_that_is_exported_again_leaves_both_hashes_known() -> None:
    assert recorded_hashes(RECORD, "pt2") == {}
    for content in ("one", "two"):
        record_export(RECORD, Path("a.pt2"), "pt2", sha256=content, config_id="c", weights_sha256="w")
    assert len(recorded_hashes(RECORD, "pt2")) == 2


def test_exports_lie_with_the_files_of_the_database() -> None:
    assert exports_folder("some/s.db") == files_folder("some/s.db") / "exports"
    assert export_record("some/s.db") == exports_folder("some/s.db") / "exports.jsonl"
