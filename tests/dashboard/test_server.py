"""Serving the dashboard: what its pages leave out, where it may be reached, what cannot be served on."""

import json
import socket
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import BaseTrial
from sqlalchemy import text

from mc1opt.config import Config
from mc1opt.dashboard.server import LEFT_OUT, LONGEST, is_loopback, serve_dashboard
from mc1opt.database import records
from mc1opt.database.location import checkpoints_folder
from mc1opt.database.opening import load_study, open_storage
from mc1opt.database.trial_files import kept_weights
from mc1opt.errors import StorageError, UsageError
from tests.support.command import wait_until
from tests.support.pages import Pages
from tests.support.studies import WHOLE, definition_of, new_storage, run_study, smooth_space, stored


def serve(**options: Any) -> None:
    """Serves, for errors: it ends before it has begun."""
    fields: dict[str, Any] = {"study": None, "host": "127.0.0.1", "port": 0, "open_browser": False}
    fields |= {"write": lambda line: None, "warn": lambda line: None}
    serve_dashboard("s.db", **(fields | options))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A study in which everything happens: not to be changed."""
    path = str(tmp_path_factory.mktemp("served") / "s.db")
    run_study(WHOLE, path=path)
    return path


# ---- The pages -------------------------------------------------------------------------------------------


def test_the_table_of_trials_has_short_columns_and_those_of_numbers_are_sortable(database: str) -> None:
    detail = Pages(database).study()
    columns = {column["key"]: column["sortable"] for column in detail["union_user_attrs"]}
    assert not columns.keys() & set(LEFT_OUT)
    assert next(iter(columns)) == records.OUTCOME
    numbers = {records.PARAMETERS, records.MACS, records.EPOCH_SECONDS}
    assert {key for key, sortable in columns.items() if sortable} >= numbers
    assert columns[records.OUTCOME] is columns[records.SUMMARY] is False
    for trial in [*detail["trials"], *detail["best_trials"]]:
        attributes = {entry["key"]: entry["value"] for entry in trial["user_attrs"]}
        assert not attributes.keys() & set(LEFT_OUT)
        assert max(map(len, attributes.values())) < LONGEST + 10
        assert not any(" " in value for value in attributes.values())  # at which a line would be broken


def test_what_the_pages_leave_out_stays_stored(database: str) -> None:
    before = [trial.user_attrs for trial in load_study(open_storage(database, create=False), "s").trials]
    Pages(database).study()
    study = load_study(open_storage(database, create=False), "s")
    assert [trial.user_attrs for trial in study.trials] == before
    assert all({records.CONFIG, records.VERSIONS, records.OWNER} <= set(trial) for trial in before)


def test_too_large_duplicate_and_pruned_trials_are_told_apart_by_a_column(database: str) -> None:
    shown = {
        trial["number"]: {entry["key"]: entry["value"] for entry in trial["user_attrs"]}[records.OUTCOME]
        for trial in Pages(database).study()["trials"]
    }
    assert shown == {trial.number: trial.outcome for trial in stored(database).trials}
    assert {"complete", "pruned", "too_large", "duplicate"} <= set(shown.values())


def test_trials_that_violate_a_constraint_can_be_filtered_out(database: str) -> None:
    shown = {trial["number"]: trial["constraints"] for trial in Pages(database).study()["trials"]}
    violated = {
        trial.number for trial in stored(database).trials if max([0.0, *trial.constraints.values()]) > 0
    }
    assert {number for number, constraints in shown.items() if any(c > 0 for c in constraints)} == violated
    assert 0 < len(violated) < len(shown)


def test_intermediate_values_of_every_epoch_are_shown(database: str) -> None:
    trials = Pages(database).study()["trials"]
    for record, trial in zip(stored(database).trials, trials, strict=True):
        assert [point["value"] for point in trial["intermediate_values"]] == record.values_by_epoch


def test_trials_that_begin_and_end_while_it_serves_are_shown() -> None:
    study = optuna.create_study(storage=new_storage(), study_name="s", direction="maximize")
    pages = Pages()
    assert pages.study()["trials"] == []
    study.tell(study.ask(), 0.5)
    wait_until(lambda: [trial["state"] for trial in pages.study()["trials"]] == ["Complete"])


def test_a_study_of_before_that_is_renamed_on_its_page_keeps_its_files() -> None:
    run_study(2, sampler="random", pruner="none")
    with new_storage().engine.begin() as connection:
        connection.execute(text("DELETE FROM study_user_attributes WHERE key = 'mc1opt_folder'"))
    optuna.create_study(study_name="theirs", storage=new_storage())

    def end(_line: str) -> None:
        raise KeyboardInterrupt

    serve(write=end)
    Pages().rename("s", "final")
    Pages().rename("theirs", "also theirs")
    assert kept_weights(checkpoints_folder("s.db") / stored(name="final").folder)
    assert load_study(new_storage(), "also theirs").user_attrs == {}


def every_choice(trial: BaseTrial) -> Config:
    """Parameters of every sort that a search space may have, each in a branch that only some trials take."""
    trial.suggest_categorical("mixed", [None, True, 2, 0.5, "x", "", 'ä/"<b>\n'])
    trial.suggest_categorical("one", [None])
    trial.suggest_categorical("the same", ["a", "a", "b"])
    trial.suggest_float("no width", 0.5, 0.5)
    if trial.suggest_categorical('a name/with "everything" <b>', [False, True]):
        trial.suggest_int("moves", 1, 2 + trial.number, step=1)
        trial.suggest_float("tiny", 1e-30, 1e30, log=True)
    return smooth_space(trial)


@pytest.fixture(scope="module")
def every_sort(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A study of every sort of parameter: not to be changed."""
    path = str(tmp_path_factory.mktemp("sorts") / "s.db")
    run_study(8, definition_of(every_choice), path=path)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "path",
    [
        "?after=0",
        "/param_importances",
        *(f"/plot/{plot}" for plot in ("slice", "parallel_coordinate", "edf", "timeline")),
        *(pytest.param(f"/plot/{plot}", marks=pytest.mark.slow) for plot in ("contour", "rank")),
    ],
)
def test_the_api_answers_for_a_study_of_every_sort_of_parameter(every_sort: str, path: str) -> None:
    pages = Pages(every_sort)
    number = pages.studies()[0]["study_id"]
    status, _, body = pages.get(f"/api/studies/{number}{path}")
    assert status == "200 OK"
    json.loads(body, parse_constant=pytest.fail)


