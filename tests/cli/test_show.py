"""`mc1opt show` after a real search, and what it says to whoever asks for what is not there."""

import csv
import io
import json
from pathlib import Path

import pytest

import mc1opt
from mc1opt.config import config_from_json, config_id
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.models.cost import cost
from tests.support.command import output_of

FIELDS = {
    "number",
    "state",
    "outcome",
    "value",
    "config",
    "config_id",
    "params",
    "seed",
    "parameters",
    "macs",
    "values_by_epoch",
    "seconds",
    "epoch_seconds",
    "constraints",
    "failure",
    "interrupted",
    "duplicate_of",
    "starting_point",
    "confirmations",
}


@pytest.fixture
def shown(finished: Path, mc1opt_here) -> dict:
    result = output_of(mc1opt_here("show", "--study", "tiny", "--json"))
    return json.loads(result)


def by_starting_point(study: dict) -> dict[str, dict]:
    return {trial["starting_point"]: trial for trial in study["trials"] if trial["starting_point"]}


# ---- A study as JSON -------------------------------------------------------------------------------------


def test_json_says_what_was_searched(shown) -> None:
    assert {key: value for key, value in shown.items() if key not in ("trials", "best", "data")} == {
        "study": "tiny",
        "definition": "tiny",
        "direction": "maximize",
        "fidelity": {"train_images": 100, "epochs": 2, "validation": "unused"},
        "seed": 0,
        "metric": "accuracy",
        "class_weights": None,
        "constraints": {},
        "from": None,
    }
    assert set(shown["data"]) == {"name", "sha256"}


def test_json_has_every_field_of_every_trial(shown) -> None:
    assert [trial["number"] for trial in shown["trials"]] == list(range(len(shown["trials"])))
    assert all(set(trial) >= FIELDS for trial in shown["trials"])


def test_the_best_trial_is_the_complete_one_with_the_highest_value(shown) -> None:
    complete = [trial for trial in shown["trials"] if trial["state"] == "COMPLETE"]
    assert len(complete) == 3
    assert shown["best"] == max(complete, key=lambda trial: (trial["value"], -trial["number"]))


def test_a_complete_trial_has_a_value_of_its_last_epoch(shown) -> None:
    trial = by_starting_point(shown)["mlp"]
    assert trial["outcome"] == "complete"
    assert len(trial["values_by_epoch"]) == 2
    assert trial["value"] == trial["values_by_epoch"][-1]
    assert trial["seconds"] > 0
    assert (trial["failure"], trial["constraints"], trial["duplicate_of"]) == (None, {}, None)


def test_size_and_identity_are_those_of_the_config(shown) -> None:
    for trial in shown["trials"]:
        config = config_from_json(trial["config"])
        size = cost(config.architecture, CIFAR10_SHAPE)
        assert (trial["parameters"], trial["macs"]) == (size.parameters, size.macs)
        assert trial["config_id"] == config_id(config)


def test_every_trial_has_its_own_seed(shown) -> None:
    assert len({trial["seed"] for trial in shown["trials"]}) == len(shown["trials"])


def test_trials_without_a_result_say_why(shown) -> None:
    trials = by_starting_point(shown)
    assert trials["the same"]["duplicate_of"] == trials["mlp"]["number"]
    assert trials["large"]["constraints"]["too_large"] > 0
    assert trials["wild"]["failure"]["kind"] == "diverged"
    outcomes = {name: trials[name]["outcome"] for name in ("the same", "large", "wild")}
    assert outcomes == {"the same": "duplicate", "large": "too_large", "wild": "failed"}
    assert all(trials[name]["value"] is None for name in outcomes)


def test_the_best_trial_was_trained_again(shown) -> None:
    assert len(shown["best"]["confirmations"]) == 2
    assert len({confirmation["seed"] for confirmation in shown["best"]["confirmations"]}) == 2


# ---- As text ---------------------------------------------------------------------------------------------


def test_a_study_is_shown_with_its_counts_and_its_best_trials(finished: Path, shown, mc1opt_here) -> None:
    result = output_of(mc1opt_here("show", "--study", "tiny"))
    table = [line for line in result.splitlines() if line.startswith("#")]
    assert table[0].startswith(f"#{shown['best']['number']} ")
    assert f"{shown['best']['value']:.4f}" in table[0]


def test_a_trial_is_shown_in_full(finished: Path, shown, mc1opt_here) -> None:
    trial = by_starting_point(shown)["convnet"]
    result = mc1opt_here("show", "--study", "tiny", "--trial", str(trial["number"]))
    assert result.returncode == 0
    for what in (f"#{trial['number']}", trial["config_id"], str(trial["seed"]), "convnet", '"kind": "sgd"'):
        assert what in result.stdout


def test_json_of_one_trial_holds_that_trial_alone(finished: Path, shown, mc1opt_here) -> None:
    result = mc1opt_here("show", "--study", "tiny", "--trial", "1", "--json")
    assert json.loads(result.stdout)["trials"] == [shown["trials"][1]]


# ---- As CSV ----------------------------------------------------------------------------------------------


def test_csv_has_the_rows_of_the_study(finished: Path, shown, mc1opt_here) -> None:
    text = output_of(mc1opt_here("show", "--study", "tiny", "--csv"))
    table = list(csv.DictReader(io.StringIO(text)))
    expected = mc1opt.load_study("tiny").rows()
    assert table == [
        {name: "" if cell is None else str(cell) for name, cell in row.items()} for row in expected
    ]
    assert len(table) == len(shown["trials"])
    assert text.count("\n") == len(table) + 1


def test_csv_of_one_trial_is_its_row(finished: Path, mc1opt_here) -> None:
    text = output_of(mc1opt_here("show", "--study", "tiny", "--trial", "1", "--csv"))
    assert [row["number"] for row in csv.DictReader(io.StringIO(text))] == ["1"]


def test_csv_and_json_exclude_each_other(finished: Path, mc1opt_here) -> None:
    ended = mc1opt_here("show", "--study", "tiny", "--csv", "--json")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--csv and --json" in ended.stderr
