"""`mc1opt presets`: the list, the layers, and measuring presets end to end, over kill -9 as well."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mc1opt.presets import PRESETS
from tests.support.command import SECONDS, files_below, finish, output_of, resume_command, wait_until
from tests.support.image_sets import write_binary_folder

FOLDER = Path("storage/presets")
ROW_1 = "mlp-128-64"
RUN = ("presets", "run", ROW_1, "--seeds", "2", "--workers", "1", "--device", "cpu", "--data", "images")
SHORT = (*RUN, "--epochs", "2")
LONG = (*RUN, "--epochs", "60")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_binary_folder(tmp_path / "images")
    return tmp_path


def trainings() -> list[dict[str, Any]]:
    path = FOLDER / "trainings.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def numbers(listed: list[dict[str, Any]]) -> Any:
    """What must be the same when a run is killed and started again."""
    results = listed[0]["results"]["published"]
    return {key: results[key] for key in ("n", "mean", "std", "interval", "by_seed", "epochs", "device")}


# ---- The list and the layers -----------------------------------------------------------------------------


def test_all_eleven_are_listed_and_nothing_is_made(tmp_path: Path, mc1opt_here) -> None:
    shown = output_of(mc1opt_here("presets"))
    assert all(f"  {name} " in shown for name in PRESETS)
    printed = json.loads(mc1opt_here("presets", "--json").stdout)
    assert [(preset["row"], preset["name"]) for preset in printed] == list(enumerate(PRESETS, start=1))
    assert all(
        {"parameters", "macs", "published_accuracy", "layers", "results"} <= preset.keys()
        for preset in printed
    )
    assert files_below(tmp_path) == {}


def test_the_layers_of_a_preset_are_shown(mc1opt_here) -> None:
    shown = output_of(mc1opt_here("presets", "show", "cnn-deep"))
    assert "51,384,320" in shown
    assert "54,093,194" in shown
    printed = json.loads(mc1opt_here("presets", "show", "cnn-deep", "--json").stdout)
    assert printed["parameters"] == sum(layer["parameters"] for layer in printed["layers"])
    assert json.loads(mc1opt_here("presets", "--json", "show", "cnn-deep").stdout) == printed


# ---- Measuring -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_prints_the_published_accuracy_beside_ours_and_the_list_knows_it(
    images: Path, mc1opt_here
) -> None:
    ran = mc1opt_here(*SHORT, "--folds", "2", "--json")
    assert ran.returncode == 0, ran.stderr
    (printed,) = json.loads(ran.stdout)
    result = printed["results"]["published"]
    assert (result["n"], result["epochs"], result["device"]) == (2, 2, "cpu")
    assert len(result["folds"]["validation"]) == 2
    assert result["seconds"] > 0.0
    assert "0.5214" in ran.stderr
    listed = {entry["name"]: entry for entry in json.loads(mc1opt_here("presets", "--json").stdout)}
    assert listed[ROW_1] == printed
    ours = f"{result['mean']:.4f} ± {result['std']:.4f} (2, 2 epochs, own images)"
    assert ours in mc1opt_here("presets").stdout
    elsewhere = mc1opt_here("presets", "--storage", "other/s.db", "show", ROW_1, "--json")
    assert json.loads(elsewhere.stdout)["results"] == {}
    before = files_below(FOLDER)
    again = mc1opt_here(*SHORT, "--folds", "2")
    assert again.returncode == 0
    assert files_below(FOLDER) == before


@pytest.mark.slow
def test_a_run_that_is_killed_and_started_again_ends_in_the_same_numbers(
    images: Path, start, mc1opt_here
) -> None:
    whole = json.loads(mc1opt_here(*LONG, "--storage", "whole/s.db", "--json").stdout)
    running = start(*LONG)
    wait_until(lambda: len(trainings()) == 1)
    running.send_signal(signal.SIGKILL)
    assert finish(running).returncode == -signal.SIGKILL
    before = trainings()
    assert len(before) == 1
    resumed = mc1opt_here(*LONG, "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert numbers(json.loads(resumed.stdout)) == numbers(whole)
    assert trainings()[:1] == before
    assert len(trainings()) == 2


@pytest.mark.slow
def test_ctrl_c_shows_what_is_there_and_the_command_that_goes_on(images: Path, start) -> None:
    running = start(*LONG, "--timeout", "1h")
    wait_until(lambda: len(trainings()) == 1)
    running.send_signal(signal.SIGINT)
    stopped = finish(running)
    assert (stopped.returncode, stopped.stderr) == (130, "")
    assert "SIGINT" in stopped.stdout
    assert "0.5214" in stopped.stdout
    command = resume_command(stopped.stdout)
    assert "--timeout" not in command
    output_of(subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False))
    assert len(trainings()) == 2


# ---- Given wrongly ---------------------------------------------------------------------------------------


def test_too_little_memory_for_54_million_parameters_is_refused_before_the_start(
    images: Path, mc1opt_here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mc1opt.published.measure.available_memory", lambda: 10**9)
    result = mc1opt_here("presets", "run", "cnn-deep", "--data", "images", "--device", "cpu")
    assert result.returncode == 1
    assert "54,093,194" in result.stderr
    assert not FOLDER.exists()
