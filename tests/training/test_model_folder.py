"""A model folder: written, read back, loaded, and refused where it is not whole."""

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import mc1opt
from mc1opt.config import MLP, Config, LinearLayer, config_id
from mc1opt.dataset import CIFAR10_SHAPE, Task
from mc1opt.errors import ModelError, UsageError
from mc1opt.models.build import build_model
from mc1opt.training.checkpoint import load_weights
from mc1opt.training.model_folder import (
    file_sha256,
    load_model,
    read_model_folder,
    stored_task,
    weights_model,
    write_model_folder,
)
from tests.support.command import files_below
from tests.support.images import SMALL_MLP
from tests.support.trained import Trained, logits_of, random_images, write_model

MODEL = Path("models/m")
METRICS = {"accuracy": 0.5}


@pytest.fixture
def model(trained: Trained) -> Path:
    return write_model(MODEL, trained)


# ---- Whole -----------------------------------------------------------------------------------------------


def test_what_is_written_is_read_back(trained: Trained) -> None:
    written = write_model_folder(MODEL, trained.weights, trained.config, Task(), METRICS, "# A card\n")
    read = read_model_folder(MODEL)
    assert read == written
    assert (read.config, read.task, read.metrics) == (trained.config, Task(), METRICS)
    assert read.weights.read_bytes() == trained.weights.read_bytes()
    assert read.weights_sha256 == file_sha256(trained.weights)
    assert (MODEL / "model_card.md").read_text() == "# A card\n"
    assert json.loads((MODEL / "config.json").read_text())["config_id"] == config_id(trained.config)
    assert [path.name for path in MODEL.parent.iterdir()] == ["m"]


@pytest.mark.parametrize("load", [load_model, mc1opt.load_model], ids=["results", "package"])
def test_a_loaded_model_answers_as_the_trained_network(
    model: Path, trained: Trained, load: Callable[[Path | str], torch.nn.Module]
) -> None:
    network = build_model(trained.config.architecture, CIFAR10_SHAPE)
    load_weights(network, trained.weights)
    images = random_images(7)
    loaded = load(str(model))
    assert not any(module.training for module in loaded.modules())
    np.testing.assert_array_equal(logits_of(loaded, images), logits_of(network, images))
    assert logits_of(loaded, images[:1]).shape == (1, 10)


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import mc1opt, sys; assert callable(mc1opt.load_model); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


# ---- A model that is there already -----------------------------------------------------------------------


def test_a_model_is_replaced_only_by_force_and_other_files_stay(model: Path, trained: Trained) -> None:
    (model / "trainings.jsonl").write_text("a record\n")
    before = files_below(model)
    with pytest.raises(UsageError, match=r"models/m .*--force"):
        write_model_folder(MODEL, trained.weights, trained.config, Task(), METRICS, "")
    assert files_below(model) == before
    write_model_folder(MODEL, trained.weights, trained.config, Task(), METRICS, "", force=True)
    assert read_model_folder(model).metrics == METRICS
    assert (model / "trainings.jsonl").read_text() == "a record\n"
    assert [path.name for path in MODEL.parent.iterdir()] == ["m"]


def test_a_folder_with_records_alone_gets_its_model(trained: Trained) -> None:
    MODEL.mkdir(parents=True)
    (MODEL / "trainings.jsonl").write_text("a record\n")
    write_model_folder(MODEL, trained.weights, trained.config, Task(), METRICS, "")
    assert read_model_folder(MODEL).metrics == METRICS


def test_weights_that_do_not_exist_leave_nothing_behind(trained: Trained) -> None:
    with pytest.raises(ModelError, match="models/m "):
        write_model_folder(MODEL, Path("none.safetensors"), trained.config, Task(), METRICS, "")
    assert files_below(Path("models")) == {}


def test_a_write_that_was_cut_off_is_noticed(model: Path, trained: Trained, other: Trained) -> None:
    """The weights are put into place before the config: between the two, they don't belong together."""
    (model / "model.safetensors").write_bytes(other.weights.read_bytes())
    with pytest.raises(ModelError, match="another model"):
        read_model_folder(model)


