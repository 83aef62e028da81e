"""What is known of a study: from where it is stored, and of no other one."""

import json
from pathlib import Path

import numpy as np
import pytest

from mc1opt.data.report import describe_data
from mc1opt.database.records import StudyRecord
from mc1opt.errors import StorageError
from mc1opt.inference.export_record import export_record, record_export
from mc1opt.report.facts import gather
from mc1opt.retraining.replay import REPLAYS
from tests.support.retraining import MODELS, STORAGE, STUDY


def test_a_searched_study_has_trials_and_images_and_no_more(retrainable: StudyRecord) -> None:
    facts = gather(STORAGE, STUDY)
    assert [t.number for t in facts.record.trials] == [t.number for t in retrainable.trials]
    assert (facts.model, facts.latency, facts.explanation) == (None, None, None)
    assert facts.openings == facts.replays == []
    assert facts.data is not None
    assert facts.examination is not None
    assert facts.examination.counts == {}  # the test images stay closed


def test_a_retrained_study_has_a_model_and_one_opening(retrained: StudyRecord) -> None:
    facts = gather(STORAGE, STUDY)
    assert facts.model is not None
    assert facts.model.found.trial in {trial.number for trial in retrained.trials}
    (opening,) = facts.openings
    assert "retrain" in opening


def test_replays_of_another_studys_trials_do_not_count(retrained: StudyRecord) -> None:
    known = retrained.trials[0].config_id
    lines = [{"trial": 0, "equal": True, "config_id": name} for name in (known, "another")]
    (MODELS / REPLAYS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [line["config_id"] for line in gather(STORAGE, STUDY).replays] == [known]


@pytest.mark.usefixtures("retrained")
def test_the_fastest_export_of_this_model_counts() -> None:
    model = gather(STORAGE, STUDY).model
    assert model is not None
    weights = model.folder.weights_sha256
    for format_, sha256, milliseconds in (
        ("safetensors", weights, {}),
        ("onnx", weights, {"batch_1_ms": 0.5}),
        ("pt2", weights, {"batch_1_ms": 0.7}),
        ("onnx", "another", {"batch_1_ms": 0.1}),
    ):
        record_export(
            export_record(STORAGE),
            Path("file"),
            format_,
            sha256="0" * 64,
            config_id="0" * 12,
            weights_sha256=sha256,
            milliseconds=milliseconds,
        )
    assert gather(STORAGE, STUDY).latency == ("onnx", 0.5)


def test_what_mc1opt_data_has_found_is_told_with_the_counts(retrainable: StudyRecord) -> None:
    report = describe_data(Path("images"))
    facts = gather(STORAGE, STUDY)
    assert facts.examination == report.examination
    assert (retrainable.data or {})["sha256"] == facts.data.sha256 if facts.data else False


def test_images_that_are_gone_or_others_are_not_shown(retrainable: StudyRecord) -> None:
    name = (retrainable.data or {})["name"]
    (folder,) = (path for path in Path("cache").iterdir() if path.name == name)
    np.save(folder / "train_labels.npy", np.zeros(3))
    assert gather(STORAGE, STUDY).data is None


def test_no_study_is_an_error() -> None:
    with pytest.raises(StorageError):
        gather("missing.db", "s")
