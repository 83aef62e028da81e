"""What older code has stored is read as it was meant, and goes on to what that code would have made of it.

The files lie in `tests/fixtures/stored`, whose README says which commit wrote them, and how.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from mc1opt.config import (
    MLP,
    SGD,
    AdamW,
    Augmentation,
    Config,
    ConvBlock,
    ConvNet,
    Cosine,
    LinearLayer,
    OneCycle,
    PlainStem,
    Pooling,
    WhitenedStem,
)
from mc1opt.data.sources import find_data
from mc1opt.dataset import DataSet
from mc1opt.machine.devices import resolve_precision
from mc1opt.machine.environment import versions
from mc1opt.spec import Fidelity, Training
from mc1opt.training.loop import train
from tests.support.command import mc1opt
from tests.support.curves import Switches
from tests.support.image_sets import write_arrays_folder, write_binary_folder
from tests.support.studies import WHOLE, fail_some, run_study, stored

STORED = Path(__file__).parents[1] / "fixtures" / "stored"
SMALL = STORED / "small"
IMAGES = {"train_images": 200, "test_images": 40}


def printed(name: str) -> Any:
    """What the older code printed as JSON."""
    return json.loads((SMALL / f"{name}.json").read_text())


@pytest.fixture
def small(tmp_path: Path, mc1opt_here) -> Any:
    """The command, in a folder that holds the stored study, its definition and its images."""
    shutil.copytree(SMALL, tmp_path, dirs_exist_ok=True)
    write_binary_folder(tmp_path / "images", **IMAGES)
    return mc1opt_here


def read(command: Any, *arguments: str) -> Any:
    done = command(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def covers(now: Any, then: Any) -> bool:
    """Whether all that there was is there with its value; newer code may say more."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(key in now and covers(now[key], then[key]) for key in then)
    if isinstance(then, list):
        return len(now) == len(then) and all(covers(new, old) for new, old in zip(now, then, strict=True))
    return bool(now == then)


# ---- The study database ----------------------------------------------------------------------------------


def test_a_stored_study_is_shown_as_it_was(small) -> None:
    assert covers(read(small, "show", "--study", "small"), printed("show"))
    assert covers(read(small, "studies")["studies"], printed("studies"))


def test_a_study_that_older_code_began_goes_on_trial_by_trial_the_same(
    tmp_path: Path, switches: Switches
) -> None:
    shutil.copy(STORED / "begun.db", tmp_path / "s.db")
    fail_some(switches)
    assert run_study(WHOLE, keep=3).reason == "finished"
    assert facts("s.db") == facts(str(STORED / "whole.db"))


def test_a_new_study_is_trial_by_trial_the_one_that_older_code_made(switches: Switches) -> None:
    fail_some(switches)
    run_study(WHOLE, keep=3)
    assert facts("s.db") == facts(str(STORED / "whole.db"))


FACTS = ("number", "outcome", "value", "config", "config_id", "params", "seed", "values_by_epoch", "losses")
FACTS += ("parameters", "macs", "constraints", "duplicate_of", "starting_point")


def facts(path: str) -> list[dict[str, Any]]:
    return [
        {name: dataclasses.asdict(trial)[name] for name in FACTS}
        | {"failure": trial.failure and trial.failure["kind"]}
        for trial in stored(path).trials
    ]


def test_a_confirmed_trial_of_older_code_is_not_confirmed_again(small) -> None:
    done = small(
        "run", "--study", "small", "--data", "images", "--trials", "8", "--workers", "1", "--confirm", "1"
    )
    assert done.returncode == 0, done.stderr
    assert covers(read(small, "show", "--study", "small"), printed("show"))


# ---- Retraining, presets, models, exports, the mirror -----------------------------------------------------


def test_a_stored_retraining_is_taken_over_without_a_training(small) -> None:
    trainings = Path("storage/models/small/trainings.jsonl")
    before = trainings.read_text()
    chosen = ["--epochs", "3", "--trial", "7", "--seeds", "2", "--folds", "2", "--device", "cpu"]
    then = printed("retrain")
    if resolve_precision("cpu") != then["precision"]:
        pytest.skip("the stored trainings are in float32, and this CPU trains in bfloat16")
    now = read(small, "retrain", "--study", "small", "--data", "images", *chosen)
    assert trainings.read_text() == before
    for key in ("candidates", "winner", "test", "folds", "retraining", "images", "data", "versions"):
        assert covers(now.get(key), then.get(key)), key


