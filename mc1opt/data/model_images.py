"""The images that a model or a study was trained on."""

from pathlib import Path
from typing import TextIO

from mc1opt.data.cache import open_entry, verify
from mc1opt.data.named import NAMED
from mc1opt.data.sources import find_data
from mc1opt.dataset import DataSet, Task
from mc1opt.errors import DataError, UsageError
from mc1opt.text import few

MOST_NAMES = 10
"""Classes in a message, at most."""


def known_data(stored: object) -> dict[str, str] | None:
    """Name and SHA-256 of a model's images from a stored value; None if they are not there."""
    if isinstance(stored, dict) and all(isinstance(stored.get(key), str) for key in ("name", "sha256")):
        return {key: stored[key] for key in ("name", "sha256")}
    return None


def model_data(title: str, known: dict[str, str] | None, path: Path | None, output: TextIO | None) -> DataSet:
    """The images for a model: those given, else the ones it was trained on, else CIFAR-10.

    Args:
        title: what the model is called in a message.
        known: see `known_data`.
        path: files that were given; None for the model's own images.
        output: where the progress of fetching them is shown.

    Raises:
        DataError: they cannot be obtained, or have changed in the cache.
    """
    if path is None and known is not None and known["name"] in NAMED:
        path = Path(known["name"])
    if path is None and known is not None:
        entry = open_entry(known["name"])
        # The name comes from a file: it must not lead to another folder.
        if entry is None or entry.data.name != known["name"]:
            raise DataError(
                f"{title} was trained on {known['name']}, which is not in the cache. Give its files with "
                "--data."
            )
        verify(entry)
        return entry.data
    return find_data(path, output=output)


def study_data(
    study: str, wanted: dict[str, str] | None, path: Path | None, output: TextIO | None
) -> DataSet:
    """The images that a study was trained on.

    Args:
        study: its name.
        wanted: name and SHA-256 of its images; None where it is another program's.
        path: of `--data`; None for the study's images in the cache, or CIFAR-10.
        output: where a download is shown.

    Raises:
        UsageError: the study is another program's.
        DataError: the images are missing, or those at `path` are others.
    """
    if wanted is None:
        raise UsageError(f"study {study!r} is not one of mc1opt's: it does not name its images.")
    data = model_data(f"study {study!r}", wanted, path, output)
    if data.name != wanted["name"]:
        raise DataError(
            f"study {study!r} was trained on {wanted['name']}, but these images are {data.name}. Give "
            "those of the study with --data."
        )
    return data


def check_same_task(title: str, task: Task, known_images: dict[str, str] | None, data: DataSet) -> None:
    """Checks that images are of the shape and the classes that a model knows.

    Args:
        title: what the model is called in a message.
        task: the images and classes that it knows.
        known_images: those that it was trained on, which are right in any case; see `known_data`.
        data: the images.

    Raises:
        DataError: they are others.
    """
    unnamed = tuple(map(str, range(task.classes)))
    if known_images is not None and known_images["name"] == data.name:
        return
    for what, known, given in (
        ("images of (channels, size)", (task.channels, task.size), (data.channels, data.size)),
        ("the classes", task.class_names, data.class_names),
    ):
        if known != given != unnamed:  # numbers say how many classes there are, and no more
            raise DataError(
                f"{title} knows {what} {few(known, MOST_NAMES)}, but {data.name} has "
                f"{few(given, MOST_NAMES)}. Give images of its own kind with --data."
            )
