"""Evaluation: its figures against closed forms and scikit-learn, and the record of openings."""

import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from mc1opt.data.images import open_test_images
from mc1opt.data.sources import find_data
from mc1opt.dataset import CIFAR10_CLASS_NAMES as CLASS_NAMES
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.errors import DataError, ModelError
from mc1opt.export.export import ExportCommand, export
from mc1opt.inference.evaluate import (
    confusion_lines,
    evaluate,
    evaluation_lines,
    openings_record,
    wilson_interval,
)
from mc1opt.inference.export_record import export_record, record_export
from mc1opt.inference.open_model import open_model
from mc1opt.training.accuracy import accuracy, confusion_matrix
from mc1opt.training.model_folder import file_sha256, weights_model
from tests.support.image_sets import change_a_bit, write_arrays_folder
from tests.support.trained import STORAGE, Trained, write_model

EXPORTS = Path("storage/exports/s")


def random_results(count: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels that agree in part."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 9, count)  # no image of the last class
    logits = generator.normal(0, 2, (count, 10))
    logits[np.arange(count), labels] += 2
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(1, keepdims=True)).astype(np.float32), labels


# ---- Figures ---------------------------------------------------------------------------------------------


def test_the_confusion_matrix_is_that_of_scikit_learn() -> None:
    probabilities, labels = random_results()
    decisions = probabilities.argmax(1)
    expected = sklearn_confusion_matrix(labels, decisions, labels=range(10))
    np.testing.assert_array_equal(confusion_matrix(labels, decisions, 10), expected)


@pytest.mark.parametrize(("correct", "count"), [(0, 10), (10, 10), (1, 3), (9123, 10_000), (1, 1)])
def test_the_interval_holds_the_shares_that_the_result_does_not_rule_out(correct: int, count: int) -> None:
    """Wilson's bounds are the shares whose normal approximation just reaches the result."""
    low, high = wilson_interval(correct, count)
    assert 0 <= low <= correct / count <= high <= 1
    for bound in (low, high):
        if 0 < bound < 1:
            z = abs(correct / count - bound) / math.sqrt(bound * (1 - bound) / count)
            assert z == pytest.approx(1.959964, abs=1e-5)


@pytest.mark.parametrize(("correct", "count"), [(0, 0), (3, 2), (-1, 2)])
def test_no_share_has_no_interval(correct: int, count: int) -> None:
    with pytest.raises(ValueError, match="no share"):
        wilson_interval(correct, count)


# ---- The test images -------------------------------------------------------------------------------------


def test_a_model_is_measured_on_the_test_images(exported: Path, trained: Trained) -> None:
    model = write_model(Path("storage/models/s"), trained)
    folder = Path(trained.data.folder)
    result = evaluate(model, folder, storage=STORAGE, output=None)
    images, labels = open_test_images(find_data(folder), "expected", Path("other.jsonl"), "cpu")
    network = weights_model(trained.weights, trained.config, CIFAR10_SHAPE)
    assert result.images == 50
    assert result.accuracy == accuracy(network, images, labels)
    assert sum(map(sum, result.confusion)) == 50
    assert sum(result.confusion[i][i] for i in range(10)) == round(result.accuracy * 50)
    by_class = [result.confusion[i][i] / 5 for i in range(10)]
    assert result.by_class == dict(zip(CLASS_NAMES, by_class, strict=True))
    assert result.interval == wilson_interval(round(result.accuracy * 50), 50)
    same = evaluate(EXPORTS / "trial-1.onnx", folder, storage=STORAGE, output=None)
    assert same.confusion == result.confusion
    assert same.calibration_error == pytest.approx(result.calibration_error, abs=1e-4)


def test_openings_are_recorded_and_counted_with_the_studys_models(exported: Path, trained: Trained) -> None:
    """Of the model folder and of an exported file together: they are looks at the same images."""
    model = write_model(Path("storage/models/s"), trained)
    folder = Path(trained.data.folder)
    results = [
        evaluate(path, folder, storage=STORAGE, output=None)
        for path in (model, EXPORTS / "trial-1.onnx", model)
    ]
    assert [result.opened_before for result in results] == [0, 1, 2]
    lines = (model / "test_openings.jsonl").read_text().splitlines()
    reasons = [json.loads(line)["reason"] for line in lines]
    assert reasons[:2] == ["evaluate model storage/models/s", "evaluate model storage/exports/s/trial-1.onnx"]
    assert "first time" in evaluation_lines(results[0])[0]
    assert "2 times before" in evaluation_lines(results[2])[0]