def test_a_stored_model_is_opened_and_looked_at(small) -> None:
    now, then = read(small, "evaluate", "storage/models/small", "--data", "images"), printed("evaluate")
    assert now.pop("calibration_error") == pytest.approx(then.pop("calibration_error"), abs=1e-4)
    assert covers(now, then)


def test_a_stored_preset_is_listed_with_its_results(small) -> None:
    listed = {preset["name"]: preset for preset in read(small, "presets")}
    assert covers(listed["cnn-6-16-fc"], printed("preset"))


def test_kept_weights_of_a_stored_trial_are_exported_to_the_same_tensors(small) -> None:
    file = Path("storage/exports/small/trial-7.safetensors")
    before = load_file(file)
    file.unlink()
    done = small("export", "--study", "small", "--trial", "7", "--format", "safetensors", "--data", "images")
    assert done.returncode == 0, done.stderr
    now = load_file(file)
    assert now.keys() == before.keys()
    assert all((now[name] == tensor).all() for name, tensor in before.items())


@pytest.mark.usefixtures("small")
def test_runs_that_were_mirrored_are_not_written_again() -> None:
    (ledger,) = Path("storage/wandb").glob(".mc1opt-*.json")
    before = json.loads(ledger.read_text())
    for run in before["runs"].values():
        (ledger.parent / run["folder"]).mkdir()
    assert len(before["runs"]) == 11
    done = mc1opt("mirror", "--study", "small", "--wandb", "offline")
    assert done.returncode == 0, done.stderr
    assert json.loads(ledger.read_text()) == before


# ---- Images and trainings --------------------------------------------------------------------------------


def test_a_cache_entry_of_older_code_is_used_as_it_is(tmp_path: Path) -> None:
    entry = json.loads((SMALL / "cache_entry.json").read_text())
    name = printed("evaluate")["data"]
    folder = tmp_path / "cache" / name
    write_arrays_folder(folder, **IMAGES)
    (folder / "source.json").write_text((SMALL / "cache_entry.json").read_text())
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    write_binary_folder(tmp_path / "images", **IMAGES)
    found = find_data(tmp_path / "images")
    assert (found.name, found.sha256) == (name, printed("retrain")["data"]["sha256"])
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert before.items() <= after.items()
    assert entry["counts"] == [found.train_images, IMAGES["test_images"]]


CONFIGS = {
    "mlp": Config(
        architecture=MLP(layers=(LinearLayer(width=32, norm="batch", dropout=0.1), LinearLayer(width=16))),
        optimizer=AdamW(learning_rate=0.01, weight_decay=0.01),
        schedule=Cosine(),
        batch_size=20,
        label_smoothing=0.1,
    ),
    "published convnet": Config(
        architecture=ConvNet(
            stem=PlainStem(),
            blocks=(ConvBlock(width=6, kernel_size=5), ConvBlock(width=16, kernel_size=5, dropout=0.2)),
            head=(LinearLayer(width=32),),
        ),
        optimizer=SGD(learning_rate=0.1),
        batch_size=50,
    ),
    "whitened convnet": Config(
        architecture=ConvNet(
            stem=WhitenedStem(activation="gelu"),
            blocks=(
                ConvBlock(width=16, padding=1, norm="batch", activation="gelu", pooling=Pooling(kind="max")),
                ConvBlock(width=16, padding=1, norm="batch", activation="gelu"),
            ),
            global_pooling="average",
        ),
        optimizer=SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
        schedule=OneCycle(warmup=0.25),
        batch_size=20,
        augmentation=Augmentation(flip=True, crop=2, cutout=4),
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_are_those_of_older_code_bit_for_bit(name: str, tmp_path: Path) -> None:
    now = losses(name, tmp_path)
    golden = json.loads((STORED / "losses.json").read_text())
    here = versions(1, "float32")
    # Written on an Intel CPU; what torch calls AVX512 has other last bits on an AMD one.
    same = "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    same &= all(golden["versions"][key] == here[key] for key in ("torch", "cpu"))
    # Another CPU or another torch has other last bits, and more of them with every step.
    assert now == (golden[name] if same else [pytest.approx(value, rel=0.02) for value in golden[name]])


def losses(name: str, folder: Path) -> list[float]:
    """Of each epoch the training loss."""
    write_arrays_folder(folder, **IMAGES)
    data = DataSet(name="own", folder=str(folder), sha256="0" * 64, train_images=200, validation_images=50)
    fidelity = Fidelity(train_images=150, epochs=3)
    return [
        epoch.loss for epoch in train(Training(config=CONFIGS[name], fidelity=fidelity, seed=1, data=data))
    ]