@pytest.fixture(scope="module")
def other(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Weights of the same shapes."""
    weights = tmp_path_factory.mktemp("other") / "other.safetensors"
    content = bytearray(trained.weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    return Trained(trained.training, trained.results, weights)


# ---- Not whole, or not ours ------------------------------------------------------------------------------


def change_json(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return act


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors"),
        (lambda folder: (folder / "labels.json").unlink(), r"labels\.json"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json"),
        (lambda folder: (folder / "config.json").write_text("[]"), r"config\.json"),
        (lambda folder: (folder / "config.json").write_text("{}"), "no config"),
        (lambda folder: (folder / "metrics.json").write_bytes(b"\xff"), r"metrics\.json"),
        (truncate, r"model\.safetensors"),
        (
            change_json("config.json", lambda content: content["config"].update(schema_version=2)),
            r"config\.json: .*version 2; .* 1 to 1",
        ),
        (
            change_json("config.json", lambda content: content["config"].update(batch_size=0)),
            r"batch_size: .* 1",
        ),
        (
            change_json("config.json", lambda content: content["config"].update(batch_size=65)),
            r"config\.json .*[0-9a-f]{12}, and not [0-9a-f]{12}",
        ),
        (change_json("config.json", lambda content: content.pop("config_id")), "None"),
        (change_json("config.json", lambda content: content.update(config=[])), "no config"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), r"config\.json"),
        (change_json("labels.json", lambda labels: labels.__setitem__(0, "truck")), "same name"),
        (change_json("labels.json", lambda labels: labels.pop()), "do not fit the config"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(
    model: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(model)
    with pytest.raises(ModelError, match=message):
        load_model(model)


def test_a_folder_that_does_not_exist_is_named() -> None:
    with pytest.raises(ModelError, match="models/none"):
        load_model("models/none")


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("executed"),))


def test_a_pickle_in_place_of_the_weights_is_not_executed(model: Path) -> None:
    content = pickle.dumps(Trap())
    pickle.loads(content)
    Path("executed").unlink()  # it would be
    weights = model / "model.safetensors"
    weights.write_bytes(content)
    change_json("config.json", lambda known: known.update(weights_sha256=file_sha256(weights)))(model)
    with pytest.raises(ModelError, match=r"safetensors .*pickles"):
        load_model(model)
    assert not Path("executed").exists()


def test_weights_of_another_config_are_refused(trained: Trained) -> None:
    config = trained.config.model_copy(update={"architecture": SMALL_MLP})
    assert isinstance(config, Config)
    with pytest.raises(ModelError, match="config"):
        weights_model(trained.weights, config, CIFAR10_SHAPE)


def test_a_network_much_larger_than_its_weights_is_not_even_made(trained: Trained) -> None:
    """16 layers of 16,384 would take 17 GB."""
    huge = MLP(layers=(LinearLayer(width=16_384),) * 16)
    config = trained.config.model_copy(update={"architecture": huge})
    with pytest.raises(ModelError, match=r"[\d,]+ numbers for 4,[\d,]+ parameters"):
        weights_model(trained.weights, config, CIFAR10_SHAPE)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(trained: Trained, value: float) -> None:
    tensors = load_file(trained.weights)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    tensors[name][0, 0, 0, 0] = value
    save_file(tensors, "broken.safetensors")
    with pytest.raises(ModelError, match=re.escape(name)):
        weights_model(Path("broken.safetensors"), trained.config, CIFAR10_SHAPE)


@pytest.mark.parametrize("labels", [list(range(1000)), ["cat"], ["cat", "cat"], "cat", None])
def test_labels_that_are_no_class_names_are_refused(labels: object) -> None:
    with pytest.raises(ModelError, match=r"^model\.onnx is damaged"):
        stored_task("model.onnx", labels, {})


def test_a_task_has_the_shape_that_is_stored_or_cifar10s() -> None:
    assert stored_task("model.onnx", ["cat", "dog"], {}).shape == (3, 32, 2)
    assert stored_task("model.onnx", ["cat", "dog"], {"channels": 1, "size": 28}).shape == (1, 28, 2)
