"""What a study file says of its aim: METRIC or a function `metric`, DIRECTION, CLASS_WEIGHTS, CONSTRAINTS."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mc1opt.errors import StudyFileError, describe_validation_error
from mc1opt.metric import DIRECTIONS, FUNCTION, LABELS, Aim, Metric, known_direction
from mc1opt.metric_functions import fingerprint, own_function
from mc1opt.search.json_values import as_python
from mc1opt.study_file import StudyFile

LIMITS = ("parameters", "macs")
"""What CONSTRAINTS may limit."""


def aim_of_file(file: StudyFile) -> Aim:
    """The aim of a study file; its own metric lacks the fingerprint, see `with_fingerprint`.

    Raises:
        StudyFileError: a value is not allowed.
    """
    weights = getattr(file.module, "CLASS_WEIGHTS", None)
    if weights not in (None, "balanced"):
        raise StudyFileError(f'{file.path}: CLASS_WEIGHTS must be "balanced" or None, not {weights!r}.')
    limits = as_python(getattr(file.module, "CONSTRAINTS", {}))
    if not isinstance(limits, Mapping) or not limits.keys() <= set(LIMITS):
        raise StudyFileError(
            f"{file.path}: CONSTRAINTS must be a dict with the most that a network may have of "
            f'{" or ".join(LIMITS)}, such as {{"parameters": 300_000}}, not {limits!r}.'
        )
    try:
        return Aim.model_validate({"metric": _metric(file), "class_weights": weights, **limits})
    except ValidationError as error:
        raise StudyFileError(f"{file.path}: {describe_validation_error(error)}") from error


def with_fingerprint(aim: Aim, classes: int) -> Aim:
    """The aim with a fingerprint of its own metric, if it has one: computed for so many classes.

    Raises:
        StudyFileError: it cannot be computed.
    """
    if aim.metric.path is None:
        return aim
    found = fingerprint(own_function(StudyFile(Path(aim.metric.path))), classes)
    return aim.model_copy(update={"metric": aim.metric.model_copy(update={"fingerprint": found})})


def _metric(file: StudyFile) -> Metric:
    name = getattr(file.module, "METRIC", None)
    direction = getattr(file.module, "DIRECTION", None)
    own = hasattr(file.module, FUNCTION)
    if direction not in (None, *DIRECTIONS):
        raise StudyFileError(f"{file.path}: DIRECTION must be {_either(DIRECTIONS)}, not {direction!r}.")
    if not isinstance(name, str | None) or not (own or name is None or name in LABELS):
        raise StudyFileError(
            f"{file.path}: METRIC must be {_either(tuple(LABELS))}, not {name!r}. For another one, define a "
            f"function `{FUNCTION}(logits, labels)`, and DIRECTION; METRIC may then be its name."
        )
    if not own:
        name = name or "accuracy"
        if direction not in (None, known_direction(name)):
            raise StudyFileError(f"{file.path}: {name} has the DIRECTION {known_direction(name)!r}.")
        return Metric(name=name, direction=known_direction(name))
    if name in LABELS:
        raise StudyFileError(
            f"{file.path} has a function `{FUNCTION}`, which would hide METRIC = {name!r}. Name one of them "
            "otherwise."
        )
    own_function(file)
    if direction is None:
        raise StudyFileError(
            f"{file.path} has a function `{FUNCTION}` and no DIRECTION. Say which values are better: "
            f"{_either(DIRECTIONS)}."
        )
    return Metric(name=name or FUNCTION, direction=direction, path=str(file.path.resolve()))


def _either(words: tuple[Any, ...]) -> str:
    return ", ".join(f'"{word}"' for word in words[:-1]) + f' or "{words[-1]}"'
