"""The Python of the README does what it says: each block of it is executed."""

import re
from pathlib import Path
from typing import Any

import optuna
import pytest

import mc1opt
from mc1opt.config import Config
from mc1opt.database.records import StudyRecord
from mc1opt.workers import engine
from tests.support import curves
from tests.support.trained import Trained, write_model

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
TRIALS = 3
"""Of each search: those of the README would take minutes."""


@pytest.fixture
def cnn(tiny: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a study cnn and its model, as the README names them; it trains in a moment."""
    monkeypatch.setattr(engine, "ProcessPool", lambda workers, **_: curves.CurvePool(workers))
    definition = Path("studies/tiny.py").rename("studies/cnn.py")
    definition.write_text(f'{definition.read_text()}\n\nDATA = "{tiny / "images"}"\n')
    mc1opt.run("cnn", TRIALS, workers="1", confirm=0)
    write_model(Path("storage/models/cnn"), trained)


@pytest.mark.usefixtures("cnn")
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_the_readme_is_python_that_runs(block: str) -> None:
    namespace: dict[str, Any] = {}
    exec(re.sub(r"\btrials=\d+", f"trials={TRIALS}", block), namespace)
    study = optuna.create_study()
    if "search_space" in namespace:
        assert isinstance(namespace["search_space"](study.ask()), Config)
    else:
        assert isinstance(namespace["study"], StudyRecord | optuna.Study)


def test_there_are_blocks() -> None:
    assert BLOCKS
