"""`mc1opt run`, end to end: real images of ours, real training, real processes and signals."""

import fcntl
import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from mc1opt.data.named import CIFAR10_SHA256
from mc1opt.training.tensor_file import read_tensors
from tests.support.command import (
    SECONDS,
    TINY,
    TINY_SEARCH,
    epochs_of_running_trials,
    finish,
    mc1opt,
    output_of,
    resume_command,
    states,
    stored_study,
    wait_until,
)

STOP_SECONDS = 30.0
"""A search that is stopped ends within 10 s; threefold."""

LONG_SEARCH = (*TINY_SEARCH, "--name", "long", "--epochs", "200", "--trials", "2", "--confirm", "0")
"""Trainings of some seconds: long enough to be interrupted in the middle."""


# ---- To the end ------------------------------------------------------------------------------------------


def test_json_is_all_that_is_printed_on_standard_output(finished: Path) -> None:
    printed = json.loads((finished / "stdout").read_text())
    assert printed == stored_study("tiny")
    progress = (finished / "stderr").read_text()
    assert "Study tiny" in progress
    assert "Done" in progress
    assert "Traceback" not in progress


def test_weights_of_complete_trials_are_kept_beside_the_database(finished: Path) -> None:
    study = json.loads((finished / "stdout").read_text())
    complete = {trial["number"] for trial in study["trials"] if trial["state"] == "COMPLETE"}
    kept = finished.glob("storage/checkpoints/tiny/trial-*.safetensors")
    assert {int(path.stem.removeprefix("trial-")) for path in kept} == complete


def test_a_search_that_is_complete_trains_nothing_more(finished: Path, mc1opt_here) -> None:
    before = stored_study("tiny")
    output_of(mc1opt_here(*TINY_SEARCH, "--trials", "3", "--confirm", "1"))
    assert stored_study("tiny") == before


@pytest.mark.real_data
@pytest.mark.timeout(600)
def test_the_main_command_searches_on_the_real_images(tmp_path: Path, start) -> None:
    arguments = ("run", "--study", "cnn", "--trials", "2", "--epochs", "1", "--train-images", "500")
    output_of(finish(start(*arguments), seconds=500))
    study = stored_study("cnn")
    assert study["data"] == {"name": "cifar10", "sha256": CIFAR10_SHA256["train_images"]}
    trained = [trial for trial in study["trials"] if trial["outcome"] == "complete"]
    assert len(trained) >= 2
    assert all(0.0 < trial["value"] < 1.0 for trial in trained)


# ---- Stopped and gone on with ----------------------------------------------------------------------------


def test_ctrl_c_stops_a_search_whose_trials_wait_for_the_printed_command(finished: Path, start) -> None:
    before = stored_study("tiny")["trials"]
    count = len(before)
    search = start(*TINY_SEARCH, "--trials", "4", "--confirm", "0", "--timeout", "1h")
    wait_until(lambda: states()[count:] == ["RUNNING"])
    search.send_signal(signal.SIGINT)
    stopped = finish(search, STOP_SECONDS)
    assert (stopped.returncode, stopped.stderr) == (130, "")
    assert "SIGINT" in stopped.stdout
    assert states()[count:] == ["WAITING"]
    assert stored_study("tiny")["trials"][:count] == before
    assert resume_command(stopped.stdout)[1:] == [*TINY_SEARCH, "--trials", "4", "--confirm", "0"]


@pytest.mark.slow
def test_sigterm_in_the_middle_of_a_training_keeps_what_is_finished(tiny: Path, start) -> None:
    search = start(*LONG_SEARCH)
    wait_until(lambda: states().count("COMPLETE") == 1 and epochs_of_running_trials() > 3)
    search.send_signal(signal.SIGTERM)
    stopped = finish(search, STOP_SECONDS)
    assert (stopped.returncode, stopped.stderr) == (143, "")
    assert "SIGTERM" in stopped.stdout
    assert "RUNNING" not in states()
    first = stored_study("long")["trials"]
    interrupted = [trial for trial in first if trial["outcome"] == "waiting"]
    (curve,) = [trial["values_by_epoch"] for trial in interrupted if trial["values_by_epoch"]]
    (checkpoint,) = Path("storage/checkpoints/long").glob("*.checkpoint")
    results = json.loads(read_tensors(checkpoint).metadata["results"])
    assert [result["validation_accuracy"] for result in results][: len(curve)] == curve
    assert len(results) <= len(curve) + 1  # one that was trained, and not reported any more

    output_of(
        subprocess.run(
            resume_command(stopped.stdout), capture_output=True, text=True, timeout=SECONDS, check=False
        )
    )
    second = stored_study("long")["trials"]
    complete = [trial for trial in first if trial["outcome"] == "complete"]
    assert complete == [second[trial["number"]] for trial in complete]
    again = next(trial for trial in second if trial["values_by_epoch"][: len(curve)] == curve)
    assert (again["outcome"], again["interrupted"]) == ("complete", 1)
    assert again["number"] in {trial["number"] for trial in interrupted}
    assert {path.suffix for path in Path("storage/checkpoints/long").iterdir()} == {".safetensors"}


