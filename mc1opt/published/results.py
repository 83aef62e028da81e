"""What the trainings of a preset or an arm have given: over seeds on the test images, and over folds.

Not here: training and testing (`mc1opt.published.measure`), and lines of text (`mc1opt.published.report`).
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mc1opt.config import Config, config_id
from mc1opt.data.cache import CIFAR10, CIFAR10_SHA256
from mc1opt.database.location import files_folder
from mc1opt.measurement.final_test import stored_accuracies
from mc1opt.measurement.store import TRAININGS, StoredTraining, TrainingKey, TrainingStore
from mc1opt.presets import RECIPES, Preset
from mc1opt.published.plan import MAX_SEEDS, entry_folder, seed_value
from mc1opt.spec import Device, Precision
from mc1opt.uncertainty import Spread, spread

NOTHING: Mapping[str, Any] = MappingProxyType({"n": 0, "mean": None, "std": None, "interval": None})
"""As `Spread.to_json`, of no numbers."""


@dataclass(frozen=True)
class SeedResult:
    """A training on all training images that was tested."""

    stored: StoredTraining
    accuracy: float
    """On the test images."""


@dataclass(frozen=True)
class Folds:
    """Trainings over the folds of the training images, all with the same seed."""

    trainings: tuple[StoredTraining, ...]
    """In the order of their folds."""

    @property
    def accuracies(self) -> list[float]:
        """On the images of each fold that is trained."""
        return [training.value for training in self.trainings if training.value is not None]

    @property
    def count(self) -> int:
        """How many folds the images were split into, trained or not."""
        fold = self.trainings[0].key.fold
        assert fold is not None
        return fold.count

    @property
    def spread(self) -> Spread:
        """Mean, standard deviation and interval over the folds.

        Folds share most of their training images, so that the interval is narrower than it should be; no
        unbiased one can be had from one cross-validation (Bengio and Grandvalet, 2004).
        """
        return spread(self.accuracies)

    @property
    def std_by_chance(self) -> float:
        """The standard deviation that the choice of validation images alone gives, were all else equal.

        That of a share of n images: the square root of p (1 - p) / n.
        """
        mean = statistics.fmean(self.accuracies)
        validation_images = self.trainings[0].key.fidelity.train_images / (self.count - 1)
        return math.sqrt(mean * (1.0 - mean) / validation_images)


@dataclass(frozen=True)
class Measurement:
    """All that is known of an entry at one number of epochs, on one device, for the same images."""

    epochs: int
    data: str
    """SHA-256 of the data; see `DataSet`."""
    device: Device
    precision: Precision
    tested: tuple[SeedResult, ...]
    """By seed."""
    folds: Folds | None
    failures: tuple[StoredTraining, ...]
    """Trainings on all images, and in folds, that ended without a result, and would again."""

    @property
    def spread(self) -> Spread | None:
        """Of the test accuracy over the seeds; None while nothing was tested."""
        return spread([each.accuracy for each in self.tested]) if self.tested else None

    @property
    def failed_seeds(self) -> tuple[StoredTraining, ...]:
        """Those of the failures that were trained on all images."""
        return tuple(training for training in self.failures if training.key.fold is None)

    @property
    def failed_folds(self) -> tuple[StoredTraining, ...]:
        """Those of the failures that were trained in a fold."""
        return tuple(training for training in self.failures if training.key.fold is not None)

    @property
    def split(self) -> int:
        """How many of the tested had their batches split, as memory was short: batch norm then saw parts."""
        return sum(each.stored.accumulation > 1 for each in self.tested)

    @property
    def is_cifar10(self) -> bool:
        """Whether it may be set beside what was published."""
        return self.data == CIFAR10_SHA256["train_images"]

    @property
    def seconds(self) -> float | None:
        """Mean seconds of a training: its epochs, without start-up."""
        if not self.tested:
            return None
        return statistics.fmean(sum(e.seconds for e in each.stored.curve) for each in self.tested)

    def to_json(self) -> dict[str, Any]:
        """As `presets --json` prints it."""
        numbers = self.spread
        return {
            **(NOTHING if numbers is None else numbers.to_json()),
            "epochs": self.epochs,
            "data": CIFAR10 if self.is_cifar10 else self.data,
            "seconds": self.seconds,
            "device": self.device,
            "precision": self.precision,
            "by_seed": [each.accuracy for each in self.tested],
            "failed": len(self.failed_seeds),
            "split": self.split,
            "folds": self._folds_json(),
        }

    def _folds_json(self) -> dict[str, Any] | None:
        if self.folds is None or not self.folds.accuracies:
            nothing = {"validation": [], **NOTHING, "std_by_chance": None, "std_over_seeds": None}
            return nothing | {"failed": len(self.failed_folds)} if self.failed_folds else None
        over_seeds = None if self.spread is None else self.spread.std
        return {
            "validation": self.folds.accuracies,
            **self.folds.spread.to_json(),
            "std_by_chance": self.folds.std_by_chance,
            "std_over_seeds": over_seeds,
            "failed": len(self.failed_folds),
        }


def measurement(tested: Iterable[SeedResult], others: Iterable[StoredTraining]) -> Measurement | None:
    """What trainings that differ in seed and fold alone have given; None without any.

    Args:
        tested: those that were tested.
        others: folds, and those that failed.
    """
    tested, others = tuple(tested), tuple(others)
    every = [*(each.stored for each in tested), *others]
    if not every:
        return None
    key = every[0].key
    folds = _whole_folds(t for t in others if t.key.fold is not None and t.failure is None)
    return Measurement(
        epochs=key.fidelity.epochs,
        data=key.data,
        device=key.device,
        precision=key.precision,
        tested=tested,
        folds=Folds(folds) if folds else None,
        failures=tuple(t for t in others if t.failure is not None),
    )


def presets_folder(storage: str) -> Path:
    """Where the trainings of presets are: beside the study database, as the models of studies are."""
    return files_folder(storage) / "presets"


def stored_results(folder: Path, presets: Sequence[Preset]) -> dict[str, dict[str, Measurement]]:
    """What is stored of presets, by name and recipe; recipes of which nothing is stored are left out.

    Of trainings with several numbers of epochs, devices or images, those on CIFAR-10 are taken if there are
    any, then those with the recipe's default epochs, then those with the most seeds, then the newest.

    Raises:
        StorageError: what is stored cannot be read.
    """
    store = TrainingStore(folder / TRAININGS)
    results: dict[str, dict[str, Measurement]] = {}
    for preset in presets:
        results[preset.name] = {}
        for recipe in RECIPES:
            groups = _groups(store, entry_folder(folder, preset.name), preset.with_recipe(recipe))
            default = preset.epochs[recipe]
            ranked = sorted(
                groups,
                key=lambda g: (g[0].is_cifar10, g[0].epochs == default, len(g[0].tested), g[1]),
            )
            if ranked:
                results[preset.name][recipe] = ranked[-1][0]
    return results


def _groups(store: TrainingStore, tests: Path, config: Config) -> list[tuple[Measurement, str]]:
    """Measurements of a config, and when the last training of each ended."""
    accuracy_of = stored_accuracies(tests)
    identity = config_id(config)
    number = {seed_value(seed): seed for seed in range(MAX_SEEDS)}
    groups: dict[tuple[object, ...], list[StoredTraining]] = defaultdict(list)
    for stored in store:
        if stored.key.config_id == identity:
            groups[_circumstances(stored.key)].append(stored)
    found = []
    for group in groups.values():
        accuracies = [(stored, accuracy_of(stored)) for stored in group]
        tested = [SeedResult(stored, accuracy) for stored, accuracy in accuracies if accuracy is not None]
        tested.sort(key=lambda result: number.get(result.stored.key.seed, MAX_SEEDS))
        others = [s for s, accuracy in accuracies if accuracy is None and (s.failure or s.key.fold)]
        entry = measurement(tested, others)
        if entry is not None:
            found.append((entry, max(stored.ended for stored in group)))
    return found


def _circumstances(key: TrainingKey) -> tuple[object, ...]:
    """What must be equal in trainings whose results are put together."""
    return key.fidelity.epochs, key.data, key.device, key.threads, key.precision


def _whole_folds(trainings: Iterable[StoredTraining]) -> tuple[StoredTraining, ...]:
    """The folds of one cross-validation: the one with the most folds trained, if there are several."""
    by_count: dict[int, dict[int, StoredTraining]] = defaultdict(dict)
    for training in trainings:
        assert training.key.fold is not None
        by_count[training.key.fold.count][training.key.fold.index] = training
    if not by_count:
        return ()
    _, chosen = max(by_count.items(), key=lambda entry: (len(entry[1]), entry[0]))
    return tuple(training for _, training in sorted(chosen.items()))
