"""Presets measured on learning curves: real stores, images and weights; no processes, no networks."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from mc1opt.config import Config
from mc1opt.data.sources import find_data
from mc1opt.dataset import DataSet
from mc1opt.machine.devices import resolve_precision
from mc1opt.measurement.final_test import Decisions
from mc1opt.measurement.store import StoredTraining, TrainingKey
from mc1opt.metric_functions import Logits
from mc1opt.presets import get_preset
from mc1opt.published.measure import PresetsOptions, Results, run_presets
from mc1opt.published.results import Measurement, seed_value
from mc1opt.spec import Fidelity, Fold, Training
from mc1opt.workers.stop import StopFlag
from tests.support.curves import CurvePool, curve, with_engine
from tests.support.image_sets import write_arrays_folder

STORAGE = "storage/mc1opt.db"
FOLDER = Path("storage/presets")
ROW_1, ROW_2 = "mlp-128-64", "mlp-256-128-64"
EPOCHS = 3
TEST_IMAGES = 1000
"""So many that seeds differ."""


def preset_images() -> DataSet:
    """Images of our own in ./images and in the cache."""
    write_arrays_folder(Path("images"), train_images=200, test_images=TEST_IMAGES)
    return find_data(Path("images"))


def share_of_loss(loss: float) -> float:
    """The share of test images that `curve_decisions` gets right: a number of whole images."""
    return round((1.0 - loss / 2.3) * TEST_IMAGES) / TEST_IMAGES


def curve_decisions(weights: Path, _config: Config, _shape: Any, images: Any, labels: Any) -> Logits:
    """Stands in for running a network: a curve's weights hold its loss, which says how many are right."""
    assert len(images) == len(labels) == TEST_IMAGES
    decisions: Decisions = labels.numpy().copy()
    right = round(share_of_loss(float(load_file(weights)["validation_accuracy"][0])) * TEST_IMAGES)
    decisions[right:] = (decisions[right:] + 1) % 10
    return np.eye(10)[decisions]


def run(
    *names: str,
    stop: StopFlag | None = None,
    output: io.StringIO | None = None,
    new_pool: Callable[[int], CurvePool] = CurvePool,
    measure: Any = curve_decisions,
    **options: Any,
) -> Results:
    """Measures presets on ./images; `options` are those of `PresetsOptions`."""
    fields: dict[str, Any] = {
        "storage": STORAGE,
        "epochs": EPOCHS,
        "workers": "2",
        "device": "cpu",
        "data": Path("images"),
    }
    return run_presets(
        PresetsOptions(names=names, **with_engine(fields | options)),
        stop=stop or StopFlag(),
        output=output if output is not None else io.StringIO(),
        new_pool=new_pool,
        measure=measure,
    )


def measured(*names: str, **options: Any) -> list[Measurement]:
    """What a run that comes to its end gives, by preset."""
    stop = StopFlag()
    found = [result for _, result in run(*names, stop=stop, **options)]
    assert not stop.is_set()
    assert None not in found
    return [result for result in found if result is not None]


def stored_training(training: Training, **changes: Any) -> StoredTraining:
    """A training that has ended, by its curve; `changes` are fields of `StoredTraining`."""
    fields: dict[str, Any] = {
        "key": TrainingKey.of(training),
        "curve": tuple(curve(training)),
        "seconds": 1.5,
        "versions": {"torch": "2.0", "threads": 1},
        "commit": None,
        "ended": "2026-01-01T00:00:00+00:00",
    }
    return StoredTraining(**(fields | changes))


def training_of(
    name: str,
    seed: int,
    data: DataSet,
    *,
    recipe: Any = "published",
    fold: Fold | None = None,
    **changes: Any,
) -> Training:
    """The training that a run gives a preset and a seed."""
    images = data.train_images if fold is None else data.train_images * (fold.count - 1) // fold.count
    fields: dict[str, Any] = {
        "config": get_preset(name).with_recipe(recipe),
        "fidelity": Fidelity(train_images=images, epochs=EPOCHS),
        "seed": seed_value(seed),
        "data": data if fold is not None else data.model_copy(update={"validation_images": 0}),
        "precision": resolve_precision("cpu"),
        "fold": fold,
    }
    return Training(**(fields | changes))


def expected_accuracies(name: str, seeds: int, data: DataSet, **options: Any) -> list[float]:
    """On the test images, by seed."""
    trainings = [training_of(name, seed, data, **options) for seed in range(seeds)]
    return [share_of_loss(curve(training)[-1].loss) for training in trainings]
