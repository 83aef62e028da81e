"""What is wrong with images before a search spends an hour on them, and what to do about it."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mc1opt.data.cache import open_array
from mc1opt.data.duplicates import Pair, duplicates
from mc1opt.data.splits import split
from mc1opt.dataset import DataSet
from mc1opt.files import read_object
from mc1opt.text import few, plural
from mc1opt.uncertainty import binomial_difference

ACCURACY = 0.9
"""At which the least difference is told: nobody knows yet what will be reached."""
LEAST_VALIDATION = 5
"""Validation images of a class, below which nothing can be said of the class."""
COARSE = 0.02
"""A least difference above which a search mostly ranks noise."""
MANY = 0.01
"""Share of the images from which on duplicates are serious."""
UNBALANCED = 10
"""A class with so many times the images of another is told of."""
FINDINGS = "findings.json"
"""In an entry's folder: what `serious_findings` has found."""
EXAMINATION = "examination.json"
"""Likewise, what `mc1opt data` has found."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Finding:
    """Something about the images that a person should know."""

    kind: str
    serious: bool
    """Whether results would mislead."""
    what: str
    what_to_do: str

    def to_json(self) -> dict[str, Any]:
        """As `data --json` prints it."""
        return asdict(self)

    def line(self) -> str:
        """As text."""
        return f"{'!' if self.serious else '-'} {self.what} {self.what_to_do}"


@dataclass(frozen=True)
class Examination:
    """What there is of each class, and what was found."""

    counts: dict[str, tuple[int, int, int]]
    """By class: images that train, that validate, and that test."""
    least_difference: float
    """Of two accuracies, as a share of 1, that the validation images can show."""
    findings: list[Finding]


def serious_findings(data: DataSet) -> list[Finding]:
    """What a search should say before it begins. Does not look at the test images.

    Kept beside the images: to find them takes 10 s for 60,000 images.
    """
    path = Path(data.folder) / FINDINGS
    stored = read_object(path)
    with contextlib.suppress(KeyError, TypeError):  # there are none, or they are damaged
        if stored["sha256"] == data.sha256:
            return [Finding(**finding) for finding in stored["findings"]]
    train, labels = training_arrays(data)
    findings = [each for each in _training_findings(data, labels, duplicates(train), ()) if each.serious]
    content = {"sha256": data.sha256, "findings": [finding.to_json() for finding in findings]}
    with contextlib.suppress(OSError):
        path.write_text(json.dumps(content, indent=2))
    return findings


def examine(data: DataSet, train_files: Sequence[str] = (), test_files: Sequence[str] = ()) -> Examination:
    """Examines all images.

    Args:
        data: the images.
        train_files: a name of each training image, for people; may be empty.
        test_files: of each test image.

    Raises:
        DataError: files are missing or damaged.
    """
    train, labels = training_arrays(data)
    test, test_labels = examined_test_images(data)
    exact, near = duplicates(np.concatenate([train, test]))
    within = ([pair for pair in pairs if pair[1] < len(train)] for pairs in (exact, near))
    findings = _training_findings(data, labels, (*within,), train_files)
    findings += _leaks((exact, near), len(train), len(test), [*train_files, *test_files])
    validates = _validates(data, labels)
    by_class = [
        np.bincount(part, minlength=data.classes)
        for part in (labels[~validates], labels[validates], test_labels)
    ]
    untested = [name for name, count in zip(data.class_names, by_class[2], strict=True) if not count]
    if untested:
        findings.append(
            Finding(
                "no test images",
                False,
                f"No test image has the class {few(untested)}.",
                "The test says nothing of it: add some.",
            )
        )
    counts = {
        name: (int(trains), int(validate), int(tests))
        for name, trains, validate, tests in zip(data.class_names, *by_class, strict=True)
    }
    difference = binomial_difference(ACCURACY, max(data.validation_images, 1))
    return Examination(counts, difference, findings)


def keep_examination(data: DataSet, examination: Examination) -> None:
    """Keeps it beside the images, for reports, which leave the test images closed."""
    content = {"sha256": data.sha256, **asdict(examination)}
    with contextlib.suppress(OSError):
        (Path(data.folder) / EXAMINATION).write_text(json.dumps(content, indent=2))


def kept_examination(data: DataSet) -> Examination | None:
    """What `mc1opt data` has found in these images; None if it was not asked."""
    stored = read_object(Path(data.folder) / EXAMINATION)
    with contextlib.suppress(KeyError, TypeError, ValueError):  # there is none, or it is damaged
        if stored["sha256"] == data.sha256:
            counts = {name: (one, two, three) for name, (one, two, three) in stored["counts"].items()}
            findings = [Finding(**finding) for finding in stored["findings"]]
            return Examination(counts, float(stored["least_difference"]), findings)
    return None


def examined_test_images(data: DataSet) -> tuple[Array, Array]:
    """The test images and their labels, to be compared with the training images.

    Beside `images.open_test_images` nothing else opens them. Only `mc1opt data` calls this, never a search.
    It is no opening that is recorded: no model sees the images, and none is chosen by what is found.
    """
    images = open_array(Path(data.folder) / "test_images.npy")
    return images, np.asarray(open_array(Path(data.folder) / "test_labels.npy"))


def training_arrays(data: DataSet) -> tuple[Array, Array]:
    """All training images and their labels, those of validation among them; mapped, not read."""
    images = open_array(Path(data.folder) / "train_images.npy")
    return images, np.asarray(open_array(Path(data.folder) / "train_labels.npy"))


def _validates(data: DataSet, labels: Array) -> NDArray[np.bool_]:
    """Which of the training images validate."""
    _, chosen = split(labels, data.validation_images, 0, validation_first=data.validation_first)
    validates = np.zeros(len(labels), dtype=bool)
    validates[chosen] = True
    return validates


def _training_findings(
    data: DataSet, labels: Array, twice: Sequence[list[Pair]], files: Sequence[str]
) -> list[Finding]:
    validates = _validates(data, labels)
    return _class_findings(data, labels, validates) + _duplicate_findings(twice, labels, validates, files)


def _class_findings(data: DataSet, labels: Array, validates: NDArray[np.bool_]) -> list[Finding]:
    findings = []
    counts = np.bincount(labels, minlength=data.classes)
    validation = np.bincount(labels[validates], minlength=data.classes)
    for kind, lacking, serious, what_to_do in (
        ("no images", counts == 0, True, "Add some, or remove the class."),
        (
            "too few to validate",
            (validation < LEAST_VALIDATION) & (counts > 0),
            bool((validation == 0).any()),
            "Add images, or a val folder; the validation metric says little of them.",
        ),
    ):
        names = [name for name, lacks in zip(data.class_names, lacking, strict=True) if lacks]
        if names:
            bound = "no training" if kind == "no images" else f"fewer than {LEAST_VALIDATION} validation"
            classes = "1 class has" if len(names) == 1 else f"{len(names):,} classes have"
            findings.append(Finding(kind, serious, f"{classes} {bound} images: {few(names)}.", what_to_do))
    least, most = int(counts.min()), int(counts.max())
    if least and most >= UNBALANCED * least:
        findings.append(
            Finding(
                "unbalanced",
                False,
                f"The largest class has {most:,} training images, the smallest {least:,}.",
                "Accuracy is mostly that of large classes: METRIC = 'macro_f1' weighs classes equally.",
            )
        )
    difference = binomial_difference(ACCURACY, max(int(validates.sum()), 1))
    findings.append(
        Finding(
            "least difference",
            difference > COARSE,
            f"{plural(int(validates.sum()), 'validation image')} can show a difference of "
            f"{100 * difference:.1f} points between two trainings (at an accuracy of {ACCURACY:.2f}); seeds "
            "add their noise.",
            "More validation images show smaller ones; --confirm trains the best again with new seeds.",
        )
    )
    return findings


def _duplicate_findings(
    twice: Sequence[list[Pair]], labels: Array, validates: NDArray[np.bool_], files: Sequence[str]
) -> list[Finding]:
    exact, near = twice
    findings = []
    for kind, pairs in (("the same pixels as", exact), ("nearly the pixels of", near)):
        across = [pair for pair in pairs if validates[pair[0]] != validates[pair[1]]]
        if across:
            findings.append(
                Finding(
                    "validation leak",
                    len(across) >= MANY * int(validates.sum()),
                    f"{plural(len(across), 'validation image')} have {kind} a training image"
                    f"{_examples(across, files)}.",
                    "The validation metric is too good by them: remove one of each pair.",
                )
            )
        if len(pairs) > len(across):
            findings.append(
                Finding(
                    "duplicates",
                    False,
                    f"{plural(len(pairs) - len(across), 'training image')} have {kind} another one"
                    f"{_examples([pair for pair in pairs if pair not in set(across)], files)}.",
                    "Remove them, unless they are meant to count twice.",
                )
            )
    contrary = [pair for pair in exact if labels[pair[0]] != labels[pair[1]]]
    if contrary:
        findings.append(
            Finding(
                "contrary labels",
                len(contrary) >= MANY * len(labels),
                f"{plural(len(contrary), 'training image')} have the same pixels as one with another label"
                f"{_examples(contrary, files)}.",
                "Decide on one label each.",
            )
        )
    return findings


def _leaks(twice: Sequence[list[Pair]], train: int, test: int, files: Sequence[str]) -> list[Finding]:
    """What the pairs say of so many training images, which come first, and so many test images."""
    findings = []
    for kind, pairs in zip(("the same pixels as", "nearly the pixels of"), twice, strict=True):
        leaks = [pair for pair in pairs if pair[0] < train <= pair[1]]
        if leaks:
            findings.append(
                Finding(
                    "test leak",
                    len(leaks) >= MANY * test,
                    f"{plural(len(leaks), 'test image')} have {kind} a training image"
                    f"{_examples(leaks, files)}.",
                    "The test is too good by them: remove them from the training images.",
                )
            )
    return findings


def _examples(pairs: list[Pair], files: Sequence[str]) -> str:
    """Some of the pairs by their files' names, else by their numbers."""
    names = [f"{files[one]} = {files[other]}" if files else f"#{one} = #{other}" for one, other in pairs]
    return f" ({few(names)})"
