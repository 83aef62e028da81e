"""Few changes at a time to the best configs known, in any search space."""

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler

from mc1opt.search.local import (
    MOST_KNOWN,
    LocalSampler,
    Model,
    _complete,
    describe_changes,
    expected_logits,
    logit,
    place_of,
    value_at,
)
from mc1opt.search.sampling import SeededSampler
from tests.support.studies import own_attributes

DISTRIBUTIONS = [
    FloatDistribution(0.0, 0.2),
    FloatDistribution(1e-4, 1e-1, log=True),
    FloatDistribution(0.0, 1.0, step=0.25),
    IntDistribution(0, 12, step=4),
    IntDistribution(20, 512, log=True),
    IntDistribution(3, 3),
]


def conditional(trial: optuna.Trial) -> float:
    """The best is 0.9: six layers of full width, gelu, a rate of 0.1."""
    layers = trial.suggest_int("layers", 2, 6)
    widths = [trial.suggest_float(f"width{i}", 0.0, 1.0) for i in range(layers)]
    kind = trial.suggest_categorical("kind", ["relu", "gelu", "tanh"])
    rate = trial.suggest_float("rate", 1e-3, 1.0, log=True)
    miss = abs(np.log10(rate) + 1.0) / 3.0 + (kind != "gelu") + (6 - layers) / 4 + 1.0 - np.mean(widths)
    return float(0.9 * np.exp(-miss))


def searched(seed: int, trials: int, random: int) -> optuna.Study:
    """Trials as a search stores them, the first ones drawn at random."""
    study = optuna.create_study(direction="maximize")
    for number in range(trials):
        chance = number < random
        study.sampler = (
            RandomSampler(1000 * seed + number) if chance else SeededSampler(LocalSampler, seed, 0)
        )
        trial = study.ask()
        value = conditional(trial)
        for key, attribute in own_attributes().items():
            trial.set_user_attr(key, attribute)
        trial.report(value, 0)
        study.tell(trial, value)
    return study


def drawn(study: optuna.Study, seed: int) -> dict[str, Any]:
    """The parameters of the next trial of a copy of the study."""
    copy = optuna.create_study(direction="maximize", sampler=SeededSampler(LocalSampler, seed, 0))
    copy.add_trials(study.trials)
    trial = copy.ask()
    conditional(trial)
    return trial.params


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_a_place_and_its_value_are_each_others(distribution: Any) -> None:
    assert value_at(distribution, 0.0) == distribution.low
    assert value_at(distribution, 1.0) == distribution.high
    for place in (0.0, 0.3, 0.5, 0.99, 1.0):
        value = value_at(distribution, place)
        assert distribution._contains(distribution.to_internal_repr(value))
        assert value_at(distribution, place_of(distribution, value)) == pytest.approx(value, rel=0.05)


def test_most_draws_differ_in_one_to_four_parameters_from_one_of_the_best() -> None:
    study = searched(0, 40, random=40)
    best = [trial.params for trial in sorted(study.trials, key=lambda trial: -(trial.value or 0.0))[:15]]
    near = 0
    for seed in range(20):
        params = drawn(study, seed)
        same, changes = max(
            (sum(one.get(name) == value for name, value in params.items()), len(params)) for one in best
        )
        near += same >= 3 and changes - same <= 4 + 1  # another depth brings its own width, too
    assert 14 <= near < 20  # and some cover the whole space


def test_the_model_knows_what_makes_values_differ_and_is_smooth_over_noise() -> None:
    study = searched(1, 80, random=80)
    trials = study.trials
    good = {"layers": 6, **{f"width{i}": 1.0 for i in range(6)}, "kind": "gelu", "rate": 0.1}
    means = Model(trials).means([good, good | {"kind": "tanh"}, good | {"rate": 1.0}, trials[0].params])
    assert np.argmax(means) == 0


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_it_finds_what_random_draws_do_not(seed: int) -> None:
    local = searched(seed, 60, random=16).best_value
    chance = searched(seed, 60, random=60).best_value
    assert local > chance + 0.05
    assert local > 0.75


