"""Explanations of a study on learning curves, without processes."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mc1opt.database.records import StudyRecord
from mc1opt.explanation.explain import explain
from mc1opt.explanation.plan import ExplainOptions
from mc1opt.explanation.result import Explanation
from mc1opt.workers.stop import StopFlag
from tests.support.curves import CurvePool, with_engine
from tests.support.once import made_once
from tests.support.retraining import MODELS, STORAGE, STUDY, curve_study
from tests.support.studies import small_space, stored

FOLDER = MODELS / "explanation"
PRESET = "mlp-256-128-64"


def explain_curves(
    *,
    stop: StopFlag | None = None,
    output: io.StringIO | None = None,
    new_pool: Callable[[int], CurvePool] = CurvePool,
    **options: Any,
) -> Explanation | None:
    """Explains that study; `options` are those of `ExplainOptions`."""
    fields: dict[str, Any] = {"study": STUDY, "storage": STORAGE, "workers": "2", "device": "cpu"}
    return explain(
        ExplainOptions(**with_engine(fields | options)),
        stop=stop or StopFlag(),
        output=output if output is not None else io.StringIO(),
        new_pool=new_pool,
    )


@pytest.fixture(scope="session")
def explainable_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images, their cache and the study: not to be changed."""
    return made_once(tmp_path_factory, "explainable", lambda _: curve_study(search_space=small_space))


@pytest.fixture
def explainable(explainable_folder: Path, tmp_path: Path) -> StudyRecord:
    """The study in the test's own folder, and its record."""
    shutil.copytree(explainable_folder, tmp_path, dirs_exist_ok=True)
    return stored(STORAGE, STUDY)
