"""New incumbents are trained again, and the sampler is shown the mean of both trainings."""

import dataclasses
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from mc1opt.database import records
from mc1opt.database.opening import load_study
from mc1opt.database.records import TrialRecord
from mc1opt.search.incumbents import BEYOND_LUCK, confirmation_seed, incumbents
from mc1opt.search.sampling import STARTUP, make_sampler
from mc1opt.spec import Fidelity
from tests.support.studies import (
    SEED,
    definition_of,
    facts,
    new_storage,
    own_trial,
    run_study,
    small_definition,
    smooth_space,
    stored,
)


def trial(number: int, value: float, again: float | None = None, failure: str = "") -> FrozenTrial:
    """A complete trial, trained again with this value or this failure."""
    entry: dict[str, Any] = {"seed": confirmation_seed(SEED, number, 0), "value": again}
    entry |= {"failure": {"kind": failure, "message": ""}} if failure else {}
    made = own_trial(TrialState.COMPLETE, value)
    made.user_attrs[records.CONFIRMATIONS] = [entry] if again is not None or failure else []
    made.number = number
    return made


def study_of(*trials: FrozenTrial) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    return study


def test_a_trial_just_ahead_of_all_before_counts_as_the_mean_of_two_trainings() -> None:
    found = incumbents(
        study_of(
            trial(0, 0.50),  # beyond luck: nothing was before
            trial(1, 0.51, 0.49),
            trial(2, 0.505, 0.6),  # just ahead of 0.5, and then of 0.5525
            trial(3, 0.55, 0.9),  # behind: what a confirmation said at the end does not count
            trial(4, 0.56),
            trial(5, 0.56 + BEYOND_LUCK + 0.001, 0.1),
        ),
        SEED,
    )
    assert found.scores == pytest.approx({0: 0.5, 1: 0.5, 2: 0.5525, 3: 0.55, 4: 0.56, 5: 0.581})
    assert found.unrepeated == [4]


def test_a_failure_counts_as_nothing_if_the_config_caused_it_and_is_repeated_otherwise() -> None:
    found = incumbents(
        study_of(trial(0, 0.5), trial(1, 0.51, failure="diverged"), trial(2, 0.51, failure="killed")), SEED
    )
    assert (found.scores, found.unrepeated) == ({0: 0.5, 1: 0.255, 2: 0.51}, [2])


def test_unfinished_trials_are_passed_over() -> None:
    pruned = own_trial(TrialState.PRUNED, None, intermediate_values={0: 0.9})
    assert incumbents(study_of(pruned), SEED).scores == {}


FIDELITY = Fidelity(train_images=1000, epochs=2, short_epochs=1)
SEARCH: dict[str, Any] = {"sampler": "local", "fidelity": FIDELITY, "keep": 3, "checkpoint_seconds": 0.0}
TRIALS = STARTUP["local"] + 4
SMOOTH = definition_of(smooth_space)


@pytest.fixture(scope="module")
def searched(_no_syncs: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a study of TRIALS trials, searched in one go: not to be changed."""
    path = tmp_path_factory.mktemp("searched") / "s.db"
    run_study(TRIALS, SMOOTH, confirm=0, path=str(path), **SEARCH)
    return path


def repeated(trials: list[TrialRecord]) -> list[int]:
    return [trial.number for trial in trials if trial.confirmations]


def test_a_search_repeats_each_new_incumbent_before_it_draws_on(searched: Path) -> None:
    record = stored(str(searched))
    study = load_study(new_storage(str(searched)), "s")
    found = incumbents(study, SEED)
    assert found.unrepeated == []
    assert len(repeated(record.trials)) >= 2
    for number in repeated(record.trials):
        value, (again,) = record.trials[number].value, record.trials[number].confirmations
        assert found.scores[number] == pytest.approx((value + again["value"]) / 2)
    drawn = [trial for trial in record.trials if trial.drawn]
    assert len(drawn) >= 3
    assert all("changes from #" in trial.drawn or "1 change from #" in trial.drawn for trial in drawn)


def test_the_sampler_is_shown_the_mean() -> None:
    study = study_of(trial(0, 0.5), trial(1, 0.51, 0.47), trial(2, 0.49, 0.3))
    shown = {
        name: [each.value for each in make_sampler(name, SEED)._new_view(study, study.ask()).study.trials[:3]]
        for name in ("local", "tpe")
    }
    assert shown["local"] == pytest.approx([0.5, 0.49, 0.49])
    assert shown["tpe"] == [0.5, 0.51, 0.49]


def test_starting_points_stand_for_random_draws() -> None:
    points = dict(list(small_definition().starting_points.items())[:1])
    drawn = [
        [
            trial.drawn
            for trial in run_study(STARTUP["local"], definition, path=path, sampler="local").record.trials
        ]
        for path, definition in [
            ("with.db", dataclasses.replace(small_definition(), starting_points=points)),
            ("without.db", dataclasses.replace(small_definition(), starting_points={})),
        ]
    ]
    assert any(drawn[0])
    assert not any(drawn[1])


def test_other_samplers_repeat_nothing() -> None:
    assert repeated(run_study(8, SMOOTH, confirm=0, **SEARCH | {"sampler": "random"}).record.trials) == []


def test_several_workers_repeat_each_incumbent_once() -> None:
    record = run_study(8, SMOOTH, confirm=0, workers=3, **SEARCH).record
    assert all(len(trial.confirmations) <= 1 for trial in record.trials)
    found = incumbents(load_study(new_storage("s.db"), "s"), SEED)
    assert found.unrepeated == []


def test_in_parts_with_confirmations_in_between_it_is_trial_by_trial_the_same(searched: Path) -> None:
    for trials in (9, 17, TRIALS):
        run_study(trials, SMOOTH, confirm=3, **SEARCH)
    whole, parts = stored(str(searched)), stored()
    without = [{k: v for k, v in fact.items() if k != "confirmations"} for fact in facts(whole)]
    assert [{k: v for k, v in fact.items() if k != "confirmations"} for fact in facts(parts)] == without
