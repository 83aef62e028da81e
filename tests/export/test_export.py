"""Exports of a real network: what is written, checked, said, recorded; and what is left alone."""

import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mc1opt.errors import Mc1optError, ModelError, StorageError, UsageError
from mc1opt.export import parity as export_check
from mc1opt.export.export import FORMATS, LEFT_BEHIND, ExportCommand, ExportedFile, export
from mc1opt.inference.export_record import recorded_hashes
from mc1opt.measurement.store import TRAININGS
from mc1opt.training.model_folder import file_sha256
from tests.support.command import files_below
from tests.support.image_sets import write_arrays_folder
from tests.support.trained import STORAGE, STUDY, Trained, write_model

EXPORTS = Path("storage/exports/s")


def run(
    trained: Trained, write: Callable[[str], object] = lambda _line: None, **options: object
) -> list[ExportedFile]:
    """An export of the study as safetensors, of the trained network's images; `options` change it."""
    fields = {
        "storage": STORAGE,
        "study": STUDY,
        "data": Path(trained.data.folder),
        "formats": ("safetensors",),
    }
    with Path("progress").open("a") as output:
        return export(ExportCommand(**(fields | options)), write=write, output=output)


# ---- What is written -------------------------------------------------------------------------------------


def test_the_output_says_the_quality_and_how_each_file_compares(exported_folder: Path) -> None:
    passed_over, first, *lines = (exported_folder / "output").read_text().splitlines()
    assert "#4" in passed_over
    for said in ("trial 1", "study s", "0.7500", "0.7100", "2 other seeds"):
        assert said in first
    assert [line.split()[0] for line in lines[::3]] == list(FORMATS)
    assert all("0 of 1,040" in line for line in lines[1::3])
    assert all(re.search(r" ms for 1, .* ms for 256 ", line) for line in lines[2::3])


def test_every_format_is_one_recorded_file_beside_the_database(exported_folder: Path) -> None:
    names = {path.name for path in (exported_folder / EXPORTS).iterdir()}
    assert names == {f"trial-1{ending}" for ending in FORMATS.values()}
    lines = (exported_folder / "storage/exports/exports.jsonl").read_text().splitlines()
    recorded = [json.loads(line) for line in lines]
    assert [entry["format"] for entry in recorded] == list(FORMATS)
    for entry in recorded:
        file = exported_folder / EXPORTS / Path(entry["path"]).name  # the folder was moved since
        assert hashlib.sha256(file.read_bytes()).hexdigest() == entry["sha256"]
        assert entry["milliseconds"]["batch_1_ms"] > 0.0


def test_what_is_returned_is_true_of_the_file(exported: Path, trained: Trained) -> None:
    (file,) = run(trained, output=Path("there"), trial=0)
    assert file.path == "there/trial-0.safetensors"
    assert file.bytes == Path(file.path).stat().st_size
    assert (file.max_logit_difference, file.different_decisions) == (0.0, 0)
    fields = ["format", "path", "bytes", "max_logit_difference", "different_decisions", "images", "latency"]
    assert list(file.to_json()) == fields


def test_in_half_the_share_of_other_decisions_is_said(exported: Path, trained: Trained) -> None:
    lines: list[str] = []
    (file,) = run(trained, lines.append, half=True)
    assert Path(file.path).samefile(exported / EXPORTS / "trial-1-half.safetensors")
    assert 0 < file.max_logit_difference < 0.1
    share = file.different_decisions / 1040
    assert f"{file.different_decisions} of 1,040" in lines[3]
    assert f"{share:.2%}" in lines[3]
    assert file.images == 1040
    assert file.bytes < (exported / EXPORTS / "trial-1.safetensors").stat().st_size


def test_a_model_folder_is_exported_under_its_own_name(exported: Path, trained: Trained) -> None:
    lines: list[str] = []
    model = write_model(Path("storage/models/m"), trained)
    for study in (None, STUDY):  # its study may be named as well, as `retrain` does
        (file,) = run(trained, lines.append, study=study, model=model, force=True)
        assert Path(file.path).samefile("storage/exports/m/model.safetensors")
    assert re.search("storage/models/m.*0.6250.*2 seeds 0.5000", lines[0])
    with pytest.raises(UsageError, match=f"'{STUDY}'.*'another'"):
        run(trained, study="another", model=model)


# ---- What is left alone ----------------------------------------------------------------------------------


def test_the_model_of_a_retraining_is_exported_beside_it_whatever_the_storage(
    exported: Path, trained: Trained
) -> None:
    model = write_model(Path("runs/b.db.files/models/m"), trained)
    (model / TRAININGS).touch()
    (file,) = run(trained, study=None, model=model)
    assert file.path == "runs/b.db.files/exports/m/model.safetensors"
    assert file_sha256(Path(file.path)) in recorded_hashes(
        Path("runs/b.db.files/exports/exports.jsonl"), "safetensors"
    )


