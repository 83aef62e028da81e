"""Presets measured on learning curves: real stores, images and weights; no processes, no networks."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from mc1opt.config import Config
from mc1opt.data.sources import find_data
from mc1opt.machine.devices import resolve_precision
from mc1opt.measurement.final_test import Decisions
from mc1opt.presets import get_preset
from mc1opt.published.measure import LadderCommand, LadderEnded, run_presets
from mc1opt.published.plan import seed_value
from mc1opt.published.results import Measurement
from mc1opt.spec import DataSet, Fidelity, Fold, Training
from mc1opt.workers.stop import StopFlag
from tests.support.curves import CurvePool, curve
from tests.support.image_sets import write_arrays_folder

STORAGE = "storage/mc1opt.db"
FOLDER = Path("storage/presets")
ROW_1, ROW_2 = "mlp-128-64", "mlp-256-128-64"
EPOCHS = 3
TEST_IMAGES = 1000
"""So many that seeds differ."""


def ladder_images() -> DataSet:
    """Images of our own in ./images and in the cache."""
    write_arrays_folder(Path("images"), train_images=200, test_images=TEST_IMAGES)
    return find_data(Path("images"))


def share_of_loss(loss: float) -> float:
    """The share of test images that `curve_decisions` gets right: a number of whole images."""
    return round((1.0 - loss / 2.3) * TEST_IMAGES) / TEST_IMAGES


def curve_decisions(weights: Path, _config: Config, images: Any, labels: Any) -> Decisions:
    """Stands in for running a network: a curve's weights hold its loss, which says how many are right."""
    assert len(images) == len(labels) == TEST_IMAGES
    decisions: Decisions = labels.numpy().copy()
    right = round(share_of_loss(float(load_file(weights)["validation_accuracy"][0])) * TEST_IMAGES)
    decisions[right:] = (decisions[right:] + 1) % 10
    return decisions


def ladder(
    *names: str,
    stop: StopFlag | None = None,
    output: io.StringIO | None = None,
    new_pool: Callable[[int], CurvePool] = CurvePool,
    measure: Any = curve_decisions,
    **options: Any,
) -> LadderEnded:
    """Measures presets on ./images; `options` are those of `LadderCommand`."""
    fields: dict[str, Any] = {
        "storage": STORAGE,
        "epochs": EPOCHS,
        "workers": "2",
        "device": "cpu",
        "data": Path("images"),
    }
    return run_presets(
        LadderCommand(names=names, **(fields | options)),
        stop=stop or StopFlag(),
        output=output if output is not None else io.StringIO(),
        new_pool=new_pool,
        measure=measure,
    )


def measured(*names: str, **options: Any) -> list[Measurement]:
    """What a ladder that comes to its end gives, by preset."""
    ended = ladder(*names, **options)
    assert ended.reason == "finished"
    found = [result for _, result in ended.results]
    assert all(result is not None for result in found)
    return [result for result in found if result is not None]


def training_of(
    name: str,
    seed: int,
    data: DataSet,
    *,
    recipe: Any = "published",
    fold: Fold | None = None,
    **changes: Any,
) -> Training:
    """The training that a ladder gives a preset and a seed."""
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
