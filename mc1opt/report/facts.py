"""What is known of a study: its trials, and what retraining, replays, exports and explanations have left.

Opens no test images: of them it has what was stored when they were opened.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mc1opt.data.cache import open_entry
from mc1opt.data.examine import Examination, kept_examination, serious_findings
from mc1opt.data.test_log import OPENINGS, past_openings
from mc1opt.database.location import models_folder
from mc1opt.database.opening import load_study, open_storage
from mc1opt.database.records import StudyRecord, study_record
from mc1opt.dataset import DataSet
from mc1opt.errors import Mc1optError
from mc1opt.explanation.result import Explanation, read_explanation
from mc1opt.files import read_lines
from mc1opt.inference.export_record import export_record
from mc1opt.inference.retrained import RetrainedModel, retrained_model
from mc1opt.retraining.replay import REPLAYS
from mc1opt.search.importance import importances

ONE_IMAGE = "batch_1_ms"
"""The latency that is told, of those that exports measure."""


@dataclass(frozen=True)
class Facts:
    """All that a report tells."""

    record: StudyRecord
    storage: str
    importances: Mapping[str, float]
    model: RetrainedModel | None
    openings: list[str]
    """Of the test images for this study: time and reason."""
    replays: list[dict[str, Any]]
    """See `mc1opt.retraining.replay.Replay`."""
    latency: tuple[str, float] | None
    """The fastest exported file of the model: format, and milliseconds that it takes for one image."""
    explanation: Explanation | None
    data: DataSet | None
    """The images, where they are on this machine."""
    examination: Examination | None
    """What was found in them: all if `mc1opt data` was asked, else without counts and test images."""


def gather(storage: str, name: str) -> Facts:
    """The facts of a stored study.

    Args:
        storage: the study database.
        name: the study.

    Raises:
        StorageError: there is no such database or study, or a record of it cannot be read.
    """
    study = load_study(open_storage(storage, create=False), name)
    record = study_record(study)
    folder = models_folder(storage, record.folder)
    model = retrained_model(storage, record)
    known = {trial.config_id for trial in record.trials}
    data = _images(record)
    return Facts(
        record=record,
        storage=storage,
        importances=importances(study),
        model=model,
        openings=[] if record.data is None else past_openings(folder / OPENINGS, _named(record.data)),
        replays=[line for line in read_lines(folder / REPLAYS) if line.get("config_id") in known],
        latency=None if model is None else _latency(storage, model),
        explanation=read_explanation(storage, record),
        data=data,
        examination=None if data is None else _examination(data),
    )


def _named(data: Mapping[str, str]) -> DataSet:
    """Images of which only name and hash count."""
    return DataSet(folder="", train_images=1, validation_images=0, name=data["name"], sha256=data["sha256"])


def _images(record: StudyRecord) -> DataSet | None:
    stored = record.data or {}
    entry = open_entry(stored.get("name", ""))
    if entry is None or (entry.data.name, entry.data.sha256) != (stored.get("name"), stored.get("sha256")):
        return None
    return entry.data


def _examination(data: DataSet) -> Examination | None:
    with contextlib.suppress(Mc1optError):
        return kept_examination(data) or Examination({}, 0.0, serious_findings(data))
    return None


def _latency(storage: str, model: RetrainedModel) -> tuple[str, float] | None:
    lines = read_lines(export_record(storage))
    times = [
        (float(line["milliseconds"][ONE_IMAGE]), str(line["format"]))
        for line in lines
        if line.get("weights_sha256") == model.folder.weights_sha256
        and ONE_IMAGE in line.get("milliseconds", {})
    ]
    return None if not times else min(times)[::-1]
