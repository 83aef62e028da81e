"""`mc1opt explain`, end to end: a real search's configs, real training, real processes and signals."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from mc1opt.database.studies import read_study
from mc1opt.explanation.result import read_explanation
from tests.support.command import SECONDS, finish, output_of, resume_command, wait_until

FOLDER = Path("storage/models/tiny/explanation")
TRAININGS = FOLDER / "trainings.jsonl"
TWO = ("explain", "--study", "tiny", "--from", "2", "--to", "0", "--seeds", "2", "--workers", "1")
"""From a convolutional network to a multilayer perceptron."""
STOP_SECONDS = 30.0
"""An explanation that is stopped ends within 10 s; threefold."""


def finished_trainings() -> int:
    return len(TRAININGS.read_text().splitlines()) if TRAININGS.exists() else 0


@pytest.mark.slow
def test_json_is_all_that_is_printed_and_is_what_is_stored(finished: Path, mc1opt_here) -> None:
    ended = mc1opt_here("explain", "--study", "tiny", "--from", "mlp-128-64", "--seeds", "2", "--json")
    assert ended.returncode == 0, ended.stderr
    printed = json.loads(ended.stdout)
    assert printed.pop("stopped") is None
    assert printed == json.loads((FOLDER / "explanation.json").read_text())
    assert printed.keys() == {
        "study",
        "source",
        "target",
        "metric",
        "direction",
        "is_share",
        "fidelity",
        "seeds",
        "steps",
        "total",
        "total_interval",
        "leave_one_out",
        "inseparable",
        "trainings",
        "seconds",
    }
    for step in printed["steps"] + printed["leave_one_out"]:
        assert step.keys() == {
            "group",
            "change",
            "config_id",
            "parameters",
            "n",
            "mean",
            "interval",
            "difference",
            "difference_interval",
            "failures",
            "others",
        }
    assert printed["trainings"] == finished_trainings()
    stored = read_explanation("storage/mc1opt.db", read_study("storage/mc1opt.db", "tiny"))
    assert stored is not None
    assert json.loads(json.dumps(stored.to_json())) == printed
    assert not list(Path("storage").rglob("test_openings.jsonl"))


@pytest.mark.slow
def test_an_explanation_that_ctrl_c_stopped_goes_on_by_the_printed_command(finished: Path, start) -> None:
    explaining = start(*TWO, "--timeout", "1h")
    wait_until(lambda: finished_trainings() >= 1)
    explaining.send_signal(signal.SIGINT)
    stopped = finish(explaining, STOP_SECONDS)
    assert (stopped.returncode, stopped.stderr) == (130, "")
    assert "SIGINT" in stopped.stdout
    assert not (FOLDER / "explanation.json").exists()
    before = TRAININGS.read_text()

    command = resume_command(stopped.stdout)
    assert "--timeout" not in command
    output = output_of(subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False))
    assert "architecture" in output
    assert TRAININGS.read_text().startswith(before)
    assert finished_trainings() == 4


@pytest.mark.slow
def test_an_explanation_that_was_killed_keeps_what_has_ended(finished: Path, start, mc1opt_here) -> None:
    explaining = start(*TWO)
    wait_until(lambda: finished_trainings() >= 2)
    explaining.kill()
    finish(explaining)
    before = TRAININGS.read_text()
    output_of(mc1opt_here(*TWO))
    assert TRAININGS.read_text().startswith(before)
    assert finished_trainings() == 4


@pytest.mark.slow
def test_json_of_a_stopped_explanation_says_that_nothing_was_found(finished: Path, mc1opt_here) -> None:
    ended = mc1opt_here("explain", "--study", "tiny", "--seeds", "500", "--timeout", "1s", "--json")
    assert ended.returncode == 0, ended.stderr
    nothing = dict.fromkeys(("steps", "leave_one_out"))
    assert json.loads(ended.stdout) == {"study": "tiny", "stopped": "timeout", **nothing}
    assert resume_command(ended.stderr)[1:] == ["explain", "--study", "tiny", "--seeds", "500", "--json"]
