"""A study on learning curves whose images are real files, and its retraining without processes."""

import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mc1opt.config import MLP, SGD, Config, LinearLayer, config_id
from mc1opt.data.sources import find_data
from mc1opt.database.records import StudyRecord, TrialRecord
from mc1opt.dataset import DataSet, Task
from mc1opt.measurement.final_test import Decisions
from mc1opt.metric_functions import Logits
from mc1opt.retraining.comparison import Candidate
from mc1opt.retraining.plan import RetrainOptions, RetrainPlan
from mc1opt.retraining.report import Retraining
from mc1opt.retraining.retrain import retrain
from mc1opt.seeds import retrain_seed
from mc1opt.spec import Fidelity
from mc1opt.workers.stop import StopFlag
from tests.support.curves import CurvePool, with_engine
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


def curve_study(
    data: DataSet | None = None, trials: int = TRIALS, search_space: Any = smooth_space, **changes: Any
) -> StudyRecord:
    """A finished study in `STORAGE`; of `smooth_space` no config is the same as another."""
    Path("storage").mkdir(exist_ok=True)
    run_study(
        trials,
        definition_of(search_space),
        path=STORAGE,
        data=data or small_images(),
        **({"sampler": "random", "pruner": "none", "max_macs": 10**9} | changes),
    )
    return stored(STORAGE, STUDY)


def fixed_confusion(_weights: Path, _config: Config, _shape: Any, images: Any, labels: Any) -> Logits:
    """A stand-in for running a network, for weights that are a curve's: 4 of 5 images of each class.

    The others are taken for the next class.
    """
    assert len(images) == len(labels)
    decisions: Decisions = labels.numpy().copy()
    for index, place in enumerate(np.argsort(decisions, kind="stable")):
        if index % 5 == 0:
            decisions[place] = (decisions[place] + 1) % 10
    return np.eye(10)[decisions]


def retrain_curves(
    *,
    stop: StopFlag | None = None,
    output: io.StringIO | None = None,
    new_pool: Callable[[int], CurvePool] = CurvePool,
    measure: Any = fixed_confusion,
    **options: Any,
) -> Retraining | None:
    """Retrains that study; `options` are those of `RetrainOptions`."""
    fields: dict[str, Any] = {
        "study": STUDY,
        "storage": STORAGE,
        "epochs": 3,
        "workers": "2",
        "device": "cpu",
    }
    return retrain(
        RetrainOptions(**with_engine(fields | options)),
        stop=stop or StopFlag(),
        output=output if output is not None else io.StringIO(),
        new_pool=new_pool,
        measure=measure,
    )


# ---- Records and plans without a database ----------------------------------------------------------------

CIFAR10 = DataSet(name="cifar10", folder="", sha256="0" * 64, train_images=50_000, validation_images=5_000)
SEARCH = Fidelity(train_images=10_000, epochs=8)


def small_config(width: int) -> Config:
    return Config(
        architecture=MLP(layers=(LinearLayer(width=width),)), optimizer=SGD(learning_rate=0.1), batch_size=10
    )


def candidate(number: int, epoch_seconds: float | None = 2.0) -> Candidate:
    config = small_config(number)
    return Candidate(number, config_id(config), config, 0.8, epoch_seconds)


def trial_record(number: int, **fields: Any) -> TrialRecord:
    """A stored trial; what `fields` do not name is None."""
    nothing = {field.name: None for field in dataclasses.fields(TrialRecord)}
    usual = {"number": number, "metric": "accuracy", "direction": "maximize"}
    return TrialRecord(**(nothing | usual | fields))


def record_of(*trials: TrialRecord, data: dict[str, str] | None = None) -> StudyRecord:
    return StudyRecord(STUDY, STUDY, "maximize", SEARCH, data, Task(), 0, trials, STUDY)


def retrain_plan(*candidates: Candidate, seeds: int = 3, study_seed: int = 7, **changes: Any) -> RetrainPlan:
    """A plan of two candidates, or of those that are given; `changes` are fields of `RetrainPlan`."""
    fields: dict[str, Any] = {
        "candidates": candidates or (candidate(1), candidate(2)),
        "seeds": tuple(retrain_seed(study_seed, index) for index in range(seeds)),
        "folds": 0,
        "epochs": 10,
        "search": SEARCH,
        "data": CIFAR10,
        "device": "cpu",
        "precision": "float32",
        "workers": 2,
        "folder": Path("models"),
    }
    return RetrainPlan(**(fields | changes))


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