def test_weights_that_a_search_deletes_meanwhile_are_exported_still(exported: Path, trained: Trained) -> None:
    def another_trial_is_better(line: str) -> None:
        if line.startswith("Exporting"):
            shutil.rmtree("storage/checkpoints")

    (file,) = run(trained, another_trial_is_better, output=Path("new"))
    assert file.different_decisions == 0


def test_a_file_that_exists_is_replaced_only_by_force(exported: Path, trained: Trained) -> None:
    path = EXPORTS / "trial-1.safetensors"
    path.write_text("mine")
    before = files_below(exported / "storage")
    with pytest.raises(UsageError, match=r"trial-1\.safetensors .*--force"):
        run(trained, output=EXPORTS)
    with pytest.raises(UsageError, match=r"trial-1\.safetensors, .*trial-1\.pt2 .*--force"):
        run(trained, formats=("safetensors", "pt2"), output=EXPORTS)
    assert files_below(exported / "storage") == before
    run(trained, output=EXPORTS, force=True)
    assert path.read_bytes() != b"mine"


def test_a_file_that_is_another_model_is_not_written_and_replaces_nothing(
    exported: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_check, "TOLERANCE", -1.0)  # not even the same model is the same
    before = files_below(exported / "storage")
    with pytest.raises(ModelError, match=r"trial-1\.onnx was not written"):
        run(trained, formats=("onnx",), force=True)
    assert files_below(exported / "storage") == before
    with pytest.raises(ModelError, match="was not written"):
        run(trained, output=Path("new"))
    assert files_below(Path("new")) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ("tflite",)}, "'tflite'.*onnx, pt2, safetensors, python"),
        ({"study": None}, "--study.*--model"),
        ({"model": Path("m"), "trial": 1}, "--trial.*--model"),
        ({"formats": ("python",), "half": True}, "--half.*--format python"),
        ({"trial": 2}, "trial 2"),
        ({"study": None, "model": Path("m")}, "no model folder m"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_made(
    exported: Path, trained: Trained, options: dict, message: str
) -> None:
    before = files_below(exported / "storage")
    with pytest.raises(Mc1optError, match=message):
        run(trained, **options)
    assert files_below(exported / "storage") == before


@pytest.mark.parametrize(
    ("file", "error"), [("storage/exports/exports.jsonl", StorageError), ("new", ModelError)]
)
def test_without_a_record_or_a_folder_nothing_is_written(
    exported: Path, trained: Trained, file: str, error: type[Mc1optError]
) -> None:
    """A pt2 file that the record does not know is not opened."""
    if Path(file).is_file():
        Path(file).unlink()
        Path(file).mkdir()
    else:
        Path(file).touch()
    with pytest.raises(error, match=re.escape(file)):
        run(trained, output=Path("new"))
    assert not Path("new").is_dir() or files_below(Path("new")) == {}


def test_what_a_killed_export_left_is_removed_and_that_of_a_living_one_stays(
    exported: Path, trained: Trained
) -> None:
    Path("new").mkdir()
    old = [f".{number}.trial-1.safetensors" for number in (1, 10**30)]
    others = [".1.trial-1.onnx", ".x.trial-1.safetensors", ".2.trial-1.safetensors"]
    for name in (*old, *others):
        Path("new", name).touch()
        os.utime(Path("new", name), (0, time.time() - (0 if name.startswith(".2.") else 2 * LEFT_BEHIND)))
    run(trained, output=Path("new"))
    assert {path.name for path in Path("new").iterdir()} == {"trial-1.safetensors", *others}


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_replaced(
    exported: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    path = Path("new/trial-1.safetensors")

    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def another_export(line: str) -> None:  # it ends between the look for files and the end of this one
        if line.startswith("Exporting"):
            path.parent.mkdir(exist_ok=True)
            path.write_text("of another")

    if not links:  # as on a FAT file system
        monkeypatch.setattr(os, "link", no_links)
        run(trained, output=Path("free"))
        assert {file.name for file in Path("free").iterdir()} == {path.name}
    with pytest.raises(UsageError, match=r"trial-1\.safetensors .*--force"):
        run(trained, another_export, output=path.parent)
    assert {file.name: file.read_text() for file in path.parent.iterdir()} == {path.name: "of another"}


def test_a_script_is_for_the_images_that_the_model_was_trained_on(exported: Path, trained: Trained) -> None:
    others = Path("others")
    write_arrays_folder(others)
    with pytest.raises(UsageError, match=rf"{trained.data.name}.* others .*--data.*--format python"):
        run(trained, formats=("python",), data=others, output=Path("new"))
    assert not Path("new").exists()
    run(trained, data=others, output=Path("new"))  # weights are of all images
