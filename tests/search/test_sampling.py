"""Draws that can be drawn again."""

from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from mc1opt.database import records
from mc1opt.database.opening import load_study
from mc1opt.errors import UsageError
from mc1opt.search.pruning import make_pruner
from mc1opt.search.sampling import (
    STARTUP,
    SeededSampler,
    WholeGridSampler,
    make_sampler,
)
from tests.support.studies import SEED, new_storage, own_attributes, own_trial, small_space

# ---- Sampler ---------------------------------------------------------------------------------------------


def finished_before(
    trials: Sequence[FrozenTrial], number: int, *, name: str = "tpe", seed: int = SEED
) -> optuna.Study:
    """A study of its own with the trials below `number`, so that the next one has this number."""
    study = optuna.create_study(direction="maximize", sampler=make_sampler(name, seed))
    for trial in trials[:number]:
        study.add_trial(trial)
    return study


def draw(study: optuna.Study, interruptions: tuple[int, ...] = ()) -> dict[str, object]:
    """The parameters of the next trial; its process dies after each of these numbers of suggestions."""

    class DiesError(Exception):
        pass

    class Dying(optuna.Trial):
        left = 0

        def _suggest(self, name: str, distribution: optuna.distributions.BaseDistribution) -> object:
            if self.left == 0:
                raise DiesError
            self.left -= 1
            return super()._suggest(name, distribution)

    trial_id = study.ask()._trial_id
    for suggestions in interruptions:
        dying = Dying(study, trial_id)
        dying.left = suggestions
        with pytest.raises(DiesError):
            small_space(dying)
        study.sampler = make_sampler("tpe", SEED)
    trial = optuna.Trial(study, trial_id)
    small_space(trial)
    return trial.params


@pytest.fixture
def trials(whole: Path) -> list[FrozenTrial]:
    """Of the study that was trained in one go; it is searched with TPE."""
    return load_study(new_storage(str(whole / "s.db")), "s").trials


def test_every_draw_of_a_study_can_be_drawn_again(trials: list[FrozenTrial]) -> None:
    sampled = [trial for trial in trials if records.STARTING_POINT not in trial.user_attrs]
    modelled = 0
    for trial in sampled:
        study = finished_before(trials, trial.number)
        modelled += sum(records.is_counted(other) for other in study.trials) >= STARTUP["tpe"]
        assert draw(study) == trial.params
    assert modelled >= 5
    assert modelled < len(sampled)


@pytest.mark.parametrize("interruptions", [(0,), (1,), (2, 3), (4, 4, 1)], ids=str)
def test_a_process_that_dies_between_two_suggestions_changes_no_draw(
    trials: list[FrozenTrial], interruptions: tuple[int, ...]
) -> None:
    last = trials[-1]
    assert draw(finished_before(trials, last.number), interruptions) == last.params


def test_trials_in_training_change_no_draw(trials: list[FrozenTrial]) -> None:
    """The number and the finished trials count; so what others train at the moment does not."""
    last = trials[-1]
    study = finished_before(trials, last.number - 1)
    study.ask()
    alone = finished_before(trials, last.number - 1)
    alone.add_trial(create_trial(state=TrialState.FAIL))
    assert draw(study) == draw(alone)


def test_another_number_seed_or_name_is_another_draw(trials: list[FrozenTrial]) -> None:
    def uniform(study: optuna.Study, names: str) -> list[float]:
        trial = study.ask()
        return [trial.suggest_float(name, 0, 1) for name in names]

    for name in ("tpe", "random"):
        study = optuna.create_study(sampler=make_sampler(name, 1))
        other_seed = optuna.create_study(sampler=make_sampler(name, 2))
        draws = [*uniform(study, "xyz"), *uniform(study, "xyz"), *uniform(other_seed, "xyz")]
        assert len(set(draws)) == 9
        again = optuna.create_study(sampler=make_sampler(name, 1))
        assert uniform(again, "zx") == [draws[2], draws[0]]


