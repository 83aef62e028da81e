"""Learning curves of many configs of the study `cnn`, at the price of the main job: a test bed for searches.

At the top of the repository:

    python -m benchmarks.curves                    trains what is missing, one training after the other
    python -m benchmarks.curves --part 2/2         every second one, beside a process with --part 1/2
    python -m benchmarks.curves --count            how far it is
    python -m benchmarks.curves --choices          trains each other choice in the best starting point
    python -m benchmarks.curves --study NAME --storage FILE    adds the trainings of a search

Three families of configs in turn: random draws from the search space; some whose parameters differ from the
best starting point's in one to five; some that differ in eight to twelve. Too large ones and duplicates are
left out. Each is trained at several numbers of epochs, a whole schedule each; every tenth config of a family
over three seeds. `--choices` replaces one categorical parameter of the best starting point, or one whole
number of few values, by each other value, with two draws of the parameters that come with it. A finished
training adds a line to `benchmarks/results/curves.jsonl`: its parameters, the accuracy on the validation
images after each epoch and, after the last one, that on all training images which it has not used. What is
there is not trained again. The test images stay closed. Not here: what a search makes of the curves.
"""

import argparse
import functools
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from benchmarks.common import add_results_option, append_result, machine_facts, markdown_table
from mc1opt.config import Config, config_id
from mc1opt.data.images import open_training_images
from mc1opt.data.sources import find_data
from mc1opt.database.location import DEFAULT_STORAGE, user_storage
from mc1opt.database.records import StudyRecord
from mc1opt.database.studies import read_study
from mc1opt.dataset import CIFAR10_SHAPE, DataSet
from mc1opt.describe import describe_fidelity
from mc1opt.errors import UsageError
from mc1opt.files import read_lines
from mc1opt.machine.devices import resolve_precision
from mc1opt.models.cost import cost
from mc1opt.paths import user_path
from mc1opt.search.definition import load_definition
from mc1opt.seeds import derive_seed
from mc1opt.spec import EpochResult, Fidelity, Training, TrainingFailed
from mc1opt.training.accuracy import accuracy
from mc1opt.training.loop import Trainer

DEFINITION = load_definition("cnn")
BEST_START = "whitened-32-64-64-128"
"""The best starting point, around which two of the families lie."""
EPOCHS = (5, 2, 1)
TRAININGS = 400
"""How many there shall be."""
FAMILIES = {"random": None, "near": (1, 5), "middle": (8, 12)}
"""How many parameters differ from the best starting point, those that only one of the two has included."""
CHOICES = "choices"
"""The family of configs that differ from it in one choice, and in what comes with that."""
FEW = 6
"""Values of a whole number, at most, whose values are choices."""
DRAWS = 2
"""Of the parameters that come with a choice."""


@dataclass(frozen=True)
class Point:
    """A config that is trained."""

    index: int
    family: str
    params: dict[str, Any]
    changes: int
    config: Config


class _Redrawing(RandomSampler):
    """Takes the parameters of a base, but for chosen ones, which are drawn at random as new ones are."""

    def __init__(self, base: Mapping[str, Any], redrawn: set[str], seed: int) -> None:
        super().__init__(seed)
        self._kept = {name: value for name, value in base.items() if name not in redrawn}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        kept = self._kept.get(param_name)
        if kept is not None and param_distribution._contains(param_distribution.to_internal_repr(kept)):
            return kept
        return super().sample_independent(study, trial, param_name, param_distribution)


def points() -> Iterator[Point]:
    """All configs, the families in turn: the same ones in every process, without end."""
    base = dict(DEFINITION.starting_points[BEST_START])
    seen: set[str] = set()
    for index in range(sys.maxsize):
        family = list(FAMILIES)[index % len(FAMILIES)]
        point = next(_draws(index, family, base, seen))
        seen.add(config_id(point.config))
        yield point


def _draws(index: int, family: str, base: Mapping[str, Any], seen: set[str]) -> Iterator[Point]:
    bounds = FAMILIES[family]
    for attempt in range(sys.maxsize):
        seed = derive_seed("curves", index, attempt) % 2**32
        redrawn = set(base)
        if bounds is not None:
            generator = random.Random(seed)
            redrawn = set(generator.sample(sorted(base), generator.randint(*bounds)))
        trial = optuna.create_study(sampler=_Redrawing(base, redrawn, seed)).ask()
        config = DEFINITION.config(trial)
        changes = sum(trial.params.get(name) != base.get(name) for name in trial.params.keys() | base.keys())
        if cost(config.architecture, CIFAR10_SHAPE).macs > DEFINITION.max_macs or config_id(config) in seen:
            continue
        if bounds is None or bounds[0] <= changes <= bounds[1]:
            yield Point(index, family, trial.params, changes, config)


