"""Draws that can be drawn again, and the pruner."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from mc1opt.database import records
from mc1opt.database.opening import load_study
from mc1opt.errors import UsageError
from mc1opt.search.sampling import (
    KEPT_AFTER_SHORT,
    KEPT_BY_EPOCH,
    LATEST,
    PRUNER_STARTUP_TRIALS,
    STARTUP,
    SeededSampler,
    WholeGridSampler,
    make_pruner,
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


# ---- Pruner ----------------------------------------------------------------------------------------------


def complete(curves: Sequence[Sequence[float]], pruner: str = "narrowing") -> optuna.Study:
    """A study with complete trials of these curves."""
    study = optuna.create_study(direction="maximize", pruner=make_pruner(pruner))
    add_curves(study, curves, TrialState.COMPLETE)
    return study


def add_curves(study: optuna.Study, curves: Sequence[Sequence[float]], state: TrialState) -> None:
    for curve in curves:
        value = curve[-1] if state == TrialState.COMPLETE else None
        study.add_trial(own_trial(state, value, intermediate_values=dict(enumerate(curve))))


def should_prune(study: optuna.Study, curve: Sequence[float]) -> bool:
    """Whether a trial ends after its last report of `curve`."""
    trial = study.ask()
    for epoch, value in enumerate(curve):
        trial.report(value, epoch)
    return trial.should_prune()


@pytest.mark.parametrize("epoch", range(6))
def test_a_trial_goes_on_if_it_is_in_the_kept_share_of_those_that_came_as_far(epoch: int) -> None:
    kept = KEPT_BY_EPOCH[min(epoch, len(KEPT_BY_EPOCH) - 1)]
    generator = np.random.default_rng(epoch)
    curves = np.sort(generator.random((19, 6)), axis=1)  # with the new one they are 20
    ranked = np.sort(curves[:, epoch])[::-1]
    go_on = round(kept * 20)
    rising = [ranked[go_on - 1] * (step + 1) / (epoch + 2) for step in range(epoch)]
    assert should_prune(complete(curves.tolist()), [*rising, ranked[go_on - 1] - 1e-6])
    assert not should_prune(complete(curves.tolist()), [*rising, ranked[go_on - 1] + 1e-6])


def test_pruned_and_running_trials_that_came_as_far_are_compared_with() -> None:
    for state in (TrialState.PRUNED, TrialState.RUNNING):
        study = complete([[0.1, 0.2]] * PRUNER_STARTUP_TRIALS)
        assert not should_prune(study, [0.11, 0.21])
        add_curves(study, [[0.9, 0.95]] * 50, state)
        assert should_prune(study, [0.11])


def test_trials_that_ended_before_are_not_compared_with() -> None:
    study = complete([[0.1, 0.2]] * PRUNER_STARTUP_TRIALS)
    add_curves(study, [[0.9]] * 50, TrialState.PRUNED)
    assert not should_prune(study, [0.91, 0.21])


@pytest.mark.parametrize("name", ["narrowing", "median"])
def test_nothing_is_pruned_before_some_trials_are_complete(name: str) -> None:
    study = optuna.create_study(direction="maximize", pruner=make_pruner(name))
    add_curves(study, [[0.9, 0.9, 0.9]] * 20, TrialState.PRUNED)
    for _ in range(PRUNER_STARTUP_TRIALS):
        assert not should_prune(study, [0.1, 0.1])
        add_curves(study, [[0.9, 0.9, 0.9]], TrialState.COMPLETE)
    assert should_prune(study, [0.1, 0.1])


def after_short(values: Sequence[float], short_epochs: int = 1) -> optuna.Study:
    """A study whose trials had these values at the end of their short schedule."""
    study = optuna.create_study(direction="maximize", pruner=make_pruner("narrowing", short_epochs))
    add_curves(study, [[0.1] * (short_epochs - 1) + [value] for value in values], TrialState.PRUNED)
    return study


def test_the_end_of_the_short_schedule_decides_and_nothing_else() -> None:
    values = np.linspace(0.5, 0.6, LATEST).tolist()
    go_on = math.ceil(KEPT_AFTER_SHORT * (LATEST + 1))  # the new one included
    least = sorted(values, reverse=True)[go_on - 1]
    for short_epochs in (1, 2):
        before = [0.0] * (short_epochs - 1)
        study = after_short(values, short_epochs)
        assert should_prune(study, [*before, least - 1e-6])
        assert not should_prune(after_short(values, short_epochs), [*before, least + 1e-6])
        assert not should_prune(after_short(values, short_epochs), [*before, least + 1e-6, 0.0])
        assert not short_epochs > 1 or not should_prune(study, before)


def test_the_latest_trials_are_compared_with_as_a_sampler_learns() -> None:
    assert not should_prune(after_short([0.9] * 30 + [0.5] * LATEST), [0.6])
    assert should_prune(after_short([0.5] * 30 + [0.9] * LATEST), [0.6])


def test_of_the_first_trials_those_go_on_that_are_ahead_of_all() -> None:
    assert not should_prune(after_short([]), [0.1])
    assert should_prune(after_short([0.3]), [0.2])
    assert not should_prune(after_short([0.3]), [0.4])


@pytest.mark.parametrize(
    ("pruner", "curve", "pruned"),
    [
        ("narrowing", [], False),  # without a report
        ("narrowing", [0.9], True),  # of equal trials the later one
        ("median", [0.1], False),  # it ignores the first epoch
        ("none", [0.0] * 4, False),
    ],
)
def test_each_pruner_has_its_rule(pruner: str, curve: list[float], pruned: bool) -> None:
    assert should_prune(complete([[0.9] * 4] * 10, pruner), curve) == pruned


def test_halving_ends_the_worse_of_many_trials() -> None:
    pruner = make_pruner("halving")
    study = optuna.create_study(storage=new_storage(), direction="maximize", pruner=pruner)
    verdicts = [should_prune(study, [value] * 4) for value in (0.9, 0.8, 0.7, 0.1)]
    assert not verdicts[0]
    assert verdicts[-1]
