"""The results of a preset's or an arm's trainings: over seeds on the test images, and over folds.

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
from mc1opt.data.named import CIFAR10, CIFAR10_SHA256
from mc1opt.database.location import files_folder
from mc1opt.database.trial_files import study_folder
from mc1opt.measurement.final_test import stored_accuracies
from mc1opt.measurement.store import TRAININGS, StoredTraining, TrainingStore
from mc1opt.presets import RECIPES, Preset
from mc1opt.seeds import derive_seed
from mc1opt.spec import Device, Precision
from mc1opt.uncertainty import Spread, spread

MAX_SEEDS = 1000
NOTHING: Mapping[str, Any] = MappingProxyType({"n": 0, "mean": None, "std": None, "interval": None})
"""As `Spread.to_json`, of no numbers."""


def seed_value(seed: int) -> int:
    """The seed with an index: the same for all presets, so that they compare in pairs."""
    return derive_seed("presets", seed)


def presets_folder(storage: str) -> Path:
    """Where the trainings of presets are: beside the study database, as the models of studies are."""
    return files_folder(storage) / "presets"


def entry_folder(folder: Path, name: str) -> Path:
    """Where the tests of a preset or an arm are recorded, below the folder of all."""
    return study_folder(folder, name)


@dataclass(frozen=True)
class Measurement:
    """The results of an entry for one number of epochs, device, precision and data set."""

    epochs: int
    data: str
    """SHA-256 of the data; see `DataSet`."""
    device: Device
    precision: Precision
    tested: tuple[StoredTraining, ...]
    """Trainings on all images that were tested, by seed."""
    accuracies: tuple[float, ...]
    """Of the tested ones, on the test images."""
    folds: tuple[StoredTraining, ...]
    """Trainings of one cross-validation, all with the same seed, by fold."""
    failures: tuple[StoredTraining, ...]
    """Trainings, also in folds, that ended without a result, and would again."""

    @property
    def spread(self) -> Spread | None:
        """Of the test accuracy over the seeds; None while nothing was tested."""
        return spread(self.accuracies) if self.accuracies else None

    @property
    def fold_accuracies(self) -> list[float]:
        """Validation accuracy of each fold that is trained."""
        return [training.value for training in self.folds if training.value is not None]

    @property
    def fold_count(self) -> int:
        """Folds that the images were split into, trained or not; 0 without cross-validation."""
        fold = self.folds[0].key.fold if self.folds else None
        return 0 if fold is None else fold.count

    @property
    def fold_spread(self) -> Spread | None:
        """Of the validation accuracy over the folds; None while none is trained.

        The interval is too narrow, because folds share most of their training images; one cross-validation
        allows no unbiased estimate (Bengio and Grandvalet, 2004).
        """
        return spread(self.fold_accuracies) if self.folds else None

    @property
    def std_by_chance(self) -> float | None:
        """The standard deviation by the choice of validation images alone: sqrt(p (1 - p) / n)."""
        if not self.folds:
            return None
        mean = statistics.fmean(self.fold_accuracies)
        validation_images = self.folds[0].key.fidelity.train_images / (self.fold_count - 1)
        return math.sqrt(mean * (1.0 - mean) / validation_images)

    def failed(self, *, folds: bool) -> list[StoredTraining]:
        """The failures in folds, or those on all images."""
        return [training for training in self.failures if (training.key.fold is not None) == folds]

    @property
    def split(self) -> int:
        """Tested trainings whose batches were split because memory was short: batch norm saw parts."""
        return sum(each.accumulation > 1 for each in self.tested)

    @property
    def is_cifar10(self) -> bool:
        """Whether it may be compared with what was published."""
        return self.data == CIFAR10_SHA256["train_images"]

    @property
    def seconds(self) -> float | None:
        """Mean seconds of a tested training's epochs, without start-up; None while nothing was tested."""
        if not self.tested:
            return None
        return statistics.fmean(sum(epoch.seconds for epoch in each.curve) for each in self.tested)

    def to_json(self) -> dict[str, Any]:
        """As `presets --json` prints it."""
        numbers, failed_folds = self.spread, len(self.failed(folds=True))
        folds = {
            "validation": self.fold_accuracies,
            **(NOTHING if self.fold_spread is None else self.fold_spread.to_json()),
            "std_by_chance": self.std_by_chance,
            "std_over_seeds": numbers.std if numbers is not None and self.folds else None,
            "failed": failed_folds,
        }
        return {
            **(NOTHING if numbers is None else numbers.to_json()),
            "epochs": self.epochs,
            "data": CIFAR10 if self.is_cifar10 else self.data,
            "seconds": self.seconds,
            "device": self.device,
            "precision": self.precision,
            "by_seed": list(self.accuracies),
            "failed": len(self.failed(folds=False)),
            "split": self.split,
            "folds": folds if self.folds or failed_folds else None,
        }


