import io
import shutil
from pathlib import Path

import pytest

from mc1opt.export.export import ExportCommand, export
from tests.support.once import made_once


@pytest.fixture(scope="session")
def exported_model(finished_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best trial of the search that has ended, as safetensors. Not to be changed."""
    command = ExportCommand(
        storage=str(finished_folder / "storage/mc1opt.db"),
        study="tiny",
        formats=("safetensors",),
        output=Path("out"),
        data=finished_folder / "images",
    )
    folder = made_once(
        tmp_path_factory,
        "exported-tiny",
        lambda _folder: export(command, write=lambda _line: None, output=io.StringIO()),
    )
    (path,) = folder.glob("out/*")
    return path


@pytest.fixture
def model(finished: Path, exported_model: Path) -> str:
    """That file in the test's folder, in which the search has ended."""
    Path("out").mkdir()
    return shutil.copy(exported_model, "out")
