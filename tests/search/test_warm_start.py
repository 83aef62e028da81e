"""Studies that begin from others: which trials fit a changed search space, and what is done with them."""

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import BaseTrial

from mc1opt.config import MLP, SGD, Config, LinearLayer, config_from_json
from mc1opt.database import records, study_attributes
from mc1opt.database.opening import load_study
from mc1opt.database.records import StudyRecord
from mc1opt.database.study_attributes import BegunFrom
from mc1opt.errors import StorageError, UsageError
from mc1opt.metric import ACCURACY, known_metric
from mc1opt.search.incumbents import incumbents
from mc1opt.search.local import LocalSampler, describe_changes
from mc1opt.search.sampling import SeededSampler, make_sampler
from mc1opt.search.study import open_study
from mc1opt.search.warm_start import KnownTrial, candidates, for_sampler, known_trials
from mc1opt.spec import Fidelity
from tests.support.studies import DATA, SEED, definition_of, facts, new_storage, run_study, settings, stored

TRIALS = 14
FIDELITY = Fidelity(train_images=1000, epochs=2)
POINTS = {
    "small": {"width": 16, "norm": "none", "rate": 0.1},
    "large": {"width": 256, "norm": "batch", "rate": 0.05},
}

Extra = Callable[[BaseTrial, Config], Config]


def space(
    widest: int = 256,
    norms: tuple[str, ...] = ("none", "batch"),
    extra: Extra = lambda _trial, config: config,
) -> Callable[[BaseTrial], Config]:
    """A search space; `extra` changes its configs."""

    def suggest(trial: BaseTrial) -> Config:
        width = trial.suggest_int("width", 16, widest, log=True)
        norm = trial.suggest_categorical("norm", list(norms)) if len(norms) > 1 else norms[0]
        config = Config(
            architecture=MLP(layers=(LinearLayer(width=width, norm="none" if norm == "none" else "batch"),)),
            optimizer=SGD(learning_rate=trial.suggest_float("rate", 0.001, 1.0, log=True), momentum=0.9),
            batch_size=64,
        )
        return extra(trial, config)

    return suggest


NARROW = definition_of(space(), starting_points=POINTS)


def smoothing(low: float) -> Extra:
    def change(trial: BaseTrial, config: Config) -> Config:
        return config.model_copy(update={"label_smoothing": trial.suggest_float("smoothing", low, 0.2)})

    return change


def momentum(trial: BaseTrial, config: Config) -> Config:
    value = trial.suggest_float("momentum", 0.5, 0.98)
    return config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"momentum": value})})


