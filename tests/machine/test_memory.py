"""How much memory a training takes: estimates, and what a process really took."""

import os
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest

from mc1opt.config import MLP, SGD, Adam, Config, LinearLayer, Muon
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.machine.memory import MemoryNeed, evaluation_memory, training_memory
from mc1opt.models.cost import layers
from mc1opt.presets import get_preset

GIGABYTE = 10**9


def need(config: Config, **changes: object) -> MemoryNeed:
    fields = {"train_images": 50_000, "validation_images": 0, "device": "cpu", "precision": "float32"}
    return training_memory(config, CIFAR10_SHAPE, **(fields | changes))  # type: ignore[arg-type]


def with_optimizer(name: str, optimizer: SGD | Adam | Muon) -> Config:
    return get_preset(name).config.model_copy(update={"optimizer": optimizer})


@pytest.mark.parametrize(
    ("optimizer", "values"),
    [
        (SGD(learning_rate=0.1, momentum=0.9), 1),
        (Adam(learning_rate=0.001), 2),
        (Muon(learning_rate=0.02, sgd_learning_rate=0.1), 1),
    ],
)
def test_the_optimizer_keeps_one_or_two_more_values_a_parameter(
    optimizer: SGD | Adam | Muon, values: int
) -> None:
    preset = get_preset("cnn-deep")
    more = need(with_optimizer("cnn-deep", optimizer)).host - need(preset.config).host
    assert more == 3 * values * 4 * preset.parameters  # and in two copies for checkpoints


def test_weights_and_gradients_are_counted_for_each_parameter() -> None:
    def config(width: int) -> Config:
        architecture = MLP(layers=(LinearLayer(width=width),))
        return Config(architecture=architecture, optimizer=SGD(learning_rate=0.1), batch_size=1)

    more = need(config(10_000)).host - need(config(1)).host
    assert more >= 2 * 4 * (3072 + 10) * 9_999


def test_larger_batches_and_more_images_take_more() -> None:
    config = get_preset("cnn-32-128").config
    values = sum(prod(layer.output) for layer in layers(config.architecture, CIFAR10_SHAPE))
    larger = need(config.model_copy(update={"batch_size": 400})).host - need(config).host
    assert larger >= 200 * values * 4 * 2
    assert need(config).host - need(config, train_images=10_000).host == 40_000 * 3072


def test_bfloat16_keeps_copies_of_the_weights() -> None:
    preset = get_preset("cnn-deep")
    more = need(preset.config, precision="bfloat16").host - need(preset.config).host
    assert more >= 2 * preset.parameters


def test_54_million_parameters_take_gigabytes_and_400_thousand_don_t() -> None:
    assert 1.5 * GIGABYTE < need(get_preset("cnn-deep").config, precision="bfloat16").host < 4 * GIGABYTE
    assert need(get_preset("mlp-128-64").config).host < 1.2 * GIGABYTE


def test_on_a_gpu_the_work_is_in_the_gpus_memory() -> None:
    config = get_preset("cnn-deep").config
    on_cpu, on_gpu = need(config), need(config, device="cuda")
    assert on_cpu.device == 0
    assert on_gpu.device > GIGABYTE
    assert need(config, device="mps") == on_cpu
    test = evaluation_memory(config, CIFAR10_SHAPE, 10_000, "cuda")
    assert 0.5 * GIGABYTE < test.device < on_gpu.device


MEASURE = """
import resource, sys
from pathlib import Path
from mc1opt.presets import get_preset
from mc1opt.dataset import DataSet
from mc1opt.spec import Fidelity, Training
from mc1opt.training.loop import train
from tests.support.image_sets import write_arrays_folder

write_arrays_folder(Path("."), train_images=256)
data = DataSet(name="x", folder=".", sha256="0" * 64, train_images=256, validation_images=0)
training = Training(
    config=get_preset(sys.argv[1]).with_recipe("mc1opt"), fidelity=Fidelity(train_images=256, epochs=3),
    seed=0, data=data, precision=sys.argv[2], weights="w.safetensors", checkpoint="c.safetensors",
)
epochs = train(training)
next(epochs), next(epochs)
try:
    epochs.throw(KeyboardInterrupt)  # a checkpoint is written, of the copy that was kept for it
except KeyboardInterrupt:
    list(train(training))
if sys.platform == "darwin":
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
else:
    # Linux counts into ru_maxrss what the parent held when it started this process, VmHWM does not.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].removesuffix(" kB")) * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["mlp-128-64", "cnn-32-128-fc", "cnn-32-128-pool", "cnn-deep-adjusted"])
def test_a_training_really_takes_no_more_than_estimated_and_not_much_less(name: str, precision: str) -> None:
    root = str(Path(__file__).parents[2])
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, name, precision],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    taken = int(result.stdout)
    config = get_preset(name).with_recipe("mc1opt")
    expected = need(config, train_images=256, precision=precision).host
    assert taken <= expected
    assert taken > expected / 3