def choices() -> Iterator[Point]:
    """The best starting point with each other choice; configs that are affordable and all different."""
    base = dict(DEFINITION.starting_points[BEST_START])
    start = optuna.create_study(sampler=_Redrawing(base, set(), 0)).ask()
    seen = {config_id(DEFINITION.config(start))}
    for name, distribution in start.distributions.items():
        for value in _values(distribution):
            for draw in range(DRAWS):
                seed = derive_seed(CHOICES, name, str(value), draw) % 2**32
                trial = optuna.create_study(sampler=_Redrawing(base | {name: value}, set(), seed)).ask()
                config = DEFINITION.config(trial)
                if (
                    config_id(config) not in seen
                    and cost(config.architecture, CIFAR10_SHAPE).macs <= DEFINITION.max_macs
                ):
                    seen.add(config_id(config))
                    yield Point(len(seen) - 2, CHOICES, trial.params, 1, config)


def _values(distribution: BaseDistribution) -> Sequence[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution) and distribution.high - distribution.low < FEW:
        return range(distribution.low, distribution.high + 1)
    return ()


def trainings() -> Iterator[tuple[Point, int, int]]:
    """All trainings as (config, epochs, seed), without end; of any first ones, a third of each family."""
    for point in points():
        seeds = 3 if point.index // len(FAMILIES) % 10 == 0 else 1
        for seed in range(seeds):
            for epochs in EPOCHS:
                yield point, epochs, seed