def measurement(found: Iterable[tuple[StoredTraining, float | None]]) -> Measurement | None:
    """The results of trainings that differ only in seed and fold; None without any.

    Args:
        found: by seed, each with its test accuracy; None where it was not tested.
    """
    found = list(found)
    tested = [(stored, accuracy) for stored, accuracy in found if accuracy is not None]
    failures = tuple(stored for stored, _ in found if stored.failure is not None)
    folds = _whole_folds(stored for stored, _ in found if stored.failure is None)
    every = (*(stored for stored, _ in tested), *folds, *failures)
    if not every:
        return None
    key = every[0].key
    return Measurement(
        epochs=key.fidelity.epochs,
        data=key.data,
        device=key.device,
        precision=key.precision,
        tested=tuple(stored for stored, _ in tested),
        accuracies=tuple(accuracy for _, accuracy in tested),
        folds=folds,
        failures=failures,
    )


def _whole_folds(trainings: Iterable[StoredTraining]) -> tuple[StoredTraining, ...]:
    """The folds of one cross-validation: the one with the most folds trained, if there are several."""
    by_count: dict[int, dict[int, StoredTraining]] = defaultdict(dict)
    for training in trainings:
        if training.key.fold is not None:
            by_count[training.key.fold.count][training.key.fold.index] = training
    _, chosen = max(by_count.items(), key=lambda entry: (len(entry[1]), entry[0]), default=(0, {}))
    return tuple(training for _, training in sorted(chosen.items()))


def stored_results(folder: Path, presets: Sequence[Preset]) -> dict[str, dict[str, Measurement]]:
    """The stored results of presets, by name and recipe; recipes without results are left out.

    Of trainings with several numbers of epochs, devices or images, those on CIFAR-10 come first, then those
    with the recipe's default epochs, then those with the most seeds, then the newest.

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
                groups, key=lambda g: (g[0].is_cifar10, g[0].epochs == default, len(g[0].tested), g[1])
            )
            if ranked:
                results[preset.name][recipe] = ranked[-1][0]
    return results


def _groups(store: TrainingStore, tests: Path, config: Config) -> list[tuple[Measurement, str]]:
    """Measurements of a config, each with the end of its last training."""
    accuracy_of = stored_accuracies(tests)
    identity = config_id(config)
    index = {seed_value(seed): seed for seed in range(MAX_SEEDS)}
    groups: dict[tuple[object, ...], list[StoredTraining]] = defaultdict(list)
    for stored in store:
        key = stored.key
        if key.config_id == identity:
            alike = key.fidelity.epochs, key.data, key.device, key.threads, key.precision
            groups[alike].append(stored)
    found = []
    for group in groups.values():
        by_seed = sorted(group, key=lambda stored: index.get(stored.key.seed, MAX_SEEDS))
        entry = measurement((stored, accuracy_of(stored)) for stored in by_seed)
        if entry is not None:
            found.append((entry, max(stored.ended for stored in group)))
    return found