def test_a_search_whose_time_is_up_ends_well_and_says_how_to_go_on(tiny: Path, mc1opt_here) -> None:
    ended = mc1opt_here(*TINY_SEARCH, "--trials", "1000", "--timeout=1s", "--json")
    assert ended.returncode == 0
    command = resume_command(ended.stderr)
    assert command[1:] == [*TINY_SEARCH, "--trials", "1000", "--json"]
    study = json.loads(ended.stdout)
    assert {trial["state"] for trial in study["trials"]} >= {"WAITING"}
    assert "RUNNING" not in states()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at Linux' /proc")
def test_a_signal_before_the_search_begins_ends_what_it_waits_for(tiny: Path, start) -> None:
    (tiny / "cache").mkdir()
    with (tiny / "cache/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as if another process were fetching the images
        search = start(*TINY_SEARCH)
        wait_until(lambda: waits_for_a_lock(search.pid))
        search.send_signal(signal.SIGTERM)
        stopped = finish(search, STOP_SECONDS)
    assert stopped.returncode == 143
    assert (stopped.stdout, stopped.stderr.count("\n")) == ("", 1)
    assert not Path("storage").exists()


def waits_for_a_lock(pid: int) -> bool:
    """Whether a process waits for a lock on a file (Linux)."""
    return re.search(rf"-> FLOCK .* {pid} ", Path("/proc/locks").read_text()) is not None


# ---- What a search space says ----------------------------------------------------------------------------

WARNING = """
import warnings
import numpy as np
from helper import WIDTHS
from mc1opt.config import MLP, SGD, Config, LinearLayer

EPOCHS, TRAIN_IMAGES = np.int64(1), 100
STARTING_POINTS = {"a": {"width": np.int64(8), "rate": 0.05, "widht": 8}}


def search_space(trial):
    width = [trial.suggest_categorical("width", WIDTHS) for _ in range(2)][0]
    trial.suggest_int("unused", 0, 10, step=3) if width == 16 else None
    warnings.warn("it will go", FutureWarning)
    layers = (LinearLayer(width=width),)
    rate = trial.suggest_float("rate", 0.01, np.float64(0.1))
    return Config(architecture=MLP(layers=layers), optimizer=SGD(learning_rate=rate), batch_size=10)
"""


@pytest.mark.filterwarnings("always")
@pytest.mark.usefixtures("curve_pool")
def test_each_warning_of_a_search_space_is_shown_once_and_is_no_error(tiny: Path, mc1opt_here) -> None:
    (tiny / "folder").mkdir()
    (tiny / "folder/helper.py").write_text("import numpy as np\nWIDTHS = np.array([8, 16])\n")
    (tiny / "folder/mine.py").write_text(WARNING)
    options = ("--study", "folder/mine.py", "--data", "images", "--workers", "1", "--confirm", "0")
    result = mc1opt_here("run", *options, "--trials", "1")
    assert result.returncode == 0
    words = [
        "range is not divisible",
        "'width' is asked for twice",
        "it will go",
        "'widht' in starting point",
    ]
    assert [result.stderr.count(word) for word in words] == [1, 1, 1, 1]
    assert len(result.stderr.splitlines()) == 4
    assert "mine.py, line 14)" in result.stderr
    shown = json.loads(mc1opt_here("show", "--study", "mine", "--json").stdout)
    assert shown["trials"][0]["params"] == {"width": 8, "rate": 0.05}


HOPELESS = """
from mc1opt.config import MLP, SGD, Config, LinearLayer

TRAIN_IMAGES, EPOCHS = 100, 1


def search_space(trial):
    layers = (LinearLayer(width=trial.suggest_int("width", 32, 512)),) * 4
    return Config(architecture=MLP(layers=layers), optimizer=SGD(learning_rate=100.0), batch_size=10)
"""


@pytest.mark.slow
def test_a_search_in_which_all_fails_stops_and_says_why(tiny: Path) -> None:
    (tiny / "mine.py").write_text(HOPELESS)
    ended = mc1opt("run", "--study", "mine.py", "--data", "images", "--workers", "1", "--max-failures", "2")
    assert ended.returncode == 1
    assert "--max-failures 2" in ended.stderr
    assert "2 failed" in ended.stdout
    assert "show --study mine --trial 1" in ended.stdout
    assert states() == ["PRUNED", "PRUNED"]


@pytest.mark.slow
@pytest.mark.usefixtures("curve_pool")
def test_what_is_no_network_is_named_with_its_reason_and_not_counted(tiny: Path, mc1opt_here) -> None:
    narrow = '    if width < 10:\n        raise optuna.TrialPruned(f"{width} are too few")\n'
    space = TINY.replace("    learning_rate = trial", f"{narrow}    learning_rate = trial")
    (tiny / "studies/tiny.py").write_text(space.replace("EPOCHS = 2", "import optuna\n\nEPOCHS = 2"))
    ended = output_of(mc1opt_here(*TINY_SEARCH, "--trials", "1", "--confirm", "0"))
    outcomes = [trial["outcome"] for trial in stored_study("tiny")["trials"]]
    assert outcomes[:4] == ["infeasible", "infeasible", "infeasible", "too_large"]
    assert outcomes[-1] == "complete"
    infeasible = outcomes.count("infeasible")
    assert f"{infeasible} infeasible" in ended
    assert "8 are too few" in mc1opt_here("show", "--study", "tiny", "--trial", "0").stdout
