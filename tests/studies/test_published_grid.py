"""The source's own search: a grid of 12 points, each trained once, however the study is interrupted."""

from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest

from mc1opt.database.records import StudyRecord
from mc1opt.presets import get_preset
from mc1opt.search.definition import load_definition
from mc1opt.search.observers import SearchEnded
from mc1opt.seeds import derive_seed
from mc1opt.spec import Fidelity
from mc1opt.workers.stop import StopFlag
from tests.support.curves import Switches
from tests.support.studies import SEED, facts, run_study, stored

DEFINITION = load_definition("published_grid")
FIDELITY = Fidelity(train_images=1000, epochs=2)
POINTS = {(batch, rate) for batch in (20, 50, 100, 200) for rate in (0.01, 0.1, 0.2)}


def search(trials: int = 12, **options: Any) -> SearchEnded:
    fields = {"sampler": "grid", "pruner": "none", "max_macs": DEFINITION.max_macs, "fidelity": FIDELITY}
    return run_study(trials, DEFINITION, **(fields | options))


def points(record: StudyRecord, *outcomes: str) -> Counter[tuple[int, float]]:
    """The points of the trials with these outcomes."""
    return Counter(
        (trial.params["batch_size"], trial.params["learning_rate"])
        for trial in record.trials
        if trial.outcome in outcomes
    )


def test_the_definition_is_the_published_search_on_row_1() -> None:
    assert (DEFINITION.sampler, DEFINITION.pruner) == ("grid", "none")
    assert {(b, r) for b in DEFINITION.grid["batch_size"] for r in DEFINITION.grid["learning_rate"]} == POINTS
    row_1 = get_preset("mlp-128-64")
    published = optuna.trial.FixedTrial({"batch_size": 200, "learning_rate": 0.1})
    assert DEFINITION.config(published) == row_1.config
    assert DEFINITION.fidelity.epochs == row_1.epochs["published"]


def test_all_12_points_are_trained_once_and_a_study_in_parts_is_the_same_study() -> None:
    for _ in range(2):  # there is no thirteenth
        assert search(40).reason == "finished"
        assert points(stored(), "complete") == Counter(POINTS)
        assert len(stored().trials) == 12
    whole = facts(stored())
    Path("s.db").unlink()
    for trials in (5, 12):
        search(trials)
    assert facts(stored()) == whole
    order = [(trial.params["batch_size"], trial.params["learning_rate"]) for trial in stored().trials]
    assert order != sorted(order)


def test_an_interrupted_trial_keeps_its_point(switches: Switches) -> None:
    switches.add("hang", seed=derive_seed(SEED, 4), epoch=1)
    stop = StopFlag()

    class StopsThere:
        """An observer that stops the search when the fifth trial hangs."""

        def __getattr__(self, _name: str) -> Any:
            return lambda *_arguments: None

        def epoch(self, number: int, _result: object) -> None:
            if number == 4:
                stop.set("signal", "SIGINT")

    assert search(observers=(StopsThere(),), stop=stop).reason == "signal"  # type: ignore[arg-type]
    waiting = stored().trials[4]
    assert waiting.outcome == "waiting"
    switches.clear()
    search()
    assert stored().trials[4].params == waiting.params
    assert points(stored(), "complete") == Counter(POINTS)


def test_a_point_whose_config_fails_is_not_tried_again(switches: Switches) -> None:
    switches.add("diverge", seed=derive_seed(SEED, 3))
    assert search().reason == "finished"
    assert len(stored().trials) == 12
    assert sum(points(stored(), "failed").values()) == 1
    assert points(stored(), "complete", "failed") == Counter(POINTS)


def test_a_point_whose_process_died_is_trained_by_another_trial(switches: Switches) -> None:
    switches.add("kill", seed=derive_seed(SEED, 3), times=1)
    assert search(workers=2).reason == "finished"
    assert points(stored(), "complete") == Counter(POINTS)
    assert len(stored().trials) == 13


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_other_samplers_search_the_same_space(sampler: str) -> None:
    search(3, sampler=sampler)
    assert points(stored(), "complete").keys() <= POINTS
