"""The errors that people see.

    Mc1optError                exit code 1: something went wrong
    ├── UsageError             exit code 2: the command was given wrongly
    │   ├── ConfigError        a config that cannot be built
    │   └── StudyFileError     a study definition that cannot be used
    │       └── NetworkError   a network that its function cannot build with some arguments
    ├── DataError              the images are missing, damaged or not what they should be
    ├── ModelError             a model's folder or file is missing, damaged, or not what it should be
    ├── StorageError           the study database is missing, damaged or foreign
    ├── WorkerError            workers cannot be started, or keep dying
    └── SearchStoppedError     a search that ended itself: too many trials in a row failed

Each message says what is wrong, with the value; what is allowed; and what to do next. A training that fails
inside a worker is not an error of the program but a result: see `mc1opt.spec.TrainingFailed`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class Mc1optError(Exception):
    """The base of all errors that are meant for people; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(Mc1optError):
    """The command was given wrongly: an unknown name, a value out of range."""

    exit_code = 2


class ConfigError(UsageError):
    """A config that cannot be built, with the name of the block that is at fault."""


class StudyFileError(UsageError):
    """A study definition that is missing, does not parse, has no search space, or raises."""


class NetworkError(StudyFileError):
    """A function of a study file that raised, or returned no network that can be trained."""


class DataError(Mc1optError):
    """The images are missing, damaged, or not what they should be."""


class ModelError(Mc1optError):
    """A model's folder or file is missing, damaged, or not one of ours."""


class StorageError(Mc1optError):
    """The study database is missing, empty, damaged, or not one of ours."""


class WorkerError(Mc1optError):
    """Workers cannot be started, or die before they train."""


class SearchStoppedError(Mc1optError):
    """A search that ended itself, and why."""


def describe_validation_error(error: "ValidationError") -> str:
    """Pydantic's findings, separated by semicolons: field, rule, value of each."""
    from pydantic import BaseModel

    lines = []
    for finding in error.errors(include_url=False):
        place = ".".join(str(part) for part in finding["loc"])
        message = finding["msg"].removeprefix("Value error, ")
        value = "" if isinstance(finding["input"], dict | BaseModel) else f" (given: {finding['input']!r})"
        lines.append(f"{place}: {message}{value}" if place else f"{message}{value}")
    return "; ".join(lines)
