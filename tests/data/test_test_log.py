"""The record of openings: what is read is what happened to these images, whatever the file went through."""

import json
from pathlib import Path

import pytest

from mc1opt.data.test_log import past_openings, record_opening
from mc1opt.dataset import DataSet
from mc1opt.errors import StorageError

RECORD = Path("models/test_openings.jsonl")
DATA = DataSet(name="own-0", folder="", sha256="0" * 64, train_images=20, validation_images=2)
OTHER = DATA.model_copy(update={"name": "own-1", "sha256": "1" * 64})


def test_what_is_recorded_is_read_back_with_its_time() -> None:
    assert past_openings(RECORD, DATA) == []
    record_opening(RECORD, DATA, "retrain of study s")
    record_opening(RECORD, DATA, "evaluate model m")
    times = [json.loads(line)["time"] for line in RECORD.read_text().splitlines()]
    reasons = ("retrain of study s", "evaluate model m")
    assert past_openings(RECORD, DATA) == [
        f"{time[:16]} {reason}" for time, reason in zip(times, reasons, strict=True)
    ]


def test_openings_of_other_images_do_not_count() -> None:
    record_opening(RECORD, OTHER, "evaluate model m")
    record_opening(RECORD, DATA, "retrain of study s")
    assert len(past_openings(RECORD, DATA)) == 1
    assert len(past_openings(RECORD, OTHER)) == 1
    # The hash of own data was made otherwise once; the name tells as well.
    assert len(past_openings(RECORD, DATA.model_copy(update={"sha256": "2" * 64}))) == 1


@pytest.mark.parametrize("line", ["{", "[1]", "", "\xff", '{"time": "2026-01-01T00:00"}', '{"time": 5}'])
def test_a_damaged_line_is_an_opening_nevertheless(line: str) -> None:
    record_opening(RECORD, DATA, "retrain of study s")
    RECORD.write_bytes(line.encode("latin-1") + b"\n" + RECORD.read_bytes())
    assert len(past_openings(RECORD, DATA)) == 2


def test_a_last_line_without_its_end_was_no_opening_and_damages_no_other() -> None:
    record_opening(RECORD, DATA, "retrain of study s")
    RECORD.write_bytes(RECORD.read_bytes() + b'{"time": "20')
    assert len(past_openings(RECORD, DATA)) == 1
    record_opening(RECORD, DATA, "evaluate model m")
    assert [line.rsplit(" ", 2)[-2:] for line in past_openings(RECORD, DATA)] == [
        ["study", "s"],
        ["model", "m"],
    ]


def test_a_record_that_cannot_be_read_or_written_is_an_error_for_people() -> None:
    RECORD.mkdir(parents=True)
    with pytest.raises(StorageError, match=str(RECORD)):
        past_openings(RECORD, DATA)
    with pytest.raises(StorageError, match=str(RECORD)):
        record_opening(RECORD, DATA, "retrain of study s")
