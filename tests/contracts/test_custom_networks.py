"""A network of the user's own, or of timm, goes through every command, kill -9 included, as ours do."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from mc1opt.training.model_folder import load_model
from tests.support.command import epochs_of_running_trials, finish, mc1opt, stored_study, wait_until
from tests.support.image_sets import make_arrays

OWN = '''"""A network beside the study file, with a bug in one branch."""

from _net import Net

from mc1opt.config import SGD, Config, CustomNetwork

EPOCHS = 4
TRAIN_IMAGES = 100


def build(data, **arguments):
    return Net(data, **arguments)


def search_space(trial):
    pooling = trial.suggest_categorical("pooling", POOLINGS)
    network = CustomNetwork(arguments={"width": trial.suggest_int("width", 4, 12), "pooling": pooling})
    rate = trial.suggest_float("learning_rate", 0.01, 0.3, log=True)
    return Config(architecture=network, optimizer=SGD(learning_rate=rate, momentum=0.9), batch_size=10)


POOLINGS = ["mean", "amax", "no_such_pooling"]
STARTING_POINTS = {
    "good": {"width": 8, "pooling": "mean", "learning_rate": 0.1},
    "bad": {"width": 8, "pooling": "no_such_pooling", "learning_rate": 0.1},
}
'''
NET = """from torch import nn


class Net(nn.Module):
    def __init__(self, data, width, pooling):
        super().__init__()
        self.convolution = nn.Conv2d(data.channels, width, 3, stride=2)
        self.dropout = nn.Dropout(0.1)
        self.unused = nn.Linear(3, 3)
        self.classifier = nn.Linear(width, data.classes)
        self.pooling = pooling

    def forward(self, images):
        values = self.dropout(self.convolution(images).relu())
        return self.classifier(getattr(values, self.pooling)((2, 3)))
"""
TIMM = '''"""A network of timm, from scratch."""

import timm

from mc1opt.config import Config, CustomNetwork
from mc1opt.suggest import suggest_optimizer

EPOCHS = 2
TRAIN_IMAGES = 40


def build(data, name, **arguments):
    return timm.create_model(name, in_chans=data.channels, num_classes=data.classes, **arguments)


def search_space(trial):
    drop_rate = trial.suggest_float("drop_rate", 0.0, 0.5)
    network = CustomNetwork(arguments={"name": "resnet10t", "drop_rate": drop_rate})
    return Config(architecture=network, optimizer=suggest_optimizer(trial, muon=True), batch_size=20)
'''


@pytest.mark.slow
@pytest.mark.parametrize("study", ["own", "thirds"])
def test_every_command_takes_a_custom_network_also_after_kill_9(tiny, start, mc1opt_here, study) -> None:
    Path("_net.py").write_text(NET)
    Path("own.py").write_text(OWN)
    Path("thirds.py").write_text(TIMM)
    search = ("run", "--study", f"./{study}.py", "--trials", "4", "--workers", "1", "--data", "images")
    search = (*search, "--confirm", "1", "--max-macs", "100000000")
    running = start(*search)
    wait_until(lambda: epochs_of_running_trials() >= 1)
    running.send_signal(signal.SIGKILL)
    assert finish(running).returncode == -signal.SIGKILL

    ended = mc1opt_here(*search)
    assert ended.returncode == 0, ended.stderr
    trials = stored_study(study)["trials"]
    assert sum(trial["outcome"] in ("complete", "pruned") for trial in trials) == 4
    failures = [trial["failure"] for trial in trials if trial["outcome"] == "failed"]
    assert {failure["kind"] for failure in failures} == ({"network"} if study == "own" else set())
    assert all("no_such_pooling" in each["message"] and "_net.py" in each["message"] for each in failures)

    best = max(
        (trial for trial in trials if trial["outcome"] == "complete"), key=lambda trial: trial["value"]
    )
    replayed = mc1opt_here("replay", "--study", study, "--trial", str(best["number"]), "--data", "images")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr

    again = ("retrain", "--study", study, "--seeds", "2", "--top", "1", "--epochs", "2")
    retrained = mc1opt_here(*again, "--data", "images")
    assert retrained.returncode == 0, retrained.stderr
    model = Path("storage/models") / study

    exported = mc1opt_here(
        "export", "--model", str(model), "--output", "out", "--format", "onnx", "--format", "pt2",
        "--format", "safetensors", "--data", "images",
    )  # fmt: skip
    assert exported.returncode == 0, exported.stderr
    script = mc1opt_here("export", "--model", str(model), "--format", "python", "--data", "images")
    assert (script.returncode, f"{study}.py" in script.stderr) == (2, True)

    images = make_arrays().test_images
    session = onnxruntime.InferenceSession("out/model.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"images": images})[0]
    with torch.no_grad():
        np.testing.assert_allclose(logits, load_model(model)(torch.from_numpy(images)).numpy(), atol=1e-3)

    Image.fromarray(images[0].transpose(1, 2, 0)).save("image.png")
    predicted = [
        json.loads(mc1opt_here("predict", path, "image.png", "--json").stdout)[0]["classes"]
        for path in (str(model), "out/model.safetensors", "out/model.onnx")
    ]
    assert [[each["label"] for each in classes] for classes in predicted[1:]] == [
        [each["label"] for each in predicted[0]]
    ] * 2

    shutil.move(f"{study}.py", "elsewhere.py")
    without = mc1opt("predict", str(model), "image.png")
    assert (without.returncode, f"{study}.py" in without.stderr) == (2, True)