def test_only_trained_trials_end_the_start_up() -> None:
    made: list[int] = []

    def make(seed: int) -> BaseSampler:
        made.append(seed)
        return RandomSampler(seed)

    study = optuna.create_study(direction="maximize", sampler=SeededSampler(make, 0, startup_trials=3))

    def tell(state: TrialState, large: bool = False, **attributes: object) -> int:
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        for key, value in (own_attributes() | attributes).items():
            trial.set_user_attr(key, value)
        if large:
            trial.set_constraint(records.TOO_LARGE, 1.0)
        if state == TrialState.COMPLETE:
            trial.report(0.5, 0)
        study.tell(trial, 0.5 if state == TrialState.COMPLETE else None, state=state)
        return len(made)

    for _ in range(3):
        tell(TrialState.PRUNED, large=True)
        tell(TrialState.PRUNED, infeasible="")
        tell(TrialState.PRUNED, owner=None)
        tell(TrialState.PRUNED, duplicate_of=0)
        tell(TrialState.PRUNED, failure={"kind": "diverged"})
        tell(TrialState.FAIL)
    assert tell(TrialState.COMPLETE) == 0
    assert tell(TrialState.PRUNED) == 0
    assert tell(TrialState.COMPLETE) == 0
    assert tell(TrialState.COMPLETE) > 0


def test_unknown_names_are_refused_with_the_allowed_ones() -> None:
    with pytest.raises(UsageError, match=r"'cma'.* local, tpe, random, grid\."):
        make_sampler("cma", 0)
    with pytest.raises(UsageError, match=r"'x'.* narrowing, median, halving, none\."):
        make_pruner("x")
    for grid in (None, {}):
        with pytest.raises(UsageError, match="GRID"):
            make_sampler("grid", 0, grid)


GRID = {"x": [1, 2, 3], "y": ["a", "b"]}


def grid_study(seed: int = 0) -> optuna.Study:
    return optuna.create_study(storage=new_storage(), sampler=make_sampler("grid", seed, GRID))


def ask_point(study: optuna.Study) -> tuple[optuna.Trial, tuple[int, str]]:
    trial = study.ask()
    return trial, (trial.suggest_int("x", 1, 3), trial.suggest_categorical("y", ["a", "b"]))


def test_a_grid_is_drawn_point_by_point_in_an_order_of_the_seed() -> None:
    def order(seed: int) -> list[tuple[int, str]]:
        study = grid_study(seed)
        return [ask_point(study)[1] for _ in range(6)]

    orders = [order(seed) for seed in (0, 0, 1, 2)]
    assert sorted(orders[0]) == [(x, y) for x in (1, 2, 3) for y in ("a", "b")]
    assert orders[0] == orders[1]
    assert len(set(map(tuple, orders))) > 1


def test_a_grid_is_exhausted_when_every_point_is_taken_and_no_trial_waits() -> None:
    study = grid_study()
    sampler = study.sampler
    assert isinstance(sampler, WholeGridSampler)
    trials = [ask_point(study)[0] for _ in range(5)]
    assert not sampler.is_exhausted(study)
    last, point = ask_point(study)
    assert sampler.is_exhausted(study)
    study.tell(last, state=TrialState.FAIL)
    assert not sampler.is_exhausted(study)
    again, same = ask_point(study)
    assert same == point
    for trial in [*trials, again]:
        # Optuna's own sampler stops the study after the last, which is an error here.
        trial.set_user_attr(records.INFEASIBLE, "")
        study.tell(trial, state=TrialState.PRUNED)
    assert sampler.is_exhausted(study)
    study.enqueue_trial({"x": 1, "y": "a"})
    assert not sampler.is_exhausted(study)


def test_tpe_ranks_a_pruned_trial_by_what_it_had_reached() -> None:
    """Optuna's own order would take the poor completed trials for the best ones."""
    study = optuna.create_study(direction="maximize", sampler=make_sampler("tpe", 0))
    space: dict[str, optuna.distributions.BaseDistribution] = {
        "x": optuna.distributions.FloatDistribution(0, 1)
    }
    for i in range(30):
        poor = i < 3
        reached = 0.3 if poor else 0.7 - abs(0.8 - i / 30)
        study.add_trial(
            own_trial(
                TrialState.COMPLETE if poor else TrialState.PRUNED,
                0.3 if poor else None,
                params={"x": 0.1 if poor else i / 30},
                distributions=space,
                intermediate_values={0: reached},
            )
        )
    drawn = [study.ask(space).params["x"] for _ in range(20)]
    assert sum(abs(x - 0.8) < 0.25 for x in drawn) > 15
    assert len(study.trials) == 50
