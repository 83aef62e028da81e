"""The training script: the same network, the same training, without mc1opt."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mc1opt.config import (
    MLP,
    SGD,
    Adam,
    AdamW,
    Architecture,
    Augmentation,
    Config,
    ConvBlock,
    ConvNet,
    Cosine,
    LinearLayer,
    Muon,
    OneCycle,
    Pooling,
    WhitenedStem,
)
from mc1opt.dataset import CIFAR10_SHAPE, DataSet, Task
from mc1opt.errors import ModelError
from mc1opt.export.script import run_script_network, training_script
from mc1opt.export.source import ExportSource
from mc1opt.models.build import build_model
from mc1opt.models.whitening import whitening_filters
from mc1opt.presets import PRESETS
from mc1opt.spec import Fidelity
from mc1opt.training.checkpoint import save_weights
from tests.support.images import SMALL_CONVNET
from tests.support.trained import Trained, logits_of, random_images, train_small

RUN = """
import importlib.abc, runpy, sys

class NoMc1opt(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "mc1opt":
            raise ImportError("mc1opt is not here")

sys.meta_path.insert(0, NoMc1opt())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
CIFAR10 = DataSet(name="cifar10", folder="", sha256="0" * 64, train_images=50_000, validation_images=5_000)
OWN = CIFAR10.model_copy(update={"name": "own-0123456789ab"})
EVERYTHING = ConvNet(
    stem=WhitenedStem(kernel_size=3, activation="silu"),
    blocks=(
        ConvBlock(width=4, padding=1, norm="batch", pooling=Pooling(kind="max", size=3, stride=2)),
        ConvBlock(width=6, kernel_size=2, stride=2, dropout=0.25, activation="gelu", residual=True),
        ConvBlock(width=5, padding=1, norm="batch", pooling=Pooling(kind="average"), activation="silu"),
    ),
    order="norm_activation_pool",
    global_pooling="max",
    head=(LinearLayer(width=7, norm="batch", dropout=0.5), LinearLayer(width=6, activation="gelu")),
    logit_scale=0.3,
)
ARCHITECTURES: dict[str, Architecture] = {
    "small convnet": SMALL_CONVNET,
    "everything": EVERYTHING,
    "identity": EVERYTHING.model_copy(update={"identity_initialisation": True}),
    "everything, flat": EVERYTHING.model_copy(update={"global_pooling": "none", "head": ()}),
    "no hidden layer": MLP(layers=()),
    **{name: PRESETS[name].config.architecture for name in ("mlp-128-64", "cnn-32-128-pool-dropout")},
}
CONFIGS = {
    "plain": Config(architecture=MLP(layers=()), optimizer=SGD(learning_rate=0.1), batch_size=200),
    "full": Config(
        architecture=EVERYTHING,
        optimizer=SGD(learning_rate=0.123456, momentum=0.9, nesterov=True, weight_decay=5e-4),
        schedule=OneCycle(warmup=0.3),
        batch_size=64,
        label_smoothing=0.1,
        progressive_size=24,
        augmentation=Augmentation(flip=True, crop=2, cutout=6),
    ),
    "cosine": Config(
        architecture=MLP(layers=(LinearLayer(width=8),)),
        optimizer=AdamW(learning_rate=1e-05),
        weight_averaging=0.5,
        schedule=Cosine(),
        batch_size=64,
        augmentation=Augmentation(flip="alternating", cutout=5),
    ),
    "muon": Config(
        architecture=EVERYTHING,
        optimizer=Muon(learning_rate=0.02, sgd_learning_rate=0.123456, momentum=0.9, weight_decay=0.01),
        batch_size=64,
    ),
    **{name: preset.config for name, preset in PRESETS.items()},
}


def source_of(config: Config, weights: Path = Path("none"), **changes: object) -> ExportSource:
    fields = {
        "title": "trial 3 of study cnn",
        "quality": "validation 0.8012, one seed (0.7988 with 2 other seeds), not tested",
        "stem": "trial-3",
        "folder": "cnn",
        "study": "cnn",
        "study_folder": "cnn",
        "weights": weights,
        "config": config,
        "task": Task(),
        "data": {"name": CIFAR10.name, "sha256": CIFAR10.sha256},
        "fidelity": Fidelity(train_images=20_000, epochs=10),
        "seed": 2**62 + 1,
    }
    return ExportSource(**(fields | changes))


def run_script(path: Path, *arguments: str) -> list[str]:
    """The lines that a script prints in a process that cannot import mc1opt."""
    command = [sys.executable, "-c", RUN, str(path), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as the trainings of mc1opt have it
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.parametrize("ending", ['"""', '\\"""', '"\\""', "\\N", "\n\r\u2028"])
def test_a_studys_name_is_text_in_the_script_and_nothing_else(trained: Trained, ending: str) -> None:
    name = f'cnn{ending}\nPath("executed").write_text("")\n{ending}'
    source = source_of(trained.config, trained.weights, study=name)
    Path("script.py").write_text(training_script(source, trained.data, "script.py"))
    run_script_network(Path("script.py"), source)
    assert not Path("executed").exists()
    assert "study cnn" in Path("script.py").read_text()


# ---- The same network ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_equal_weights_give_equal_logits(name: str) -> None:
    config = CONFIGS["plain"].model_copy(update={"architecture": ARCHITECTURES[name]})
    torch.manual_seed(0)
    network = build_model(
        config.architecture, CIFAR10_SHAPE, mean=torch.full((3,), 120.0), std=torch.full((3,), 60.0)
    )
    with torch.no_grad():
        for tensor in network.state_dict().values():  # batch norms and the whitened stem, too
            if tensor.is_floating_point() and tensor.ndim != 2:
                tensor.add_(torch.rand(tensor.shape))
    save_weights(network, Path("w.safetensors"), {})
    source = source_of(config, Path("w.safetensors"))
    Path("script.py").write_text(training_script(source, CIFAR10, "script.py"))
    images = random_images(20)
    script_network = run_script_network(Path("script.py"), source)
    torch.testing.assert_close(logits_of(script_network, images), logits_of(network, images))


@pytest.mark.parametrize("initialisation", ["he", "torch"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_untrained_network_has_the_same_weights_from_the_same_seed(name: str, initialisation: str) -> None:
    fields = {"architecture": ARCHITECTURES[name], "initialisation": initialisation}
    config = CONFIGS["plain"].model_copy(update=fields)
    names = {"__name__": "script"}
    exec(training_script(source_of(config), CIFAR10, "script.py"), names)
    stem = getattr(config.architecture, "stem", None)
    images = torch.zeros(2, 3, 32, 32)
    whitening = whitening_filters(images, stem.kernel_size) if isinstance(stem, WhitenedStem) else None
    torch.manual_seed(5)
    network = build_model(
        config.architecture, CIFAR10_SHAPE, initialisation=initialisation, whitening=whitening
    )
    torch.manual_seed(5)
    states = (each.state_dict().values() for each in (network, names["build_network"](images)))
    assert all(torch.equal(ours, scripts) for ours, scripts in zip(*states, strict=True))


# ---- The same training -----------------------------------------------------------------------------------

EPOCH = re.compile(r"epoch +(\d+)  loss ([\d.]+)  validation ([\d.]+)  [\d.]+ s")
VARIANTS = {
    "adam, constant": {"architecture": MLP(layers=()), "optimizer": Adam(learning_rate=1e-3), "crop": 3},
    "adamw, cosine": {"optimizer": AdamW(learning_rate=1e-3), "schedule": Cosine(), "flip": True},
    "muon": {"optimizer": Muon(learning_rate=0.02, sgd_learning_rate=0.05, weight_decay=0.01)},
    "drawn as PyTorch does": {"initialisation": "torch"},
    "values from -1 to 1": {"normalisation": "symmetric"},
    "alternating flip": {"flip": "alternating", "epochs": 3},
    "smaller images": {"progressive_size": 20, "epochs": 3},
    "averaged weights": {"weight_averaging": 0.6, "epochs": 3},
    "in bfloat16": {"precision": "bfloat16"},
    "balanced classes": {"class_weights": "balanced"},
    "grey images of 28 pixels": {"channels": 1, "size": 28},
    "grey images from -1 to 1": {"channels": 1, "size": 28, "normalisation": "symmetric"},
}


def assert_same_curve(trained: Trained) -> None:
    """The script of this training prints the same losses and validation accuracies."""
    training = trained.training
    known = {name: getattr(training, name) for name in ("fidelity", "seed", "device", "precision")}
    known["class_weights"] = training.class_weights
    known["data"] = {"name": trained.data.name, "sha256": trained.data.sha256}
    known["task"] = Task(channels=trained.data.channels, size=trained.data.size)
    source = source_of(trained.config, trained.weights, **known)
    Path("script.py").write_text(training_script(source, trained.data, "script.py"))
    *lines, last = run_script(Path("script.py"), "--data", trained.data.folder)
    epochs = [EPOCH.fullmatch(line) for line in lines]
    assert len(epochs) == len(trained.results)
    for match, result in zip(epochs, trained.results, strict=True):
        assert match is not None, lines
        assert int(match[1]) == result.epoch + 1
        assert float(match[2]) == pytest.approx(result.loss, abs=1e-4)
        assert float(match[3]) == pytest.approx(result.validation_accuracy, abs=0.026)  # one image of 40
    assert last == f"validation accuracy {float(epochs[-1][3]):.4f} (40 images)"


def test_the_script_trains_the_same_epochs_without_mc1opt(trained: Trained) -> None:
    assert_same_curve(trained)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_so_it_does_with_other_recipes(name: str, tmp_path: Path) -> None:
    fields = dict(VARIANTS[name])
    augmentation = {key: fields.pop(key) for key in ("flip", "crop") if key in fields}
    folder = tmp_path / "images"
    folder.mkdir()
    assert_same_curve(train_small(folder, augmentation=Augmentation(**augmentation), **fields))


@pytest.mark.slow
def test_with_test_it_trains_on_all_images_and_looks_at_the_test_images_once(trained: Trained) -> None:
    source = source_of(trained.config, fidelity=Fidelity(train_images=100, epochs=1))
    Path("script.py").write_text(training_script(source, trained.data, "script.py"))
    *lines, last = run_script(Path("script.py"), "--data", trained.data.folder, "--test")
    assert len(lines) == 1
    assert "validation" not in lines[0]
    assert re.fullmatch(r"test accuracy [01]\.\d{4} \(50 images\)", last)


# ---- To be read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("data", [CIFAR10, OWN], ids=["cifar10", "own"])
def test_the_script_is_formatted(name: str, data: DataSet) -> None:
    source = source_of(CONFIGS[name], data={"name": data.name, "sha256": data.sha256})
    text = training_script(source, data, "trial-3.py")
    path = Path("trial-3.py")
    path.write_text(text)
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["format", "--check"], ["check", "--select", "E,F,W,I,B"]):
        arguments = [*ruff, *command, "--isolated", "--line-length", "88", str(path)]
        result = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr


def test_the_script_says_what_it_is_and_how_good() -> None:
    text = training_script(source_of(CONFIGS["full"]), CIFAR10, "trial-3.py")
    for said in ("python trial-3.py --test ", source_of(CONFIGS["full"]).quality, "study cnn, config "):
        assert said in text
    assert "Trained" not in text
    assert "mc1opt" not in text.partition('"""\n\nimport')[2]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_script_has_the_values_of_the_config_and_defines_only_what_it_uses(name: str) -> None:
    names: dict = {"__name__": "script"}
    exec(text := training_script(source_of(CONFIGS[name]), CIFAR10, "x.py"), names)
    config = CONFIGS[name]
    for part in (config.optimizer, config.schedule, config.augmentation):
        assert all(names[field.upper()] == value for field, value in part if field != "kind")
    assert (names["BATCH_SIZE"], names["LABEL_SMOOTHING"]) == (config.batch_size, config.label_smoothing)
    assert (names["SEED"], names["EPOCHS"], names["TRAIN_IMAGES"]) == (2**62 + 1, 10, 20_000)
    for function in (config.optimizer.kind, config.schedule.kind, config.normalisation):
        assert re.search(rf"(?<!def )\b{function}\(", text)
    for defined in re.findall(r"^(?:def |class )?(\w+)(?: = |\()", text, re.MULTILINE):
        assert len(re.findall(rf"\b{defined}\b", text)) > 1, defined


def test_a_script_for_own_images_fetches_no_others() -> None:
    source = source_of(CONFIGS["full"], data={"name": OWN.name, "sha256": OWN.sha256})
    text = training_script(source, OWN, "trial-3.py")
    assert OWN.name in text.splitlines()[0]
    assert not re.search("CIFAR10|torchvision", text)


@pytest.mark.parametrize(
    ("device", "precision", "said"),
    [
        ("cpu", "bfloat16", "cpu in bfloat16, with one thread: OMP_NUM_THREADS=1"),
        ("cuda", "bfloat16", 'cuda in bfloat16.\n"""'),
        ("cpu", '"""\nimport this', None),
        (None, "float32", None),
    ],
)
def test_the_script_says_where_it_was_trained_and_what_gives_the_same_numbers(
    device: str | None, precision: str, said: str | None
) -> None:
    def script(**changes: object) -> str:
        source = source_of(CONFIGS["full"], device=device, precision=precision, **changes)
        return training_script(source, CIFAR10, "trial-3.py")

    assert ("Trained on" in script()) == (said is not None)
    assert "import this" not in script()
    assert "Trained" not in script(data=None)
    if said is not None:
        assert f"Trained on {said}" in script()
        assert "in 4 steps" in script(accumulation=4)
        assert "OMP_NUM_THREADS" not in script(accumulation=4)


def test_a_model_of_all_images_validates_on_the_rest_of_fewer_and_one_of_unknown_epochs_has_no_script() -> (
    None
):
    source = source_of(CONFIGS["plain"], fidelity=Fidelity(train_images=50_000, epochs=3))
    assert "TRAIN_IMAGES = 45_000" in training_script(source, CIFAR10, "model.py")
    with pytest.raises(ModelError, match="epochs"):
        training_script(source_of(CONFIGS["plain"], fidelity=None), CIFAR10, "model.py")