@functools.cache
def unused_images(data: DataSet, train_images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of the training images that neither train nor belong to the validation images."""
    every = open_training_images(data, data.train_images - data.validation_images, "cpu")
    return every.train_images[train_images:], every.train_labels[train_images:]


def measure(point: Point, training: Training) -> dict[str, Any]:
    """Trains to the end; the line of the file of results, but for date and machine."""
    started = time.monotonic()
    trainer = Trainer(training)
    curve: list[EpochResult] = []
    failure, unused = None, None
    try:
        for epoch in range(training.fidelity.epochs):
            curve.append(trainer.train_epoch(epoch))
        with trainer.autocast():
            unused = accuracy(trainer.averaged, *unused_images(training.data, training.fidelity.train_images))
        if math.isnan(unused):
            raise TrainingFailed("diverged", "logits are not finite")
    except TrainingFailed as failed:
        failure, unused = failed.kind, None
    size = cost(point.config.architecture, CIFAR10_SHAPE)
    return {
        "family": point.family,
        "index": point.index,
        "changes": point.changes,
        "config_id": config_id(point.config),
        "params": point.params,
        "parameters": size.parameters,
        "macs": size.macs,
        "train_images": training.fidelity.train_images,
        "epochs": training.fidelity.epochs,
        "seed": training.seed,
        "data": training.data.name,
        "values_by_epoch": [epoch.validation_accuracy for epoch in curve],
        "losses": [epoch.loss for epoch in curve],
        "unused_accuracy": unused,
        "epoch_seconds": [round(epoch.seconds, 2) for epoch in curve],
        "seconds": round(time.monotonic() - started, 2),
        "failure": failure,
    }


def missing(
    path: Path, wanted: Iterator[tuple[Point, int, int]], part: tuple[int, int]
) -> Iterator[tuple[Point, int, int]]:
    """Those of the wanted trainings that the file of results lacks; of `part` (index, parts) alone."""
    index, parts = part
    for training in islice(wanted, index - 1, None, parts):
        if key_of(training) not in {_key(line) for line in read_lines(path)}:
            yield training


def key_of(training: tuple[Point, int, int]) -> tuple[str, int, int]:
    """What tells trainings apart: config, epochs, seed."""
    point, epochs, seed = training
    return config_id(point.config), epochs, seed


def _key(line: dict[str, Any]) -> tuple[str, int, int]:
    return line["config_id"], line["epochs"], line["seed"]


def of_search(record: StudyRecord) -> Iterator[dict[str, Any]]:
    """The trainings of a search as lines: the short schedule of each trial, and the long one of whole trials.

    Raises:
        UsageError: the study has another price, so that its curves mean something else.
    """
    fidelity, data = record.fidelity, record.data
    wanted = Fidelity(train_images=DEFINITION.fidelity.train_images, epochs=EPOCHS[0])
    if (
        fidelity is None
        or data is None
        or fidelity != wanted.model_copy(update={"short_epochs": EPOCHS[-1], "validation": "unused"})
    ):
        raise UsageError(f"study {record.study!r} is not a search of {describe_fidelity(wanted)}.")
    for trial in record.trials:
        short, long = trial.values_by_epoch[: EPOCHS[-1]], trial.values_by_epoch[EPOCHS[-1] :]
        for values in (short, long if trial.outcome == "complete" else []):
            if values:
                first = 0 if values is short else len(short)
                yield {
                    "family": "search",
                    "index": trial.number,
                    "changes": None,
                    "config_id": trial.config_id,
                    "params": trial.params,
                    "parameters": trial.parameters,
                    "macs": trial.macs,
                    "train_images": fidelity.train_images,
                    "epochs": len(values),
                    "seed": trial.seed,
                    "data": data["name"],
                    "values_by_epoch": values,
                    "losses": trial.losses[first : first + len(values)],
                    "unused_accuracy": None if values is short else trial.value,
                    "epoch_seconds": [round(trial.epoch_seconds or 0.0, 2)] * len(values),
                    "seconds": round(len(values) * (trial.epoch_seconds or 0.0), 2),
                    "failure": None,
                }


def add_search(options: argparse.Namespace) -> None:
    """Adds what the file of results lacks of a search."""
    known = {_key(line) for line in read_lines(options.results)}
    for line in of_search(read_study(options.storage, options.study)):
        if _key(line) not in known:
            append_result(options.results, machine_facts(), line)


def train_missing(options: argparse.Namespace) -> None:
    """Trains what is missing, each into the file of results."""
    data, precision, machine = (
        find_data(options.data, output=sys.stdout),
        resolve_precision("cpu"),
        machine_facts(),
    )
    # On CIFAR-10 the fidelity of the study; of fewer images as large a part, so that some are unused.
    images = DEFINITION.fidelity.train_images * (data.train_images - data.validation_images) // 45_000
    wanted = islice(trainings(), options.trainings)
    if options.choices:
        wanted = iter([(point, epochs, 0) for point in choices() for epochs in (EPOCHS[0], EPOCHS[-1])])
    for point, epochs, seed in missing(options.results, wanted, options.part):
        training = Training(
            config=point.config,
            fidelity=Fidelity(train_images=images, epochs=epochs),
            seed=seed,
            data=data,
            precision=precision,
        )
        figures = measure(point, training)
        append_result(options.results, machine, figures)
        values = " ".join(f"{value:.3f}" for value in figures["values_by_epoch"])
        print(f"{point.index} {point.family} {epochs} epochs, seed {seed}: {values}", flush=True)


def count_table(lines: Sequence[dict[str, Any]], wanted: int) -> str:
    """How many trainings are done, by family and epochs, and the core hours that they took."""
    done = Counter((line["family"], line["epochs"]) for line in lines)
    rows = [
        [
            family,
            *(str(done[family, epochs]) for epochs in EPOCHS),
            str(sum(done[family, epochs] for epochs in EPOCHS)),
        ]
        for family in (*FAMILIES, CHOICES, "search")
    ]
    hours = sum(line["seconds"] for line in lines) / 3600
    failed = sum(line["failure"] is not None for line in lines)
    header = ["family", *(f"{epochs} epochs" if epochs > 1 else "1 epoch" for epochs in EPOCHS), "all"]
    return (
        f"{len(lines)} of {wanted} trainings, {hours:.1f} core hours; {failed} of them failed.\n\n"
        f"{markdown_table(header, rows)}"
    )


def parse_part(text: str) -> tuple[int, int]:
    """Index and number of parts of `--part`, such as 1/2.

    Raises:
        ValueError: it is something else.
    """
    index, parts = (int(number) for number in text.split("/"))
    if not 1 <= index <= parts:
        raise ValueError(text)
    return index, parts


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; see the top of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--count", action="store_true", help="train nothing; say how far it is")
    parser.add_argument("--trainings", type=int, default=TRAININGS, help=f"in all [default: {TRAININGS}]")
    parser.add_argument("--part", type=parse_part, default=(1, 1), help="such as 1/2: each second one")
    parser.add_argument("--data", type=user_path, help="other images than CIFAR-10, to try this out")
    parser.add_argument("--choices", action="store_true", help="one other choice each")
    parser.add_argument("--study", help="add the trainings of this search")
    parser.add_argument("--storage", type=user_storage, default=DEFAULT_STORAGE, help="where it is stored")
    add_results_option(parser, "curves")
    return parser.parse_args(arguments)


def main() -> None:
    """Trains what is missing, and says how far it is."""
    options = parse_options()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if options.study:
        add_search(options)
    elif not options.count:
        train_missing(options)
    print(count_table(read_lines(options.results), options.trainings))


if __name__ == "__main__":
    main()