def activation(trial: BaseTrial, config: Config) -> Config:
    """Of choices in this order, the last one is as before; the first has a parameter of its own."""
    changes: dict[str, Any] = {
        "activation": trial.suggest_categorical("activation", ["silu", "gelu", "relu"])
    }
    if changes["activation"] == "silu":
        changes["dropout"] = trial.suggest_float("dropout", 0.1, 0.5)
    layer = config.architecture.layers[0].model_copy(update=changes)
    return config.model_copy(update={"architecture": MLP(layers=(layer,))})


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study that others begin from; not to be changed."""
    path = tmp_path_factory.mktemp("narrow") / "s.db"
    run_study(TRIALS, NARROW, fidelity=FIDELITY, path=str(path), study="narrow")
    return path


@pytest.fixture(autouse=True)
def _narrow(database: Path) -> None:
    shutil.copy(database, "s.db")


def wider(trials: int = 3, definition: Any = None, **changes: Any) -> StudyRecord:
    """A study that begins from it."""
    fields = {
        "study": "wider",
        "begin_from": "narrow",
        "max_macs": 10_000_000,
        "fidelity": FIDELITY,
    } | changes
    run_study(trials, definition or definition_of(space(512)), **fields)
    return stored(name=fields["study"])


def begun(record: StudyRecord) -> BegunFrom:
    assert record.begun_from is not None
    return record.begun_from


def known(name: str = "wider") -> list[KnownTrial]:
    return known_trials(load_study(new_storage(), name).user_attrs)


def trained(name: str = "narrow") -> list[records.TrialRecord]:
    return [each for each in stored(name=name).trials if each.outcome in ("complete", "pruned")]


# ---- Which trials fit ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "new"),
    [
        (space(512), {}),
        (space(norms=("batch", "none")), {}),
        (space(extra=smoothing(0.0)), {"smoothing": 0.0}),
        (space(extra=momentum), {"momentum": 0.9}),
        (space(extra=activation), {"activation": "relu"}),
        (
            space(extra=lambda trial, config: activation(trial, smoothing(0.0)(trial, config))),
            {"activation": "relu", "smoothing": 0.0},
        ),
    ],
    ids=["range", "order", "end of a range", "within a range", "choices", "two"],
)
def test_trials_fit_a_wider_space_with_what_leaves_their_configs_as_they_were(
    changed: Any, new: dict[str, Any]
) -> None:
    record = wider(1, definition_of(changed))
    assert (begun(record).trials, begun(record).fit, begun(record).misfits) == (TRIALS, TRIALS, {})
    there = {trial.number: trial for trial in trained()}
    assert {each.number: each.params for each in known()} == {
        number: trial.params | new for number, trial in there.items()
    }
    assert all(each.config == there[each.number].config for each in known())


@pytest.mark.parametrize(
    ("changed", "fits", "why"),
    [
        (space(100), lambda params: params["width"] <= 100, "width"),
        (space(norms=("batch",)), lambda params: params["norm"] == "batch", "norm"),
        (space(norms=("batch", "other")), lambda params: params["norm"] != "none", "norm"),
        (space(extra=smoothing(0.1)), lambda _: False, "smoothing"),
        (
            space(extra=lambda _, config: config.model_copy(update={"batch_size": 32})),
            lambda _: False,
            "another config",
        ),
    ],
    ids=["range", "gone", "choice", "new", "constant"],
)
def test_the_others_are_counted_by_the_reason(
    changed: Any, fits: Callable[[dict[str, Any]], bool], why: str
) -> None:
    record = wider(1, definition_of(changed))
    expected = {trial.number for trial in trained() if fits(trial.params)}
    assert {each.number for each in known()} == expected
    assert begun(record).fit == len(expected) < TRIALS
    ((reason, count),) = begun(record).misfits.items()
    assert why in reason
    assert count == TRIALS - len(expected)


def test_what_is_too_large_now_does_not_fit() -> None:
    limit = 500_000
    record = wider(1, max_macs=limit)
    small = {trial.number for trial in trained() if (trial.macs or 0) <= limit}
    assert 0 < len(small) < TRIALS
    assert {each.number for each in known()} == small
    assert begun(record).misfits == {"too large": TRIALS - len(small)}


def test_infeasible_parameters_do_not_fit() -> None:
    def limited(trial: BaseTrial) -> Config:
        config = space()(trial)
        if trial.params["width"] > 100:
            raise optuna.TrialPruned
        return config

    record = wider(1, definition_of(limited))
    wide = sum(trial.params["width"] > 100 for trial in trained())
    assert begun(record).misfits == {"infeasible": wide}


def test_of_a_range_its_ends_and_the_numbers_of_the_config_are_candidates() -> None:
    number = optuna.distributions.FloatDistribution(0.5, 0.98)
    assert candidates(number, None, [64, 0.9]) == [0.5, 0.98, 0.9]
    assert candidates(number, 0.9, [0.9]) == [0.9, 0.5, 0.98]
    assert candidates(optuna.distributions.CategoricalDistribution([None, 1]), 1) == [1, None]


# ---- What is done with them ------------------------------------------------------------------------------


def test_the_best_are_starting_points_and_trained_here() -> None:
    best = [each.number for each in records.by_value(trained())[:3]]
    record = wider(3, pruner="none")
    assert [trial.starting_point for trial in record.trials] == [f"#{number} of narrow" for number in best]
    there = stored(name="narrow").trials
    for trial, number in zip(record.trials, best, strict=True):
        assert trial.config_id == there[number].config_id
        assert (trial.outcome, trial.duplicate_of) == ("complete", None)
        assert trial.seed != there[number].seed or trial.number == number


def test_what_is_known_is_no_trial_and_never_the_best() -> None:
    """Before a trial has ended here there is no best one, however good the other study's are."""
    open_study(
        definition_of(space(512)),
        settings(3, study="wider", begin_from="narrow", max_macs=10_000_000, fidelity=FIDELITY),
        new_storage(),
        DATA,
    )
    record = stored(name="wider")
    assert {trial.outcome for trial in record.trials} == {"waiting"}
    assert record.best is None
    ended = wider(5)
    assert sum(trial.outcome in ("complete", "pruned") for trial in ended.trials) == 5
    assert ended.best is not None
    assert ended.best.number < len(ended.trials)


