"""`mc1opt retrain`, end to end: a real search's configs, real training, real processes and signals."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import mc1opt
from mc1opt.seeds import derive_seed
from tests.support.command import SECONDS, TINY_SEARCH, finish, output_of, resume_command, wait_until
from tests.support.image_sets import change_without_a_trace, make_arrays

MODELS = Path("storage/models/tiny")
SMALL = ("retrain", "--study", "tiny", "--top", "2", "--seeds", "2", "--epochs", "2", "--workers", "2")
ONE = ("retrain", "--study", "tiny", "--top", "1", "--seeds", "1", "--epochs", "2", "--workers", "1")
STOP_SECONDS = 30.0
"""A retraining that is stopped ends within 10 s; threefold."""


def finished_trainings() -> int:
    path = MODELS / "trainings.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


# ---- To the end ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_json_is_all_that_is_printed_and_the_model_does_what_it_says(finished: Path, mc1opt_here) -> None:
    ended = mc1opt_here(*SMALL, "--folds", "2", "--json")
    assert ended.returncode == 0, ended.stderr
    printed = json.loads(ended.stdout)
    assert {"candidates", "winner", "test", "model"} <= printed.keys()
    for entry in printed["candidates"]:
        assert {"trial", "config_id", "validation"} <= entry.keys()
        assert list(entry["validation"]) == [str(derive_seed(0, "retrain", index)) for index in range(2)]
    assert {"by_seed", "mean", "std", "interval", "confusion"} <= printed["test"].keys()
    assert "mc1opt predict storage/models/tiny IMAGE" in ended.stderr

    arrays = make_arrays()
    model = mc1opt.load_model(printed["model"])
    with torch.inference_mode():
        decisions = model(torch.from_numpy(arrays.test_images)).argmax(1).numpy()
    accuracy = (decisions == arrays.test_labels).mean()
    assert next(iter(printed["test"]["by_seed"].values())) == pytest.approx(accuracy)
    confusion = torch.tensor(printed["test"]["confusion"])
    assert confusion.diag().sum() / confusion.sum() == pytest.approx(accuracy)
    for path in finished.rglob("model_card.md"):
        assert str(finished) not in path.read_text().replace(printed["command"], "")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_bit_for_bit(finished: Path, mc1opt_here) -> None:
    command = (*ONE, "--device", "cpu")
    weights = []
    for _ in range(2):
        assert mc1opt_here(*command).returncode == 0
        weights.append(load_file(MODELS / "model.safetensors"))
        (MODELS / "trainings.jsonl").unlink()
        for path in MODELS.glob("weights/*"):
            path.unlink()
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


@pytest.mark.slow
def test_search_and_choice_do_without_the_test_images(
    finished: Path, mc1opt_here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real images and real training; the test images are damaged, so that opening them is an error."""
    (path,) = Path("cache").glob("own-*/test_images.npy")
    change_without_a_trace(path, bytes(path.stat().st_size), monkeypatch)
    output_of(mc1opt_here(*TINY_SEARCH, "--trials", "4", "--confirm", "0"))
    ended = mc1opt_here(*ONE)
    assert ended.returncode == 1
    assert "test_images.npy" in ended.stderr
    assert finished_trainings() == 1 + 1
    assert len((MODELS / "test_openings.jsonl").read_text().splitlines()) == 1


# ---- Stopped and gone on with ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_retraining_that_ctrl_c_stopped_goes_on_by_the_printed_command(finished: Path, start) -> None:
    arguments = ("--top", "1", "--seeds", "2", "--epochs", "120", "--workers", "1", "--timeout", "1h")
    retraining = start("retrain", "--study", "tiny", *arguments)
    wait_until(lambda: finished_trainings() == 1)
    retraining.send_signal(signal.SIGINT)
    stopped = finish(retraining, STOP_SECONDS)
    assert (stopped.returncode, stopped.stderr) == (130, "")
    assert "SIGINT" in stopped.stdout
    assert not (MODELS / "test_openings.jsonl").exists()
    count = finished_trainings()
    before = (MODELS / "trainings.jsonl").read_text()
    assert count < 4

    command = resume_command(stopped.stdout)
    assert "--timeout" not in command
    output_of(subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False))
    assert (MODELS / "trainings.jsonl").read_text().startswith(before)
    assert finished_trainings() == 4


@pytest.mark.slow
def test_json_of_a_stopped_retraining_says_that_nothing_was_chosen(finished: Path, mc1opt_here) -> None:
    ended = mc1opt_here("retrain", "--study", "tiny", "--epochs", "5000", "--timeout", "1s", "--json")
    assert ended.returncode == 0, ended.stderr
    nothing = dict.fromkeys(("candidates", "winner", "test", "model"))
    assert json.loads(ended.stdout) == {"study": "tiny", "stopped": "timeout", **nothing}
    assert resume_command(ended.stderr)[1:] == ["retrain", "--study", "tiny", "--epochs", "5000", "--json"]


@pytest.mark.slow
def test_a_study_is_found_by_its_name_in_another_database(finished: Path, mc1opt_here) -> None:
    Path("there").mkdir()
    Path("storage/mc1opt.db").rename("there/other.db")
    result = output_of(mc1opt_here(*ONE, "--storage", "there/other.db"))
    assert "mc1opt evaluate there/other.db.files/models/tiny --storage there/other.db" in result
