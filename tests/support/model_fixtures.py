"""One small trained network and its exports, which are made once."""

import shutil
from pathlib import Path

import pytest
import torch

from mc1opt.export import parity as export_check
from mc1opt.export.export import FORMATS, ExportCommand, export
from tests.support.once import made_once
from tests.support.trained import STUDY, Trained, train_small, write_study


@pytest.fixture(autouse=True, scope="session")
def _short_timings() -> None:
    """A latency is the median of few answers here, whoever asks."""
    export_check.LATENCY_SECONDS = 0.0
    export_check.LEAST_REPEATS = 1


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Images, training, weights: not to be changed."""
    threads = torch.get_num_threads()
    found = train_small(tmp_path_factory.mktemp("trained"))
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    return found


@pytest.fixture(scope="session")
def exported_folder(_short_timings: None, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the best trial of a study was exported in every format: not to be changed."""

    def fill(folder: Path) -> None:
        write_study(trained)
        command = ExportCommand(
            storage="storage/mc1opt.db",
            study=STUDY,
            formats=tuple(FORMATS),
            data=Path(trained.data.folder),
        )
        with Path("output").open("w") as output:
            files = export(command, write=lambda line: print(line, file=output), output=output)
        assert [file.format for file in files] == list(FORMATS)

    return made_once(tmp_path_factory, "exported", fill)


@pytest.fixture
def exported(exported_folder: Path, tmp_path: Path) -> Path:
    """The test's own copy of that folder, its current folder: storage/exports/s/trial-1.onnx and so on."""
    shutil.copytree(exported_folder, tmp_path, dirs_exist_ok=True)
    return tmp_path
