"""What needs a GPU to be seen: trainings on cuda, their checkpoints, workers that share one, and exports.

All of it in one file with few imports, so that a GPU machine needs no more packages than trainings do.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common import machine_facts, machine_line
from mc1opt.config import ConvNet
from mc1opt.database.studies import read_study
from mc1opt.dataset import DataSet
from mc1opt.export.export import ExportCommand, export
from mc1opt.search.command import search
from mc1opt.search.settings import SearchCommand
from mc1opt.spec import EpochResult, Precision, Training
from mc1opt.training.loop import Trainer, train
from mc1opt.workers.engine import Engine
from mc1opt.workers.pool import ProcessPool
from mc1opt.workers.stop import StopFlag
from tests.support.image_sets import write_binary_folder
from tests.support.images import ALL_AUGMENTATION, SMALL_CONVNET, small_training, write_images

pytestmark = pytest.mark.cuda

DEVICE: Any = "cuda"
NEAR = 0.05
"""Of losses near 2: what the order of additions, TF32 and bfloat16 may change in two epochs."""
STUDY = '''"""One network."""

from mc1opt.config import SGD, Config, ConvBlock, ConvNet

EPOCHS = 2
TRAIN_IMAGES = 100


def search_space(trial):
    rate = trial.suggest_float("learning_rate", 0.01, 0.1, log=True)
    network = ConvNet(blocks=(ConvBlock(width=8, stride=2, norm="batch"),))
    return Config(architecture=network, optimizer=SGD(learning_rate=rate), batch_size=20)
'''


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return write_images(tmp_path)


def without_dropout() -> ConvNet:
    """Its draws are others on a GPU."""
    blocks = tuple(block.model_copy(update={"dropout": 0.0}) for block in SMALL_CONVNET.blocks)
    return SMALL_CONVNET.model_copy(update={"blocks": blocks})


def values(results: list[EpochResult]) -> list[float]:
    return [each for result in results for each in (result.loss, result.accuracy)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_on_cuda_is_finite_and_near_that_on_the_cpu(data: DataSet, precision: Precision) -> None:
    fields = {"architecture": without_dropout(), "augmentation": ALL_AUGMENTATION}
    training = small_training(data, device=DEVICE, precision=precision, **fields)
    on_cpu = list(train(training.model_copy(update={"device": "cpu", "precision": "float32"})))
    trainer = Trainer(training)
    results = [trainer.train_epoch(epoch) for epoch in range(training.fidelity.epochs)]
    assert all(parameter.device.type == DEVICE for parameter in trainer.model.parameters())
    assert all(math.isfinite(value) for value in values(results))
    assert [result.loss for result in results] == pytest.approx([each.loss for each in on_cpu], abs=NEAR)
    assert results[-1].loss < results[0].loss


def test_a_training_on_cuda_goes_on_from_its_checkpoint(data: DataSet, tmp_path: Path) -> None:
    training = small_training(data, epochs=4, device=DEVICE, architecture=SMALL_CONVNET)
    uninterrupted = list(train(training))
    path = tmp_path / "checkpoint"
    training = training.model_copy(update={"checkpoint": str(path), "checkpoint_seconds": 0.0})
    stopped = train(training)
    before = [next(stopped), next(stopped)]
    stopped.close()
    after = list(train(training))
    assert [result.restored for result in after] == [True, True, False, False]
    assert values(after[:2]) == values(before)
    losses = [result.loss for result in uninterrupted]
    assert [result.loss for result in after] == pytest.approx(losses, abs=NEAR)


def test_two_workers_train_on_one_gpu_at_once(data: DataSet) -> None:
    def curve(training: Training) -> list[EpochResult]:
        results: list[EpochResult] = []
        pool.train(training, lambda result: results.append(result) or True)
        return results

    trainings = [small_training(data, device=DEVICE, precision="bfloat16", seed=seed) for seed in (1, 2)]
    with ProcessPool(2) as pool, ThreadPoolExecutor(2) as threads:
        curves = list(threads.map(curve, trainings))
    for training, results in zip(trainings, curves, strict=True):
        alone = [result.loss for result in train(training)]
        assert [result.loss for result in results] == pytest.approx(alone, abs=NEAR)


def test_a_trial_trained_on_cuda_is_exported_as_the_same_model(tmp_path: Path) -> None:
    study, storage = tmp_path / "mine.py", str(tmp_path / "storage" / "mc1opt.db")
    study.write_text(STUDY)
    images = tmp_path / "images"
    write_binary_folder(images)
    command = SearchCommand(str(study), 2, storage, engine=Engine("2", DEVICE), confirm=0, data=images)
    with (tmp_path / "progress").open("a") as output:
        search(command, stop=StopFlag(), output=output)
        trials = read_study(storage, "mine").trials
        assert [(trial.outcome, trial.device) for trial in trials] == [("complete", DEVICE)] * 2
        wanted = ExportCommand(storage=storage, study="mine", formats=("safetensors",), data=images)
        (file,) = export(wanted, write=lambda _line: None, output=output)
    assert (file.max_logit_difference, file.different_decisions) == (0.0, 0)


def test_a_figure_names_the_gpu_that_it_was_measured_on() -> None:
    assert machine_facts(DEVICE)["gpu_model"] in machine_line(machine_facts(DEVICE))
