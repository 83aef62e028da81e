"""What a search space is given is what the study database gives back."""

import enum
import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import BaseTrial, FixedTrial, Trial

from mc1opt.errors import StudyFileError
from mc1opt.search.json_values import as_python, as_stored, given_values, suggesting_as_stored
from tests.support.studies import new_storage

OPTUNAS_OWN = "ignore:Choices for a categorical distribution"


class Width(enum.StrEnum):
    SMALL = "small"
    LARGE = "large"


class Layers(enum.IntEnum):
    TWO = 2
    THREE = 3


def draw(storage: Any = None) -> Trial:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), storage=storage).ask()


def choose(choices: Any, trial: BaseTrial | None = None) -> Any:
    trial = trial or draw()
    with suggesting_as_stored(trial):
        return trial.suggest_categorical("choice", choices)


def test_numpys_values_become_pythons_wherever_they_stand() -> None:
    given = {"a": [np.int64(1), (np.float32(0.5), np.bool_(True))], "b": np.array([1, 2]), "c": np.str_("x")}
    assert as_python(given) == {"a": [1, (0.5, True)], "b": [1, 2], "c": "x"}
    assert type(as_python(np.array([1]))[0]) is type(as_python([np.int8(1)])[0]) is int
    assert type(as_python((np.bool_(True),))[0]) is bool