def test_of_a_pruned_trial_the_model_expects_what_whole_ones_became() -> None:
    def trial(values: list[float]) -> optuna.trial.FrozenTrial:
        return optuna.create_trial(value=values[-1], intermediate_values=dict(enumerate(values)))

    whole = [trial([early, 0.5, late]) for early, late in [(0.3, 0.5), (0.5, 0.7), (0.6, 0.78), (0.7, 0.85)]]
    values, doubt = expected_logits([*whole, trial([0.4]), trial([0.65])])
    shares = 1.0 / (1.0 + np.exp(-values))
    assert shares[:4] == pytest.approx([0.5, 0.7, 0.78, 0.85])
    assert shares[4:] == pytest.approx([0.6, 0.815], abs=0.01)
    assert set(doubt[:4]) == {1.0} and min(doubt[4:]) > 1.0  # noqa: PT018
    (only, pruned), _ = expected_logits([trial([0.5, 0.7]), trial([0.3])])
    assert pruned - only == pytest.approx(logit(np.array(0.3)) - logit(np.array(0.5)))
    assert expected_logits([trial([0.3]), trial([0.4])])[0] == pytest.approx(logit(np.array([0.3, 0.4])))


def test_a_trial_says_from_which_one_it_was_drawn_and_what_was_changed() -> None:
    parent = optuna.create_trial(
        value=0.5,
        params={"rate": 0.1, "kind": "relu", "only": 3},
        distributions={
            "rate": FloatDistribution(0.0, 1.0),
            "kind": optuna.distributions.CategoricalDistribution(["relu", "gelu"]),
            "only": IntDistribution(0, 5),
        },
    )
    parent.number = 7
    text = describe_changes({"rate": 0.03, "kind": "relu", "new": 2}, parent)
    assert text == "1 change from #7: rate 0.1 -> 0.03; 2 parameters that only one of them has"


def test_a_proposal_has_what_trials_with_its_choices_have() -> None:
    """So the model sees no difference where the search space asks for the same."""

    def branches(trial: optuna.Trial) -> float:
        kind = trial.suggest_categorical("kind", ["a", "b"])
        rate = trial.suggest_int(f"{kind}_rate", 1, 3)
        return 0.9 - 0.1 * rate - 0.3 * (kind == "b")

    study = optuna.create_study(direction="maximize", sampler=RandomSampler(0))
    for _ in range(12):
        trial = study.ask()
        value = branches(trial)
        for key, attribute in own_attributes().items():
            trial.set_user_attr(key, attribute)
        study.tell(trial, value)
    best = max(study.trials, key=lambda trial: trial.value or 0.0)
    assert set(best.params) == {"kind", "a_rate"}
    generator = LocalSampler(0)
    ranked = sorted(study.trials, key=lambda trial: -(trial.value or 0.0))
    neighbours = [generator._neighbour(ranked)[0] for _ in range(50)]
    assert {frozenset(each) for each in neighbours} == {
        frozenset({"kind", "a_rate"}),
        frozenset({"kind", "b_rate"}),
    }
    assert all(f"{each['kind']}_rate" in each for each in neighbours)


def test_a_neighbour_is_not_one_that_is_trained_already() -> None:
    study = optuna.create_study(direction="maximize")
    space = {name: IntDistribution(0, 2) for name in ("x", "y")}
    known = [(x, y) for x in range(3) for y in range(3) if (x, y) not in ((0, 1), (2, 0))]
    for x, y in known:
        value = 0.5 + (x + y) / 10
        trial = optuna.create_trial(value=value, params={"x": x, "y": y}, distributions=space)
        study.add_trial(trial)
    drawn = set()
    for seed in range(40):
        sampler = LocalSampler(seed)
        study.sampler = sampler
        trial = study.ask(space)
        if sampler.parent is not None:
            drawn.add((trial.params["x"], trial.params["y"]))
    assert drawn
    assert not drawn & set(known)


def test_a_bound_is_reached() -> None:
    study = searched(0, 60, random=16)
    assert any(trial.params.get("width0") == 1.0 for trial in study.trials)


def test_the_same_seed_draws_the_same() -> None:
    study = searched(0, 30, random=30)
    assert drawn(study, 5) == drawn(study, 5) != drawn(study, 6)


def test_of_many_trials_the_model_takes_the_best_and_the_latest() -> None:
    study = optuna.create_study(direction="maximize")
    values = [(7 * number) % 1000 / 1000 for number in range(1000)]
    distribution = {"x": FloatDistribution(0.0, 1.0)}
    study.add_trials(
        [
            optuna.create_trial(value=value, params={"x": value}, distributions=distribution)
            for value in values
        ]
    )
    kept = [trial.number for trial in _complete(study)]
    assert kept == sorted(kept)
    assert set(range(750, 1000)) < set(kept)
    assert {number for number, value in enumerate(values) if value >= 0.75} < set(kept)
    assert len(kept) < MOST_KNOWN
