"""The files of the best trials: what is in them, made once, made anew when something else is to be shown."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import optuna
import pytest
from PIL import Image

from mc1opt.config import config_from_json
from mc1opt.dashboard.files import TrialFile, history_csv, keep_files, retraining_files, trial_files
from mc1opt.database.artifacts import artifact_names
from mc1opt.database.opening import load_study
from mc1opt.database.records import study_record
from mc1opt.dataset import CIFAR10_CLASS_NAMES as CLASS_NAMES
from tests.support.display import trial
from tests.support.studies import EPOCHS, new_storage
from tests.support.two_studies import database, study

__all__ = ["database", "study"]

FOLDER = Path("artifacts")
CONFUSION = [
    [9 if row == column else 1 if column == (row + 1) % 10 else 0 for column in range(10)]
    for row in range(10)
]


def text_file(name: str, text: str) -> TrialFile:
    return TrialFile(name, text, text.encode)


def names(study: optuna.Study, trial_id: int) -> list[str]:
    return sorted(artifact_names(study).get(trial_id, {}).values())


def contents() -> set[bytes]:
    return {path.read_bytes() for path in FOLDER.iterdir()}


# ---- What is in them -------------------------------------------------------------------------------------


def test_a_trial_of_a_search_has_its_curve_its_history_and_its_config(study: optuna.Study) -> None:
    best = study_record(study).best
    assert best is not None
    assert best.config is not None
    files = {file.name: file.make() for file in trial_files(best)}
    assert list(files) == ["learning_curve.png", "history.csv", "config.json"]
    assert Image.open(io.BytesIO(files["learning_curve.png"])).format == "PNG"
    assert config_from_json(json.loads(files["config.json"])) == config_from_json(best.config)
    rows = list(csv.DictReader(io.StringIO(files["history.csv"].decode())))
    assert [int(row["epoch"]) for row in rows] == list(range(1, EPOCHS + 1))
    assert [float(row["validation_accuracy"]) for row in rows] == best.values_by_epoch
    assert [float(row["training_loss"]) for row in rows] == pytest.approx(
        [2.3 * (1 - value) for value in best.values_by_epoch]
    )


def test_losses_that_are_not_stored_are_empty_cells() -> None:
    assert history_csv(trial(0, values_by_epoch=[0.5, 0.6])) == (
        b"epoch,training_loss,validation_accuracy\n1,,0.5\n2,,0.6\n"
    )


def test_a_retraining_gives_confusions_and_the_wrong_images_if_they_were_kept() -> None:
    metrics = {"test": {"confusion": CONFUSION, "by_class": dict.fromkeys(CLASS_NAMES, 0.9)}}
    (confusions,) = retraining_files(metrics, Path("none.npz"))
    assert confusions.name == "confusion_matrix.png"
    assert "accuracy 0.9000" in confusions.source[0]
    kept = {"labels": np.zeros(2, int), "decisions": np.ones(2, int)}
    np.savez("kept.npz", images=np.zeros((2, 3, 32, 32), np.uint8), **kept)
    both = retraining_files(metrics, Path("kept.npz"))
    assert [file.name for file in both] == ["confusion_matrix.png", "misclassified.png"]
    assert all(Image.open(io.BytesIO(file.make())).format == "PNG" for file in both)


# ---- Keeping them ----------------------------------------------------------------------------------------


def test_a_file_is_made_anew_only_from_something_else_or_where_it_was_lost(study: optuna.Study) -> None:
    made = []

    def file(source: str) -> TrialFile:
        return TrialFile("curve.png", source, lambda: made.append(source) or source.encode())

    for source in ("one", "one", "two", "two"):
        keep_files(study, FOLDER, {1: [file(source)]})
    assert made == ["one", "two"]
    next(FOLDER.iterdir()).unlink()  # lost
    keep_files(study, FOLDER, {1: [file("two")]})
    assert names(study, 1) == ["curve.png"]
    assert contents() == {b"two"}


def test_a_trial_that_is_not_wanted_any_more_loses_its_files(study: optuna.Study) -> None:
    keep_files(study, FOLDER, {1: [text_file("a.csv", "a")], 2: [text_file("a.csv", "a")]})
    keep_files(study, FOLDER, {2: [text_file("a.csv", "a"), text_file("b.csv", "b")]})
    assert names(study, 1) == []
    assert names(study, 2) == ["a.csv", "b.csv"]
    assert contents() == {b"a", b"b"}


def test_equal_files_of_two_trials_and_of_two_studies_are_apart(study: optuna.Study) -> None:
    other = load_study(new_storage(), "other")
    keep_files(study, FOLDER, {1: [text_file("a.csv", "a")], 2: [text_file("a.csv", "a")]})
    keep_files(other, FOLDER, {3: [text_file("a.csv", "a")]})
    keep_files(study, FOLDER, {})
    assert names(other, 3) == ["a.csv"]
    assert contents() == {b"a"}