@pytest.mark.parametrize(
    "value", [(16,), [16], {16}, {"a": 1}, 1j, b"16", Decimal(1), Fraction(1, 2), Path("a"), np.ones(2), int]
)
def test_what_json_gives_back_as_another_thing_is_not_stored(value: Any) -> None:
    with pytest.raises(ValueError, match=f"of type {type(as_python(value)).__name__}"):
        as_stored(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_numbers_that_json_has_not_are_not_stored(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        as_stored(value)


# ---- Choices ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings(OPTUNAS_OWN)
@pytest.mark.parametrize(
    ("choices", "types"),
    [
        ([None, True, 2, 0.5, "x"], {type(None), bool, int, float, str}),
        (np.array([16, 32]), {int}),
        ([np.int64(16), np.int32(32)], {int}),
        (np.linspace(0.1, 0.5, 3), {float}),
        ([np.float32(0.1), np.float16(0.2)], {float}),
        ([np.bool_(False), np.bool_(True)], {bool}),
        (np.array(["a", "b"]), {str}),
        (list(Width), {str}),
        (list(Layers), {int}),
        (["a", "a", "b"], {str}),
        ([16], {int}),
        (range(2, 5), {int}),
    ],
    ids=str,
)
def test_a_choice_comes_as_the_database_gives_it_back(choices: Any, types: set[type]) -> None:
    study = optuna.create_study(storage=new_storage(), sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = []
    for _ in range(20):
        drawn.append(choose(choices, study.ask()))
    stored = [trial.params["choice"] for trial in study.get_trials()]
    assert [(value, type(value)) for value in drawn] == [(value, type(value)) for value in stored]
    assert {type(value) for value in drawn} == types


@pytest.mark.filterwarnings(OPTUNAS_OWN)
@pytest.mark.parametrize(
    ("choices", "named"),
    [
        ([(16,), (32, 16)], r"\(16,\) is of type tuple"),
        (["small", [32, 16]], r"\[32, 16\] is of type list"),
        ([{"width": 16}], "dict"),
        ([int, float], "type"),
        ([0.1, math.nan], "nan is not finite"),
        ([math.inf], "inf is not finite"),
        (np.ones((2, 2)), "list"),
        ([1, True], "1 and True are equal"),
        ([False, 0], "False and 0 are equal"),
        ([0, 1.0, 1], "1.0 and 1 are equal"),
    ],
)
@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "in a database"])
def test_a_choice_that_the_database_does_not_give_back_is_refused_and_not_written(
    choices: Any, named: str, stored: bool
) -> None:
    trial = draw(new_storage() if stored else None)
    with pytest.raises(StudyFileError, match=f"(?s)choices of 'choice'.*{named}"):
        choose(choices, trial)
    assert trial.study.trials[0].params == {}


@pytest.mark.parametrize(
    ("choices", "given", "comes"),
    [([False, True], 1, True), ([1, 2], 2.0, 2), ([0.0, 0.5], 0, 0.0), (["a", None], None, None)],
)
def test_a_given_value_that_equals_a_choice_is_that_choice(choices: Any, given: Any, comes: Any) -> None:
    chosen = choose(choices, FixedTrial({"choice": given}))
    assert (chosen, type(chosen)) == (comes, type(comes))


def test_other_choices_than_in_an_earlier_trial_are_refused_by_name_and_not_remembered() -> None:
    """Also by a process that has not seen that trial, and not only once."""
    study = optuna.create_study(storage=new_storage(), study_name="s")
    choose([1, 2], study.ask())
    storage = new_storage()
    again = optuna.load_study(storage=storage, study_name="s")
    for _ in range(2):
        with (
            pytest.raises(StudyFileError, match=r"'choice'.*dynamic value space"),
            storage.writing_parameters_together(),
        ):
            choose([1, 2, 3], again.ask())
    with storage.writing_parameters_together():
        choose([1, 2], again.ask())
    assert [len(trial.params) for trial in again.trials] == [1, 0, 0, 1]


# ---- Ranges and given values -----------------------------------------------------------------------------


def test_numpys_ranges_are_stored_and_give_pythons_numbers() -> None:
    trial = draw(new_storage())
    with suggesting_as_stored(trial):
        whole = trial.suggest_int("whole", np.int64(8), np.int32(64), log=np.bool_(True))  # type: ignore[arg-type]
        real = trial.suggest_float("real", np.float32(0.5), np.float64(2), step=np.float32(0.5))  # type: ignore[arg-type]
        large = trial.suggest_int("large", 2**60 + 1, 2**60 + 1)  # too large for the database
    assert (type(whole), type(real)) == (int, float)
    assert trial.study.trials[0].params == {"whole": whole, "real": real, "large": large}


@pytest.mark.parametrize(("low", "high"), [(0.0, math.inf), (-math.inf, 0.0), (math.nan, 1.0)])
def test_a_range_without_an_end_is_refused(low: float, high: float) -> None:
    trial = draw()
    with suggesting_as_stored(trial), pytest.raises(StudyFileError, match=r"range of 'x'.*not finite"):
        trial.suggest_float("x", low, high)


def test_a_name_that_is_no_text_is_refused() -> None:
    trial = draw()
    with suggesting_as_stored(trial), pytest.raises(StudyFileError, match=r"\b3 .* int\b"):
        trial.suggest_float(3, 0.0, 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [65, 15, 16.5, "16", None, math.nan, math.inf, (16,), [16]])
@pytest.mark.parametrize("enqueued", [False, True], ids=["fixed", "enqueued"])
def test_a_given_value_outside_its_range_is_refused_and_not_written(value: Any, enqueued: bool) -> None:
    study = optuna.create_study()
    study.enqueue_trial({"width": value})
    trial: BaseTrial = study.ask() if enqueued else FixedTrial({"width": value})
    with (
        suggesting_as_stored(trial),
        pytest.raises(StudyFileError, match="'width' is not in IntDistribution"),
    ):
        trial.suggest_int("width", 16, 64)
    assert trial.params == {}


def test_given_values_are_those_that_a_trial_was_made_with() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"a": 1})
    assert given_values(study.ask()) == given_values(FixedTrial({"a": 1})) == {"a": 1}
    assert given_values(study.ask()) == {}


# ---- Warnings --------------------------------------------------------------------------------------------


def test_a_name_that_is_asked_for_twice_is_warned_of_at_its_place() -> None:
    trial = draw()
    with suggesting_as_stored(trial), pytest.warns(UserWarning, match="'width'.* twice") as seen:
        widths = [trial.suggest_int("width", 16, 64) for _ in range(2)]
    assert widths[0] == widths[1]
    assert seen[0].filename == __file__


def test_afterwards_a_trial_is_optunas_own_again() -> None:
    trial = FixedTrial({"width": 1})
    with pytest.raises(KeyError), suggesting_as_stored(trial):
        raise KeyError
    assert vars(trial).keys() == vars(FixedTrial({})).keys()
