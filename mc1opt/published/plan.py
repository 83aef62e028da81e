"""Which trainings measure the presets, and whether they fit: bounds and memory, looked at before the start.

An `Entry` is a config with a name: a preset with a recipe, or an arm of a benchmark. Each is trained on all
training images, once a seed, and then tested; and, if folds are asked for, once a fold with the first seed,
which validates on the images of that fold. Not here: training, and what the numbers mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mc1opt.config import Config, config_id
from mc1opt.database.trial_files import study_folder
from mc1opt.errors import Mc1optError, UsageError
from mc1opt.machine.memory import MemoryNeed, evaluation_memory, training_memory
from mc1opt.machine.resources import available_memory
from mc1opt.measurement.folds import check_folds, fold_images
from mc1opt.measurement.trainings import Job
from mc1opt.models.cost import cost
from mc1opt.presets import Preset, Recipe
from mc1opt.search.settings import resolve_workers
from mc1opt.seeds import derive_seed
from mc1opt.spec import DataSet, Device, Fidelity, Fold, Precision, Training
from mc1opt.text import megabytes

MAX_SEEDS = 1000
CHECKPOINT_SECONDS = 60.0
"""How often the state of a training is written: a deep one has hundreds of megabytes of it."""


@dataclass(frozen=True)
class Entry:
    """A config that is measured, under a name."""

    name: str
    """The preset's, or the arm's."""
    recipe: str
    config: Config
    epochs: int
    seeds: tuple[int, ...]
    """Which ones, counted from 0; `seed_value` has what is drawn from."""

    @property
    def label(self) -> str:
        """For lines of progress."""
        return f"{self.name} ({self.recipe})"


@dataclass(frozen=True)
class LadderJob(Job):
    """A training of an entry."""

    entry: Entry
    seed: int
    """Counted from 0."""


@dataclass(frozen=True)
class LadderPlan:
    """The trainings of entries, all of which fit into memory."""

    entries: tuple[Entry, ...]
    folds: int
    """0 for none."""
    data: DataSet
    device: Device
    precision: Precision
    workers: int
    folder: Path
    """Where the trainings are stored."""
    memory_each: int
    """Bytes that the largest of the trainings takes, on the device that is short."""

    def jobs(self) -> list[LadderJob]:
        """All trainings, entry by entry: seeds, then folds."""
        return [job for entry in self.entries for job in (*self.seed_jobs(entry), *self.fold_jobs(entry))]

    def seed_jobs(self, entry: Entry) -> list[LadderJob]:
        """An entry on all training images, with its weights kept for the test."""
        everything = self.data.model_copy(update={"validation_images": 0})
        jobs = []
        for seed in entry.seeds:
            training = self._training(entry, seed, everything, self.data.train_images)
            weights = self._weights(entry, seed).absolute()
            training = training.model_copy(update={"weights": str(weights)})
            jobs.append(LadderJob(f"{entry.label} seed {seed + 1}", training, entry, seed))
        return jobs

    def fold_jobs(self, entry: Entry) -> list[LadderJob]:
        """An entry in each fold, all with the first seed: other images, and another order of them, each."""
        jobs = []
        for index in range(self.folds):
            training = self._training(entry, 0, self.data, fold_images(self.folds, self.data))
            training = training.model_copy(update={"fold": Fold(index=index, count=self.folds)})
            jobs.append(LadderJob(f"{entry.label} fold {index + 1}", training, entry, 0))
        return jobs

    def _training(self, entry: Entry, seed: int, data: DataSet, images: int) -> Training:
        return Training(
            config=entry.config,
            fidelity=Fidelity(train_images=images, epochs=entry.epochs),
            seed=seed_value(seed),
            data=data,
            device=self.device,
            precision=self.precision,
            checkpoint_seconds=CHECKPOINT_SECONDS,
        )

    def _weights(self, entry: Entry, seed: int) -> Path:
        """The file of one training's weights until it is tested: no other training has its name."""
        identity = f"{config_id(entry.config)}-{entry.epochs}-epochs-{self.data.sha256[:8]}"
        name = f"{identity}-{self.device}-{self.precision}-{seed}.safetensors"
        return entry_folder(self.folder, entry.name) / "weights" / name


