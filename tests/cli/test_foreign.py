"""Trials of other programs in a study of ours: each command goes on, says it in a line, and is not misled."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest

from mc1opt.database import records
from mc1opt.database.location import DEFAULT_STORAGE, storage_url
from tests.support.command import TINY_SEARCH, mc1opt, output_of, stored_study
from tests.support.pages import Pages
from tests.support.studies import FOREIGN, write_foreign_trials
from tests.support.wandb_runs import no_account, read_runs

__all__ = ["no_account"]

LINE = (
    "Passed over: 5 trials written by another program (#{0}, #{1}, #{2}, #{3}, #{4}); "
    "1 trial ended by another program (#{5}); 1 trial with a damaged attribute 'config' (#{6}); "
    "1 trial with a damaged config (#{7}); 1 trial with a damaged attribute 'confirmations' (#{8}); "
    "1 trial with a config that a newer mc1opt wrote (#{9})."
)


def line() -> str:
    numbers = [trial["number"] for trial in stored_study("tiny")["trials"] if trial["outcome"] == "foreign"]
    return LINE.format(*numbers)


@pytest.fixture
def mixed(finished: Path) -> dict[str, Any]:
    """The finished search, and its study with what other programs write into it."""
    write_foreign_trials(optuna.load_study(study_name="tiny", storage=storage_url(DEFAULT_STORAGE)))
    study = stored_study("tiny")
    assert sum(trial["outcome"] == "foreign" for trial in study["trials"]) == FOREIGN
    return study


@pytest.mark.usefixtures("curve_pool")
def test_run_trains_as_many_as_without_them(mixed: dict[str, Any], mc1opt_here) -> None:
    before = sum(trial["outcome"] in ("complete", "pruned") for trial in mixed["trials"])
    ended = output_of(mc1opt_here(*TINY_SEARCH, "--trials", str(before + 1), "--confirm", "2"))
    assert ended.splitlines()[1] == line()
    assert f"{FOREIGN} passed over" in ended
    study = stored_study("tiny")
    assert sum(trial["outcome"] in ("complete", "pruned") for trial in study["trials"]) == before + 1
    foreign = [trial for trial in study["trials"] if trial["outcome"] == "foreign"]
    assert [trial["confirmations"] for trial in foreign] == [[]] * FOREIGN
    assert study["best"]["outcome"] == "complete"


def test_show_names_them_and_none_is_the_best(mixed: dict[str, Any], mc1opt_here) -> None:
    shown = output_of(mc1opt_here("show", "--study", "tiny"))
    assert line() in shown.splitlines()
    assert "0.99" not in shown
    for trial in mixed["trials"][::4]:
        one = output_of(mc1opt_here("show", "--study", "tiny", "--trial", str(trial["number"])))
        assert ("passed over: " in one) == (trial["outcome"] == "foreign")


def test_json_says_why(mixed: dict[str, Any], mc1opt_here) -> None:
    printed = json.loads(mc1opt_here("show", "--study", "tiny", "--json").stdout)
    foreign = [trial for trial in printed["trials"] if trial["foreign"]]
    assert len(foreign) == FOREIGN
    assert {trial["value"] for trial in foreign} == {None}
    assert printed["best"] == mixed["best"]


@pytest.mark.parametrize(
    "command",
    [
        ("retrain", "--seeds", "1", "--epochs", "1", "--workers", "1", "--trial"),
        ("export", "--trial"),
        ("replay", "--trial"),
    ],
    ids=lambda command: command[0],
)
def test_none_of_them_is_trained_or_exported(
    mixed: dict[str, Any], mc1opt_here, command: tuple[str, ...]
) -> None:
    for trial in [trial for trial in mixed["trials"] if trial["outcome"] == "foreign"][::4]:
        ended = mc1opt_here(command[0], "--study", "tiny", *command[1:], str(trial["number"]))
        assert ended.returncode == 2
        assert trial["foreign"] in ended.stderr


def test_the_best_is_exported(mixed: dict[str, Any], mc1opt_here) -> None:
    exported = output_of(
        mc1opt_here("export", "--study", "tiny", "--format", "safetensors", "--output", "exported")
    )
    assert line() in exported
    assert [path.stem for path in Path("exported").glob("*.safetensors")] == [
        f"trial-{mixed['best']['number']}"
    ]


@pytest.mark.slow
def test_retrain_chooses_among_ours(mixed: dict[str, Any], mc1opt_here) -> None:
    options = ("--top", "9", "--seeds", "1", "--epochs", "1", "--workers", "1", "--json")
    ended = mc1opt_here("retrain", "--study", "tiny", *options)
    assert ended.returncode == 0, ended.stderr
    assert line() in ended.stderr
    complete = {trial["number"] for trial in mixed["trials"] if trial["outcome"] == "complete"}
    assert {entry["trial"] for entry in json.loads(ended.stdout)["candidates"]} <= complete


@pytest.mark.slow
@pytest.mark.usefixtures("no_account")
def test_none_of_them_is_mirrored(mixed: dict[str, Any]) -> None:
    ended = output_of(mc1opt("mirror", "--study", "tiny", "--all", "--wandb", "offline"))
    assert ended.splitlines()[0] == line()
    foreign = {f"tiny #{trial['number']}" for trial in mixed["trials"] if trial["outcome"] == "foreign"}
    names = {read.run["display_name"] for read in read_runs().values()}
    assert names
    assert not names & foreign


def test_studies_and_doctor_count_them_apart(mixed: dict[str, Any], mc1opt_here) -> None:
    listed = output_of(mc1opt_here("studies"))
    complete = sum(trial["outcome"] == "complete" for trial in mixed["trials"])
    counts = f"{len(mixed['trials'])} trials, {complete} complete, {FOREIGN} passed over"
    assert counts in listed
    doctor = mc1opt_here("doctor", "--data", "images", "--json")
    (check,) = [check for check in json.loads(doctor.stdout)["checks"] if check["name"] == "trials"]
    assert check["status"] == "ok"
    for number in range(len(mixed["trials"]) - FOREIGN, len(mixed["trials"])):
        assert f"#{number}" in check["found"]


def test_a_study_with_them_is_deleted(mixed: dict[str, Any], mc1opt_here) -> None:
    output_of(mc1opt_here("studies", "delete", "tiny", "--yes"))
    assert json.loads(output_of(mc1opt_here("studies", "--json")))["studies"] == []


@pytest.mark.filterwarnings("ignore:Some regimes")
def test_the_dashboard_shows_them_as_what_they_are(mixed: dict[str, Any], mc1opt_here) -> None:
    from mc1opt.dashboard.pages import update_dashboard

    update_dashboard(DEFAULT_STORAGE, "tiny")
    pages = Pages(DEFAULT_STORAGE)
    detail = pages.study("tiny")
    assert [trial["number"] for trial in detail["best_trials"]] == [mixed["best"]["number"]]
    assert line() in detail["note"]["body"]
    for shown, trial in zip(detail["trials"], mixed["trials"], strict=True):
        outcome = {entry["key"]: entry["value"] for entry in shown["user_attrs"]}[records.OUTCOME]
        assert (outcome.split(":")[0] == "foreign") == (trial["outcome"] == "foreign")
        if trial["outcome"] == "foreign":
            assert shown["constraints"] == [1.0]
            assert shown["artifacts"] == []
    study_id = detail["trials"][0]["study_id"]
    assert pages.json(f"/api/studies/{study_id}/param_importances")


@pytest.mark.slow
@pytest.mark.usefixtures("curve_pool")
@pytest.mark.filterwarnings("ignore:Some regimes")
def test_a_parameter_of_another_kind_leaves_the_dashboard_working(finished: Path, mc1opt_here) -> None:
    study = optuna.load_study(study_name="tiny", storage=storage_url(DEFAULT_STORAGE))
    write_foreign_trials(study)
    with sqlite3.connect(DEFAULT_STORAGE) as connection:
        choices = optuna.distributions.CategoricalDistribution(["a", "b"])
        connection.execute(
            "UPDATE trial_params SET param_value = 0, distribution_json = ? WHERE param_name = 'width' "
            "AND trial_id IN (SELECT trial_id FROM trial_params WHERE param_name = 'batch_size')",
            (optuna.distributions.distribution_to_json(choices),),
        )
    connection.close()
    pages = Pages(DEFAULT_STORAGE)
    study_id = pages.study("tiny")["trials"][0]["study_id"]
    assert pages.json(f"/api/studies/{study_id}/param_importances")
    output_of(mc1opt_here(*TINY_SEARCH, "--trials", "4", "--confirm", "0"))
