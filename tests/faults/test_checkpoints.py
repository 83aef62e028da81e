"""Faults 10 and 12: what a training shall go on from is cut off, changed, of another network, or a pickle."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mc1opt.database.trial_files import checkpoint_path, kept_weights, study_folder, weights_path
from mc1opt.training.tensor_file import read_tensors, write_tensors
from tests.faults.checker import wait_for_processes
from tests.faults.conftest import Real
from tests.support.command import epochs_of_running_trials, states, wait_until

FOLDER = study_folder(Path("storage/checkpoints"), "real")
EXECUTED = Path("executed")
"""Is there if a pickle's code was executed."""


class Malicious:
    """Unpickled, it runs a command."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {EXECUTED.absolute()}",)


# ---- Damages ---------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def widen(path: Path) -> None:
    """A whole file with a right checksum that says it is of this training; its tensors are others."""
    found = read_tensors(path)
    tensors = {
        name: torch.cat([tensor, tensor]) if tensor.ndim else tensor for name, tensor in found.tensors.items()
    }
    write_tensors(path, tensors, found.metadata)


def put_a_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Malicious()))


DAMAGES = [truncate, widen, put_a_pickle]
"""Others: tests/training, without processes."""


@pytest.fixture(scope="module")
def killed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Filled by the first test that needs it: the folder as a killed search has left it."""
    return tmp_path_factory.mktemp("killed")


@pytest.fixture
def killed(real: Real, killed_folder: Path) -> int:
    """A search that was killed in the middle of a trial, in the test's folder; how many epochs it has."""
    if not (killed_folder / "storage").exists():
        search = real.search()
        wait_until(lambda: epochs_of_running_trials() > 5)
        real.commands.kill_all()
        real.commands.finish(search)
        assert wait_for_processes(real.commands.folder) == []
        shutil.copytree(real.commands.folder, killed_folder, dirs_exist_ok=True)
    else:
        shutil.copytree(killed_folder, real.commands.folder, dirs_exist_ok=True)
    assert states()[0] == "RUNNING"
    return epochs_of_running_trials()


@pytest.mark.slow
def test_a_whole_checkpoint_is_gone_on_from(real: Real, killed: int) -> None:
    """What the others are compared with: at most one epoch is trained twice."""
    assert real.go_on().stderr == ""
    real.check()
    epochs = real.epochs_trained(0)
    # An epoch whose process was killed between its checkpoint and its note is trained, and not noted.
    assert len(set(range(60)) - set(epochs)) <= 1
    assert len(epochs) <= 61


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_checkpoint_that_cannot_be_used_costs_epochs_and_nothing_else(
    real: Real, killed: int, damage: Callable[[Path], None]
) -> None:
    path = checkpoint_path(FOLDER, 0)
    damage(path)
    ended = real.go_on()
    assert f"the checkpoint {path} " in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not EXECUTED.exists()
    real.check()
    epochs = real.epochs_trained(0)
    assert epochs[-60:] == list(range(60))  # from the first one on


@pytest.mark.slow
def test_a_pickle_in_place_of_kept_weights_is_not_opened(real: Real, mc1opt_here) -> None:
    real.go_on()
    number = min(kept_weights(FOLDER))
    path = weights_path(FOLDER, number)
    put_a_pickle(path)
    before = path.read_bytes()
    for command in (
        ("export", "--study", "real", "--trial", str(number), "--format", "safetensors", "--data", "images"),
        ("predict", str(path), "images"),
        ("evaluate", str(path), "--data", "images"),
    ):
        ended = mc1opt_here(*command)
        assert ended.returncode == 1
        assert ended.stderr.startswith("Error: ")
        assert "Traceback" not in ended.stderr
        assert not EXECUTED.exists()
    assert path.read_bytes() == before
