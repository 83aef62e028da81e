"""A study on learning curves whose images are real files, and its retraining without processes."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mc1opt.config import Config
from mc1opt.data.sources import find_data
from mc1opt.database.records import StudyRecord
from mc1opt.measurement.final_test import Decisions
from mc1opt.retraining.retrain import RetrainCommand, RetrainEnded, retrain
from mc1opt.spec import DataSet
from mc1opt.workers.stop import StopFlag
from tests.support.curves import CurvePool
from tests.support.image_sets import write_arrays_folder
from tests.support.once import made_once
from tests.support.studies import definition_of, run_study, smooth_space, stored

STORAGE = "storage/s.db"
STUDY = "s"
MODELS = Path("storage/s.db.files/models/s")
TRIALS = 6


def small_images(train_images: int = 200) -> DataSet:
    """Images of our own in the cache; a tenth of them validates."""
    write_arrays_folder(Path("images"), train_images=train_images)
    return find_data(Path("images"))


def curve_study(data: DataSet | None = None, trials: int = TRIALS, **changes: Any) -> StudyRecord:
    """A finished study in `STORAGE`, none of whose configs is the same as another."""
    Path("storage").mkdir(exist_ok=True)
    run_study(
        trials,
        definition_of(smooth_space),
        path=STORAGE,
        data=data or small_images(),
        **({"sampler": "random", "pruner": "none", "max_macs": 10**9} | changes),
    )
    return stored(STORAGE, STUDY)


def fixed_confusion(_weights: Path, _config: Config, images: Any, labels: Any) -> Decisions:
    """A stand-in for running a network, for weights that are a curve's: 4 of 5 images of each class.

    The others are taken for the next class.
    """
    assert len(images) == len(labels)
    decisions: Decisions = labels.numpy().copy()
    for index, place in enumerate(np.argsort(decisions, kind="stable")):
        if index % 5 == 0:
            decisions[place] = (decisions[place] + 1) % 10
    return decisions


def retrain_curves(
    *,
    stop: StopFlag | None = None,
    output: io.StringIO | None = None,
    new_pool: Callable[[int], CurvePool] = CurvePool,
    measure: Any = fixed_confusion,
    **options: Any,
) -> RetrainEnded:
    """Retrains that study; `options` are those of `RetrainCommand`."""
    fields: dict[str, Any] = {
        "study": STUDY,
        "storage": STORAGE,
        "epochs": 3,
        "workers": "2",
        "device": "cpu",
    }
    return retrain(
        RetrainCommand(**(fields | options)),
        stop=stop or StopFlag(),
        output=output if output is not None else io.StringIO(),
        new_pool=new_pool,
        measure=measure,
    )


# ---- Made once, copied for each test ---------------------------------------------------------------------


@pytest.fixture(scope="session")
def retrainable_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images, their cache and the study: not to be changed."""
    return made_once(tmp_path_factory, "retrainable", lambda _: curve_study())


@pytest.fixture
def retrainable(retrainable_folder: Path, tmp_path: Path) -> StudyRecord:
    """The study in the test's own folder, and its record."""
    shutil.copytree(retrainable_folder, tmp_path, dirs_exist_ok=True)
    return stored(STORAGE, STUDY)
