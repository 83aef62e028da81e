"""What can be exported, and what is said where it cannot."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import optuna
import pytest

from mc1opt.config import config_to_json
from mc1opt.database.location import checkpoints_folder, files_folder
from mc1opt.database.opening import open_storage
from mc1opt.database.studies import claim_study, delete_study, open_for_deletion
from mc1opt.database.trial_files import kept_weights, study_folder
from mc1opt.errors import ModelError, StorageError, UsageError
from mc1opt.export.source import folder_source, trial_source
from mc1opt.spec import Fidelity
from mc1opt.training.tensor_file import read_tensors, write_tensors
from tests.support.trained import BEST, STORAGE, STUDY, Trained, train_small, write_model, write_study


@pytest.fixture
def study(trained: Trained) -> None:
    write_study(trained)


@pytest.mark.usefixtures("study")
def test_without_a_number_it_is_the_best_trial_and_its_kept_weights(trained: Trained) -> None:
    source = trial_source(STORAGE, STUDY, None)
    assert source.title == f"trial {BEST} of study s"
    assert source.quality == "validation 0.7500, one seed (0.7100 with 2 other seeds), not tested"
    assert (source.stem, source.folder, source.study) == ("trial-1", "s", "s")
    assert source.config == trained.config
    assert source.weights.read_bytes() == trained.weights.read_bytes()
    assert source.fidelity == trained.training.fidelity
    assert source.seed == trained.training.seed
    another = trial_source(STORAGE, STUDY, 0)
    assert another.stem == "trial-0"
    assert another.quality == "validation 0.5000, one seed, not tested"


@pytest.mark.parametrize(
    ("again", "best"),
    [({0: [0.49, 0.48], 1: [0.44, 0.45]}, 0), ({2: [0.9, 0.9]}, BEST)],
    ids=["by new trainings", "of those with kept weights"],
)
def test_the_best_is_chosen(trained: Trained, again: dict[int, list[float]], best: int) -> None:
    write_study(trained, again=again)
    assert trial_source(STORAGE, STUDY, None).stem == f"trial-{best}"


@pytest.mark.usefixtures("study")
@pytest.mark.parametrize(
    ("number", "message"),
    [
        (2, r"trial 2 of study 's' .*: 0, 1\."),
        (3, r"trial 3 of study 's' .*diverged.*: 0, 1\."),
        (4, r"trial 4 .*newer"),
        (9, r"study 's' .*trial 9.*0 to 4"),
    ],
    ids=["not kept", "failed", "of a newer mc1opt", "none"],
)
def test_a_trial_without_kept_weights_is_refused_with_those_that_have_them(number: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        trial_source(STORAGE, STUDY, number)


def test_a_study_that_does_not_exist_or_has_no_finished_trial_is_named(study: None) -> None:
    with pytest.raises(StorageError, match=r"'other'.*: s\."):
        trial_source(STORAGE, "other", None)
    optuna.create_study(study_name="empty", storage=open_storage(STORAGE, create=False), direction="maximize")
    with pytest.raises(UsageError, match=r"'empty'.*mc1opt run"):
        trial_source(STORAGE, "empty", None)


# ---- Kept weights that are not the trial's ---------------------------------------------------------------


def test_studies_of_one_name_in_two_databases_of_a_folder_have_their_own_weights(
    trained: Trained, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = train_small(tmp_path / "other", seed=trained.training.seed + 1)
    trainings = {"runs/a.db": trained, "runs/b.db": other, "runs/mc1opt.db": trained}
    for storage, training in trainings.items():
        write_study(training, storage=storage)
    for storage, training in trainings.items():
        assert trial_source(storage, STUDY, None).weights.read_bytes() == training.weights.read_bytes()
    delete_study(open_for_deletion("runs/a.db", STUDY))
    delete_study(open_for_deletion("runs/mc1opt.db", STUDY))
    assert trial_source("runs/b.db", STUDY, None).seed == other.training.seed


@pytest.mark.usefixtures("study")
@pytest.mark.parametrize("change", [{"seed": 5}, {"label_smoothing": 0.2}, {"config": "{}"}])
def test_weights_of_another_training_are_refused(trained: Trained, change: dict[str, Any]) -> None:
    path = kept_weights(study_folder(checkpoints_folder(STORAGE), STUDY))[BEST]
    file = read_tensors(path)
    config = config_to_json(trained.config) | change
    config.pop("seed", None)
    metadata = file.metadata | {"config": json.dumps(config)}
    metadata |= {key: str(value) for key, value in change.items() if key in metadata}
    write_tensors(path, file.tensors, metadata)
    with pytest.raises(ModelError, match=r"safetensors .*trial 1"):
        trial_source(STORAGE, STUDY, None)


@pytest.mark.usefixtures("study")
def test_damaged_or_unreadable_weights_are_refused() -> None:
    path = kept_weights(study_folder(checkpoints_folder(STORAGE), STUDY))[BEST]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="checksum"):
        trial_source(STORAGE, STUDY, None)
    path.unlink()
    path.mkdir()  # the superuser may read everything else
    with pytest.raises(ModelError, match=r"trial-00001.safetensors .*Is a directory"):
        trial_source(STORAGE, STUDY, None)


# ---- Model folders ---------------------------------------------------------------------------------------


def test_a_model_folder_says_how_it_was_trained_and_tested(trained: Trained) -> None:
    source = folder_source(write_model(Path("models/m"), trained))
    assert source.quality == "test 0.6250, mean of 2 seeds 0.5000"
    assert (source.stem, source.folder, source.study, source.seed) == ("model", "m", "s", 1)
    assert source.fidelity == Fidelity(train_images=300, epochs=2)
    assert source.data == {"name": trained.data.name, "sha256": trained.data.sha256}


def test_a_model_folder_without_measurements_is_not_tested_and_a_damaged_one_refused(
    trained: Trained,
) -> None:
    source = folder_source(write_model(Path("models/m"), trained, test=None, epochs=None, study=None))
    assert (source.quality, source.fidelity, source.study) == ("not tested", None, "")
    Path("models/m/model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="is damaged"):
        folder_source(Path("models/m"))


# ---- Renamed, copied, moved ------------------------------------------------------------------------------


def copy(to_study: str, to_storage: str = STORAGE) -> None:
    urls = {"from_storage": f"sqlite:///{STORAGE}", "to_storage": f"sqlite:///{to_storage}"}
    optuna.copy_study(from_study_name=STUDY, to_study_name=to_study, **urls)


def test_a_copy_exports_the_originals_weights_into_its_folder(trained: Trained) -> None:
    write_study(trained)
    claim_study(STORAGE, STUDY)
    copy("copy")
    source = trial_source(STORAGE, "copy", None)
    assert source.weights == trial_source(STORAGE, STUDY, None).weights
    assert (source.study, source.study_folder) == ("copy", STUDY)


def test_a_study_copied_before_it_kept_its_folder_is_told_where_its_weights_are(trained: Trained) -> None:
    write_study(trained)
    copy("a copy")
    with pytest.raises(UsageError, match="has weights of the same config and seed") as caught:
        trial_source(STORAGE, "a copy", None)
    weights = checkpoints_folder(STORAGE)
    missing, command = str(caught.value).splitlines()
    assert str(study_folder(weights, "a copy")) in missing
    subprocess.run(command, shell=True, check=True)
    assert trial_source(STORAGE, "a copy", None).weights.parent == study_folder(weights, "a copy")


def test_weights_of_others_are_not_taken_for_those_of_a_copy(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write_study(train_small(tmp_path / "other", seed=trained.training.seed + 1), name="other")
    write_study(trained)
    shutil.rmtree(study_folder(checkpoints_folder(STORAGE), STUDY))
    with pytest.raises(UsageError, match=r"not there\. .*beside the database"):
        trial_source(STORAGE, STUDY, None)


def test_a_copy_in_another_database_is_told_where_its_weights_would_be(trained: Trained) -> None:
    write_study(trained)
    claim_study(STORAGE, STUDY)
    copy(STUDY, "away.db")
    with pytest.raises(UsageError) as caught:
        trial_source("away.db", STUDY, None)
    message, command = str(caught.value).splitlines()
    assert f"away.db.files/checkpoints/{STUDY}" in message
    assert command == f"  mc1opt retrain --study {STUDY} --trial {BEST} --storage away.db"
    shutil.copytree(files_folder(STORAGE), files_folder("away.db"))
    assert trial_source("away.db", STUDY, None).weights.exists()


def test_an_empty_folder_is_called_so(trained: Trained) -> None:
    write_study(trained)
    for path in kept_weights(study_folder(checkpoints_folder(STORAGE), STUDY)).values():
        path.unlink()
    with pytest.raises(UsageError, match=f"checkpoints/{STUDY}.* none"):
        trial_source(STORAGE, STUDY, None)