def seed_value(seed: int) -> int:
    """What the trainings of a seed draw from: the same for all presets, so that they compare in pairs."""
    return derive_seed("presets", seed)


def entry_folder(folder: Path, name: str) -> Path:
    """Where the tests of a preset or an arm are recorded, below the folder of all."""
    return study_folder(folder, name)


def preset_entry(preset: Preset, recipe: Recipe, *, seeds: int, epochs: int | None = None) -> Entry:
    """A preset with a recipe, over its first `seeds` seeds; `epochs` is the recipe's default if None.

    Raises:
        UsageError: there are more seeds than make sense.
    """
    chosen = preset.epochs[recipe] if epochs is None else epochs
    return Entry(preset.name, recipe, preset.with_recipe(recipe), chosen, first_seeds(seeds))


def first_seeds(count: int) -> tuple[int, ...]:
    """The first seeds.

    Raises:
        UsageError: they are more than make sense.
    """
    if count > MAX_SEEDS:
        raise UsageError(f"--seeds {count} is too many; at most {MAX_SEEDS}.")
    return tuple(range(count))


def make_plan(
    entries: Sequence[Entry],
    *,
    folds: int,
    data: DataSet,
    device: Device,
    precision: Precision,
    workers: str,
    folder: Path,
    test_images: int = 10_000,
) -> LadderPlan:
    """Plans the trainings of entries.

    Args:
        entries: what is trained; at least one.
        folds: 0 for none.
        data: the images.
        device: where.
        precision: what is computed in.
        workers: of `--workers`: a number, or auto.
        folder: where trainings are stored.
        test_images: how many there are.

    Raises:
        UsageError: more folds than the images allow, or more workers than fit into memory.
        Mc1optError: not even one training fits into memory.
    """
    check_folds(folds, data)
    needs = {entry.label: _need(entry, data, device, precision) for entry in entries}
    tests = [evaluation_memory(entry.config, test_images, device) for entry in entries]
    # What needs the most memory of a GPU need not be what needs the most of its host.
    need, test = (
        MemoryNeed(host=max(each.host for each in found), device=max(each.device for each in found))
        for found in (needs.values(), tests)
    )
    kind = "device" if device == "cuda" else "host"
    largest = max(entries, key=lambda entry: getattr(needs[entry.label], kind))
    chosen, memory_each = _fitting_workers(workers, largest, need, test, device)
    return LadderPlan(
        entries=tuple(entries),
        folds=folds,
        data=data,
        device=device,
        precision=precision,
        workers=chosen,
        folder=folder,
        memory_each=memory_each,
    )


def free_device_memory() -> int:
    """Bytes that are free on the GPU."""
    import torch

    return torch.cuda.mem_get_info()[0]


def _fitting_workers(
    text: str, largest: Entry, need: MemoryNeed, test: MemoryNeed, device: Device
) -> tuple[int, int]:
    """The workers that are asked for, if they fit, and what each takes of the memory that is short."""
    limits = [("memory", need.host, test.host, available_memory())]
    if device == "cuda":
        limits.append(("GPU memory", need.device, test.device, free_device_memory()))
    wanted = resolve_workers(text, device)
    name, each, once, free = min(limits, key=lambda limit: (limit[3] - limit[2]) / limit[1])
    fitting = max(free - once, 0) // each
    if wanted <= fitting:
        return wanted, each
    size = f"{largest.name} ({cost(largest.config.architecture).parameters:,} parameters)"
    needs = (
        f"a training of {size} takes about {megabytes(each)} of {name}, and its test {megabytes(once)}; "
        f"{megabytes(free)} are free"
    )
    if fitting < 1:
        raise Mc1optError(
            f"too little memory: {needs}. Close other programs, or use a machine with at least "
            f"{megabytes(each + once)} free; smaller presets are listed by `mc1opt presets`."
        )
    if text == "auto":
        return fitting, each
    raise UsageError(f"--workers {text} is too many: {needs}. Give --workers {fitting}.")


def _need(entry: Entry, data: DataSet, device: Device, precision: Precision) -> MemoryNeed:
    return training_memory(
        entry.config,
        train_images=data.train_images,
        validation_images=0,
        device=device,
        precision=precision,
    )