def test_openings_for_an_exported_file_are_recorded_beside_its_own_study(
    exported: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another folder, too, where `storage` names a database that is not the file's."""
    folder = Path(trained.data.folder)
    evaluate(EXPORTS / "trial-1.onnx", folder, storage=STORAGE, output=None)
    elsewhere = exported / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(EXPORTS / "trial-1.safetensors", elsewhere / "moved.safetensors")
    monkeypatch.chdir(elsewhere)
    there = evaluate(Path("..") / EXPORTS / "trial-1.onnx", folder, storage=STORAGE, output=None)
    assert there.opened_before == 1
    assert list(elsewhere.iterdir()) == [elsewhere / "moved.safetensors"]
    # A copy elsewhere is known to the right database alone; else its record is beside it.
    moved = Path("moved.safetensors")
    assert evaluate(moved, folder, storage=f"../{STORAGE}", output=None).opened_before == 2
    assert evaluate(moved, folder, storage=STORAGE, output=None).opened_before == 0
    assert {path.name for path in elsewhere.iterdir()} == {"moved.safetensors", "test_openings.jsonl"}


def test_openings_are_recorded_with_the_study_that_was_exported_whatever_it_is_called_now(
    exported: Path, trained: Trained
) -> None:
    path = EXPORTS / "trial-1.onnx"
    opened = open_model(path, export_record(STORAGE))
    assert openings_record(opened, STORAGE) == Path("storage/models/s/test_openings.jsonl")
    of_another = {"config_id": "c", "weights_sha256": "w", "folder": "s-2"}
    record_export(export_record(STORAGE), path, "onnx", sha256=file_sha256(path), **of_another)
    assert openings_record(opened, STORAGE) == Path("storage/models/s-2/test_openings.jsonl")


def test_a_model_is_measured_on_the_data_that_it_was_trained_on(trained: Trained) -> None:
    """Whether a folder or a file, if nobody gives other images."""
    folder = Path(trained.data.folder)
    data = find_data(folder)
    model = write_model(Path("m"), trained, data={"name": data.name, "sha256": data.sha256})
    (file,) = export(
        ExportCommand(storage=STORAGE, model=model, formats=("safetensors",)), write=print, output=sys.stderr
    )
    for path in (model, Path(file.path)):
        given = evaluate(path, folder, storage=STORAGE, output=None)
        own = evaluate(path, None, storage=STORAGE, output=None)
        assert (own.data, own.confusion) == (data.name, given.confusion)


def test_openings_of_other_images_are_not_counted(trained: Trained) -> None:
    model = write_model(Path("storage/models/s"), trained)
    write_arrays_folder(Path("others"), train_images=100)
    results = [
        evaluate(model, path, storage=STORAGE, output=None)
        for path in (Path("others"), Path(trained.data.folder), Path("others"))
    ]
    assert [result.opened_before for result in results] == [0, 0, 1]


@pytest.mark.parametrize(("what", "error"), [("model", ModelError), ("test_images", DataError)])
def test_the_test_images_stay_shut_where_they_or_the_model_are_damaged(
    trained: Trained, what: str, error: type[Exception]
) -> None:
    model = write_model(Path("storage/models/s"), trained)
    data = find_data(Path(trained.data.folder))
    change_a_bit(model / "model.safetensors" if what == "model" else Path(data.folder) / f"{what}.npy")
    with pytest.raises(error, match=what):
        evaluate(model, Path(trained.data.folder), storage=STORAGE, output=None)
    assert not (model / "test_openings.jsonl").exists()


def test_a_model_that_gives_no_numbers_leaves_them_shut_too(exported: Path, trained: Trained) -> None:
    model = onnx.load(EXPORTS / "trial-1.onnx")
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1 and tensor.data_type == onnx.TensorProto.FLOAT:
            array = np.full(tuple(tensor.dims), np.nan, dtype=np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(model, "broken.onnx")
    with pytest.raises(ModelError, match="not finite"):
        evaluate(Path("broken.onnx"), Path(trained.data.folder), storage=STORAGE, output=None)
    assert not list(Path().rglob("test_openings.jsonl"))


def test_the_evaluation_is_shown_in_whole(exported: Path, trained: Trained) -> None:
    result = evaluate(EXPORTS / "trial-1.onnx", Path(trained.data.folder), storage=STORAGE, output=None)
    lines = evaluation_lines(result)
    low, high = result.interval
    assert lines[1].startswith(f"accuracy           {result.accuracy:.4f}")
    assert f"{low:.4f} to {high:.4f}" in lines[1]
    assert [line.split()[0] for line in lines[-10:]] == list(CLASS_NAMES)
    assert [int(count) for count in lines[-10].split()[2:]] == result.confusion[0]
    assert lines[-10].split()[1] == f"{result.by_class['airplane']:.4f}"
    wide = [[0] * 10 for _ in range(10)]
    wide[3][5] = 1_234_567
    _, header, *rows = confusion_lines(wide, CLASS_NAMES)
    assert {len(line) for line in rows} == {len(header)}
    assert rows[3].index("1234567") + 7 == header.index("dog") + 3
    shown = json.loads(json.dumps(result.to_json()))
    assert shown["labels"] == list(CLASS_NAMES)
    assert shown["interval"] == list(result.interval)
