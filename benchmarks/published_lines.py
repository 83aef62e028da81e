"""The lines of the files of results, by arm. Not here: the report (`published_report.py`)."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.published_arms import arms
from mc1opt.config import config_id
from mc1opt.data.named import CIFAR10
from mc1opt.files import read_lines
from mc1opt.uncertainty import Spread, spread

Key = tuple[str, str]
"""Name of an arm, and recipe."""
Line = dict[str, Any]
TRAIN_IMAGES = 50_000
GRID_RESULTS, SECONDS_RESULTS = "published_grid.jsonl", "published_seconds.jsonl"
EpochSeconds = Mapping[str, Sequence[float]]
"""Of an epoch, by arm and round."""
Seconds = Mapping[tuple[str, str], float]
"""Median seconds of an epoch of all training images, by arm and device."""
Results = Mapping[Key, Sequence[Line]]
"""Lines by arm, in the order of their seeds."""


def read_results(path: Path) -> dict[Key, list[Line]]:
    """The lines of today's arms, with today's config and epochs, on CIFAR-10; of a seed the last one counts.

    Trainings on another device or in another precision are another sample: the one with the most seeds
    counts, and of equal ones the newest.
    """
    current = {(arm.name, arm.recipe): (config_id(arm.config), arm.epochs) for arm in arms()}
    samples: dict[Key, dict[tuple[str, str], dict[int, Line]]] = defaultdict(lambda: defaultdict(dict))
    for line in read_lines(path):
        key = (line["arm"], line["recipe"])
        if line["data"] == CIFAR10 and current.get(key) == (line["config_id"], line["epochs"]):
            samples[key][line["device"], line["precision"]][line["seed"]] = line
    chosen = {
        key: max(found.values(), key=lambda lines: (len(lines), max(line["date"] for line in lines.values())))
        for key, found in samples.items()
    }
    return {key: [line for _, line in sorted(lines.items())] for key, lines in chosen.items()}


def replaced_lines(path: Path) -> list[Line]:
    """The lines of today's arms on CIFAR-10 with another config or other epochs than today's."""
    current = {(arm.name, arm.recipe): (config_id(arm.config), arm.epochs) for arm in arms()}
    return [
        line
        for line in read_lines(path)
        if line["data"] == CIFAR10
        and current.get((line["arm"], line["recipe"])) not in (None, (line["config_id"], line["epochs"]))
    ]


def read_seconds(path: Path) -> Seconds:
    """Of CIFAR-10, the newest run of each base and device."""
    seconds: dict[tuple[str, str], float] = {}
    for run in read_lines(path):
        if run["data"] == CIFAR10:
            each = TRAIN_IMAGES / run["images"]
            for name, found in run["seconds"].items():
                seconds[name, run["device"]] = each * statistics.median(found)
    return seconds


def arithmetic(lines: Sequence[Line]) -> str:
    """On which device and in which precision a sample was trained; empty without lines."""
    return f"{lines[0]['device']}, {lines[0]['precision']}" if lines else ""


def accuracies(results: Results, key: Key) -> dict[int, float]:
    """Test accuracy by seed, of the trainings that did not fail."""
    return {line["seed"]: line["test_accuracy"] for line in results.get(key, ()) if line["failure"] is None}


def failures(results: Results, key: Key) -> str:
    """How many trainings failed, and how; empty if none did."""
    lines = results.get(key, ())
    kinds = sorted({line["failure"] for line in lines if line["failure"] is not None})
    count = sum(line["failure"] is not None for line in lines)
    return f"{count} of {len(lines)} {' or '.join(kinds)}" if count else ""


def accuracy_spread(results: Results, key: Key) -> Spread | None:
    """Mean, standard deviation and interval over the seeds; None where nothing is measured."""
    values = list(accuracies(results, key).values())
    return spread(values) if values else None