def test_starting_points_that_the_other_study_has_trained_are_left_out() -> None:
    points = {**POINTS, "widest": {"width": 512, "norm": "batch", "rate": 0.05}}
    record = wider(1, definition_of(space(512), starting_points=points))
    given = [trial.starting_point for trial in record.trials if trial.starting_point]
    assert len(given) == 4
    assert given[-1] == "widest"
    assert not POINTS.keys() & set(given)


def peaked(count: int = 40) -> list[KnownTrial]:
    """Trials of which the best have a rate of 0.05, whatever else they have."""
    found = []
    for number in range(count):
        rate = 0.001 * 1000.0 ** (number / (count - 1))
        value = 0.9 - abs(math.log10(rate / 0.05)) / 4.0
        params = {"width": 16 + 6 * number, "norm": ("none", "batch")[number % 2], "rate": rate}
        found.append(KnownTrial("narrow", number, params, {}, value, [value / 2.0, value]))
    return found


@pytest.mark.parametrize("sampler", ["local", "tpe"])
def test_the_first_draw_is_near_the_best_of_what_is_known(sampler: str) -> None:
    def near(trials: list[KnownTrial]) -> int:
        seen, rates = for_sampler(trials, NARROW, ACCURACY), []
        for seed in range(16):
            made = make_sampler(sampler, seed, known=seen)
            study = optuna.create_study(direction="maximize", sampler=made)
            trial = study.ask()
            NARROW.config(trial)
            rates.append(trial.params["rate"])
        return sum(abs(math.log10(rate / 0.05)) < 0.5 for rate in rates)

    assert near([]) <= 9
    assert near(peaked()) >= 13


def test_a_draw_says_from_which_trial_of_which_study_it_was_made() -> None:
    seen = for_sampler(peaked(), NARROW, ACCURACY)
    made = SeededSampler(LocalSampler, 2, 0, known=seen)
    trial = optuna.create_study(direction="maximize", sampler=made).ask()
    NARROW.config(trial)
    assert made.parent is not None
    assert f" from #{made.parent.user_attrs['number']} of narrow: " in describe_changes(
        trial.params, made.parent
    )


def test_the_sampler_sees_scores_and_of_pruned_trials_the_last_report() -> None:
    whole, pruned = peaked(2)
    pruned = dataclasses.replace(pruned, value=None, reports=[0.4])
    seen = for_sampler([whole, pruned], NARROW, known_metric("log_loss"))
    assert [trial.value for trial in seen] == [-(whole.value or 0.0), -0.4]
    assert [trial.intermediate_values for trial in seen] == [
        {0: -whole.reports[0], 1: -whole.reports[1]},
        {0: -0.4},
    ]
    assert seen[0].distributions.keys() == whole.params.keys()


def test_a_study_in_parts_is_the_same_whatever_has_become_of_the_other_one() -> None:
    whole = wider(6, sampler="local", study="whole")
    wider(2, sampler="local")
    run_study(TRIALS + 5, NARROW, fidelity=FIDELITY, study="narrow")
    wider(4, sampler="local")
    optuna.delete_study(study_name="narrow", storage=new_storage())
    wider(5, sampler="local", begin_from=None)
    assert facts(wider(6, sampler="local")) == facts(whole)
    assert begun(stored(name="wider")) == begun(whole)


def test_a_study_whose_process_died_while_it_was_made_begins_from_what_was_known_then() -> None:
    """It died after it had enqueued one starting point of three."""
    definition, storage = definition_of(space(512)), new_storage()
    how = settings(1, study="wider", begin_from="narrow", fidelity=FIDELITY)
    open_study(definition, how, storage, DATA)
    before = stored(name="wider")
    whole = load_study(storage, "wider").user_attrs
    optuna.delete_study(study_name="wider", storage=storage)
    study = optuna.create_study(storage=storage, study_name="wider", direction="maximize")
    for key in whole.keys() - {study_attributes.STUDY_STARTED}:
        study.set_user_attr(key, whole[key])
    name, params = next(iter(begun(before).starting_points.items()))
    study.enqueue_trial(params, user_attrs={records.STARTING_POINT: name})
    run_study(TRIALS + 5, NARROW, fidelity=FIDELITY, study="narrow")
    open_study(definition, how, storage, DATA)
    assert stored(name="wider") == before


