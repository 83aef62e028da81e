"""A study of ours stays a study of Optuna's: its command line, tables and plots read it, and people who know
Optuna go on with it by hand."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import optuna.cli
import pytest

from mc1opt.database.location import DEFAULT_STORAGE, storage_url
from tests.support.command import TINY_SEARCH, output_of, stored_study

NAME = "validation accuracy"
"""What Optuna calls the value."""
URL = storage_url(DEFAULT_STORAGE)


@pytest.fixture
def study(finished: Path) -> optuna.Study:
    """The finished search, loaded as Optuna's documentation says."""
    return optuna.load_study(study_name="tiny", storage=URL)


@pytest.fixture
def optuna_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Gives a command of Optuna's, and returns what it prints as JSON."""

    def give(command: str) -> Any:
        options = ["--study-name", "tiny", "--storage", URL, "--format", "json"]
        monkeypatch.setattr(sys, "argv", ["optuna", command, *options])
        optuna.cli.main()
        return json.loads(capsys.readouterr().out)

    return give


# ---- Reading ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_its_command_line_lists_the_trials_and_names_the_best(study: optuna.Study, optuna_command) -> None:
    ours = stored_study("tiny")
    listed = optuna_command("trials")
    assert [trial["number"] for trial in listed] == [trial["number"] for trial in ours["trials"]]
    assert [trial["state"] for trial in listed] == [trial["state"] for trial in ours["trials"]]
    best = optuna_command("best-trial")
    assert (best["number"], best["value"]) == (ours["best"]["number"], {NAME: ours["best"]["value"]})
    assert (study.best_trial.number, study.best_params) == (ours["best"]["number"], ours["best"]["params"])


def test_its_table_has_a_row_for_each_trial(study: optuna.Study) -> None:
    pytest.importorskip("pandas")
    frame = study.trials_dataframe()
    assert list(frame["number"]) == [trial.number for trial in study.trials]
    ours = {name for row in stored_rows() for name in row if name.startswith("params_")}
    assert ours == {name for name in frame.columns if name.startswith("params_")}


def stored_rows() -> list[dict[str, Any]]:
    import mc1opt

    return mc1opt.load_study("tiny").rows()


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    "plot",
    [
        "plot_optimization_history", "plot_intermediate_values", "plot_slice", "plot_parallel_coordinate",
        "plot_timeline", "plot_edf",
    ],
)  # fmt: skip
def test_its_plots_draw_it(study: optuna.Study, plot: str) -> None:
    figure = getattr(optuna.visualization, plot)(study)
    assert figure.data


def test_it_tells_the_importances(study: optuna.Study) -> None:
    assert optuna.importance.get_param_importances(study).keys() == {"kind", "width", "learning_rate"}


# ---- Going on by hand ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("curve_pool")
def test_what_is_enqueued_is_trained_next_and_what_was_tried_by_hand_is_passed_over(
    study: optuna.Study, mc1opt_here
) -> None:
    params = study.best_params | {"learning_rate": 0.02}
    study.enqueue_trial(params)
    enqueued = len(study.trials) - 1
    study.add_trial(optuna.trial.create_trial(value=0.99))
    asked = study.ask()  # takes what was enqueued
    study.tell(asked, 0.98)
    study.enqueue_trial(params | {"learning_rate": 0.03})
    study.ask({"width": optuna.distributions.IntDistribution(2, 2048, log=True)})  # never told
    study.enqueue_trial(params | {"learning_rate": 0.04})
    counted = sum(trial["outcome"] in ("complete", "pruned") for trial in stored_study("tiny")["trials"])
    output_of(mc1opt_here(*TINY_SEARCH, "--trials", str(counted + 1), "--confirm", "0"))
    trials = stored_study("tiny")["trials"][enqueued:]
    assert [trial["outcome"] for trial in trials] == ["foreign", "foreign", "foreign", "complete"]
    assert trials[-1]["params"]["learning_rate"] == 0.04
    assert stored_study("tiny")["best"]["number"] not in range(enqueued, enqueued + 3)


@pytest.mark.usefixtures("curve_pool")
def test_optunas_own_loop_goes_on_with_its_parameters(study: optuna.Study, mc1opt_here) -> None:
    before = len(study.trials)
    study.optimize(lambda trial: trial.suggest_int("width", 2, 2048, log=True) / 2048, n_trials=2)
    counted = sum(trial["outcome"] in ("complete", "pruned") for trial in stored_study("tiny")["trials"])
    output_of(mc1opt_here(*TINY_SEARCH, "--trials", str(counted + 1), "--confirm", "0"))
    trials = stored_study("tiny")["trials"]
    assert [trial["outcome"] for trial in trials[before : before + 2]] == ["foreign"] * 2
    assert sum(trial["outcome"] in ("complete", "pruned") for trial in trials) == counted + 1
