"""Suggested values, exactly as the study database returns them.

The database stores a parameter's range or choices as JSON, and its value as a number. From the first draw on,
a search space gets the value that this round trip returns: Python numbers instead of NumPy numbers, and the
stored choice instead of an equal value. Values that cannot be stored are refused.
"""

import contextlib
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import BaseTrial, FixedTrial, Trial

from mc1opt.database.trial import contains
from mc1opt.errors import StudyFileError

ALLOWED_VALUES = "Allowed are None, bool, int, finite float and str."


def as_python(value: Any) -> Any:
    """Converts NumPy numbers, strings and arrays to Python's, also within lists, tuples and dicts."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {as_python(name): as_python(entry) for name, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(as_python(entry) for entry in value)
    return value


def as_stored(value: Any) -> Any:
    """A parameter's value as JSON returns it.

    Raises:
        ValueError: it is not None, bool, int, finite float or str.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value!r} is not finite")
    if value is None or type(value) in (bool, int, float, str):
        return value
    if not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is of type {type(value).__name__}")
    return json.loads(json.dumps(value))  # an enum member becomes its str or number


def given_values(trial: BaseTrial) -> Mapping[str, Any]:
    """The values given to a trial: those of a starting point, or of `study.enqueue_trial`."""
    if isinstance(trial, FixedTrial):
        return trial._params
    return trial._fixed_params if isinstance(trial, Trial) else {}


@contextlib.contextmanager
def suggesting_as_stored(trial: BaseTrial) -> Iterator[None]:
    """Inside the block, a trial suggests values as the database returns them.

    Warns of a name that is suggested twice: Optuna gives both the same value.

    Raises:
        StudyFileError: from a suggestion, before Optuna stores it: its choices or range cannot be stored, or
            do not contain the given value.
    """
    suggest = trial._suggest  # type: ignore[attr-defined]  # all of Optuna's trials have it
    given = given_values(trial)
    asked: set[str] = set()

    def suggest_as_stored(name: str, distribution: BaseDistribution) -> Any:
        stored = _stored_distribution(name, distribution)
        if name in given:
            _check_given(name, given[name], stored)
        if name in asked:
            warnings.warn(
                f"parameter {name!r} is asked for twice in one trial, and has the same value both times. For "
                "two parameters, give each its own name.",
                stacklevel=3,
            )
        asked.add(name)
        try:
            value = suggest(name, stored)
        except ValueError as error:  # for example, other choices in an earlier trial
            raise StudyFileError(f"parameter {name!r}: {error}") from error
        return stored.to_external_repr(stored.to_internal_repr(value))

    trial._suggest = suggest_as_stored  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del trial._suggest  # type: ignore[attr-defined]


def _stored_distribution(name: str, distribution: BaseDistribution) -> BaseDistribution:
    if not isinstance(name, str):
        raise StudyFileError(f"the name of parameter {name!r} is of type {type(name).__name__}, not a str")
    try:
        if isinstance(distribution, CategoricalDistribution):
            return CategoricalDistribution(_stored_choices(distribution.choices))
        given = distribution._asdict()
        attributes = {key: as_stored(value) for key, value in given.items()}
    except ValueError as error:
        what = "choices" if isinstance(distribution, CategoricalDistribution) else "range"
        raise StudyFileError(f"the study database cannot hold the {what} of {name!r}: {error}") from error
    if all(attributes[key] is value for key, value in given.items()):
        return distribution
    return type(distribution)(**attributes)


def _stored_choices(given: tuple[Any, ...]) -> list[Any]:
    try:
        choices = [as_stored(choice) for choice in given]
    except ValueError as error:
        raise ValueError(
            f"{error}. {ALLOWED_VALUES} Give names, and look the value up, such as "
            'WIDTHS[trial.suggest_categorical("widths", ["small", "large"])].'
        ) from error
    for choice in choices:
        # Optuna looks a value up by ==, which finds the first of equal ones.
        first = choices[choices.index(choice)]
        if type(first) is not type(choice):
            raise ValueError(f"{first!r} and {choice!r} are equal in Python. Leave one out, or give names.")
    return choices


def is_in(value: Any, distribution: BaseDistribution) -> bool:
    """Whether a distribution can give a value, which may be of any type."""
    if isinstance(value, str) and not isinstance(distribution, CategoricalDistribution):
        return False
    try:
        return contains(distribution, value)
    except (ValueError, OverflowError):  # not a number, or none of the choices
        return False


def _check_given(name: str, value: Any, distribution: BaseDistribution) -> None:
    if not is_in(value, distribution):
        raise StudyFileError(f"the value {value!r} of {name!r} is not in {distribution}")