def test_a_third_study_knows_what_the_second_one_knew() -> None:
    wider(5)
    record = wider(1, definition_of(space(1024)), study="widest", begin_from="wider")
    own = {("wider", trial.number) for trial in trained("wider")}
    assert {(each.study, each.number) for each in known("widest")} == own | {
        ("narrow", trial.number) for trial in trained()
    }
    assert begun(record).trials == TRIALS + 5


def test_an_incumbent_that_was_trained_again_is_known_by_its_mean() -> None:
    run_study(TRIALS, NARROW, fidelity=FIDELITY, study="again", sampler="local")
    wider(1, begin_from="again")
    worth = incumbents(load_study(new_storage(), "again"), SEED).scores
    assert {each.number: each.value for each in known() if each.value is not None} == worth
    assert any(worth[trial.number] != trial.value for trial in trained("again") if trial.value is not None)


# ---- Values that do not compare --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("fidelity", {"fidelity": Fidelity(train_images=1000, epochs=5)}),
        ("images", {"data": DATA.model_copy(update={"name": "others", "size": 28})}),
        ("metric", {"aim": {"metric": known_metric("log_loss")}}),
        ("class weights", {"aim": {"class_weights": "balanced"}}),
    ],
)
def test_where_values_do_not_compare_the_best_are_only_starting_points(
    what: str, changes: dict[str, Any]
) -> None:
    if "aim" in changes:
        changes = {"aim": settings(1).aim.model_copy(update=changes["aim"])}
    record = wider(1, **changes)
    assert begun(record).differs.keys() == {what}
    assert (begun(record).fit, known()) == (TRIALS, [])
    best = records.by_value(trained())[0]
    assert record.trials[0].starting_point == f"#{best.number} of narrow"
    assert record.trials[0].config == best.config


def test_the_best_by_a_metric_to_be_minimised_are_those_of_the_least_values() -> None:
    aim = settings(1).aim.model_copy(update={"metric": known_metric("log_loss")})
    run_study(TRIALS, NARROW, fidelity=FIDELITY, study="loss", aim=aim)
    record = wider(4, aim=aim, begin_from="loss", sampler="local")
    least = min(
        (each for each in trained("loss") if each.value is not None), key=lambda each: each.value or 0.0
    )
    assert begun(record).compares
    assert record.trials[0].starting_point == f"#{least.number} of loss"
    by_number = {each.number: each.value for each in known()}
    assert by_number[least.number] == pytest.approx(least.value, abs=0.02)


# ---- Wrong use -------------------------------------------------------------------------------------------


def test_what_cannot_be_begun_from_is_refused_and_nothing_is_created() -> None:
    plain = optuna.create_study(storage=new_storage(), study_name="plain")
    with pytest.raises(UsageError, match=r"'plain'.*mc1opt"):
        wider(begin_from="plain")
    assert plain.user_attrs == {}
    with pytest.raises(StorageError, match=r"'nope'.* narrow, plain"):
        wider(begin_from="nope")
    with pytest.raises(UsageError, match=r"itself.* --name wider-2"):
        wider(begin_from="wider")
    grid = definition_of(space(), grid={"width": [16], "norm": ["none"], "rate": [0.1]})
    with pytest.raises(UsageError, match="--sampler grid"):
        wider(1, grid, sampler="grid")
    assert {study.study_name for study in new_storage().get_all_studies()} == {"narrow", "plain"}


def test_a_study_that_exists_is_not_begun_from_another_one() -> None:
    wider(1)
    run_study(1, NARROW, fidelity=FIDELITY, study="other")
    with pytest.raises(UsageError, match=r'--from.*"narrow".*"other"'):
        wider(2, begin_from="other")
    with pytest.raises(UsageError, match=r'--from.* null.*"narrow"'):
        run_study(2, NARROW, fidelity=FIDELITY, study="other", begin_from="narrow")


def test_the_record_says_from_what_a_study_began() -> None:
    record = wider(1)
    assert record.to_json()["from"] == dataclasses.asdict(begun(record))
    assert begun(record).study == "narrow"
    assert stored(name="narrow").to_json()["from"] is None
    assert all(config_from_json(each.config) for each in known())