def extreme_space(trial: BaseTrial) -> Config:
    """A range whose margin in a plot has no logarithm."""
    trial.suggest_float("tiny", 1e-300, 1e300, log=True)
    return smooth_space(trial)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.xfail(strict=True, reason="Optuna 5.0.0 takes log10 of a margin that has become 0")
@pytest.mark.parametrize("plot", ["contour", "rank"])
def test_the_api_answers_for_a_range_at_the_end_of_what_floats_hold(plot: str) -> None:
    study = optuna.create_study(storage="sqlite:///s.db", study_name="s")
    for value in (1e-300, 1.0, 1e300):
        study.enqueue_trial({"tiny": value, "width": 64, "learning_rate": 0.1, "batch_size": 16})
    study.optimize(lambda trial: float(extreme_space(trial).batch_size), n_trials=3)
    pages = Pages()
    status, _, _ = pages.get(f"/api/studies/{pages.studies()[0]['study_id']}/plot/{plot}")
    assert status == "200 OK"


# ---- Where it is reached ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("localhost.example", False),
    ],
)
def test_only_this_machine_reaches_a_loopback_address(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_a_port_that_is_taken_is_said_with_what_to_do() -> None:
    new_storage()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"{port} of 127\.0\.0\.1 .*--port"):
            serve(port=port)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    new_storage()
    with pytest.raises(UsageError, match=f"--port {port} "):
        serve(port=port)


def test_a_host_of_another_machine_is_refused() -> None:
    new_storage()
    with pytest.raises(UsageError, match="--host"):
        serve(host="192.0.2.1")  # of documentation (RFC 5737): no machine has it


def test_a_missing_database_or_study_is_an_error_and_nothing_is_made() -> None:
    with pytest.raises(StorageError, match=r"s\.db"):
        serve()
    assert list(Path().iterdir()) == []
    new_storage()
    with pytest.raises(StorageError, match="'other'"):
        serve(study="other")
