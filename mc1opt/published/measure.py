"""Measuring the presets: trained over seeds and folds, and tested.

A training on all training images is tested as soon as it has ended, through the one function that opens the
test images; each opening is recorded. Tests choose nothing. What is stored is neither trained nor tested
again, so that the same command resumes after a kill, to the same numbers. Not here: what the trainings have
given (`mc1opt.published.results`).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mc1opt.config import Config
from mc1opt.data.libraries import check_libraries
from mc1opt.data.sources import find_data
from mc1opt.dataset import DataSet
from mc1opt.errors import Mc1optError, UsageError
from mc1opt.files import delete, exclusive
from mc1opt.machine.devices import resolve_precision
from mc1opt.machine.memory import evaluation_memory
from mc1opt.machine.resources import available_memory
from mc1opt.measurement.final_test import Measure, run_final_test, stored_accuracies
from mc1opt.measurement.plan import Job, MeasureOptions, Plan, check_folds, memory_needs
from mc1opt.measurement.store import TRAININGS, StoredTraining, TrainingStore
from mc1opt.measurement.trainings import StoredTrainings
from mc1opt.models.cost import cost
from mc1opt.presets import PRESETS, Preset, Recipe, get_preset
from mc1opt.published.results import (
    MAX_SEEDS,
    Measurement,
    entry_folder,
    measurement,
    presets_folder,
    seed_value,
)
from mc1opt.spec import Device, Precision
from mc1opt.text import megabytes, plural
from mc1opt.workers.engine import Engine
from mc1opt.workers.pool import Pool, ProcessPool
from mc1opt.workers.stop import StopFlag


@dataclass(frozen=True, kw_only=True)
class PresetsOptions(MeasureOptions):
    """The options of `mc1opt presets run`."""

    names: tuple[str, ...] = ()
    everything: bool = False
    """All presets, instead of names."""
    recipe: Recipe = "published"


@dataclass(frozen=True)
class Entry:
    """A config that is measured under a name: a preset with a recipe, or an arm of a benchmark."""

    name: str
    recipe: str
    config: Config
    epochs: int
    seeds: tuple[int, ...]
    """Indices from 0; see `seed_value`."""

    @property
    def label(self) -> str:
        """For lines of progress."""
        return f"{self.name} ({self.recipe})"


TEST_IMAGES = 10_000
"""Of CIFAR-10, for which memory must suffice."""
Results = list[tuple[Entry, Measurement | None]]
"""What is known of entries, in their order; None where nothing is trained yet."""


# ---- The plan --------------------------------------------------------------------------------------------


def chosen_presets(names: Sequence[str], *, everything: bool) -> list[Preset]:
    """The presets of these names, each once, or all of them.

    Raises:
        UsageError: a name is unknown, or there are neither names nor `everything`, or both.
    """
    if everything and names:
        raise UsageError("names and --all exclude each other: --all is all presets.")
    if not everything and not names:
        raise UsageError(f"name presets, or give --all. The presets are: {', '.join(PRESETS)}.")
    return list(PRESETS.values()) if everything else [get_preset(name) for name in dict.fromkeys(names)]


def preset_entry(preset: Preset, recipe: Recipe, *, seeds: int, epochs: int | None = None) -> Entry:
    """A preset with a recipe, over its first `seeds` seeds; `epochs` None is the recipe's default.

    Raises:
        UsageError: `seeds` is more than `MAX_SEEDS`.
    """
    chosen = preset.epochs[recipe] if epochs is None else epochs
    return Entry(preset.name, recipe, preset.with_recipe(recipe), chosen, first_seeds(seeds))


def first_seeds(count: int) -> tuple[int, ...]:
    """The indices of the first seeds.

    Raises:
        UsageError: they are more than `MAX_SEEDS`.
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
    engine: Engine,
    folder: Path,
) -> Plan:
    """Plans the trainings of entries.

    Args:
        entries: what is trained; at least one.
        folds: 0 for none.
        data: the images.
        device: where.
        engine: how many at once.
        folder: where trainings are stored.

    Raises:
        UsageError: more folds than the images allow, or more workers than fit into memory.
        Mc1optError: not even one training fits into memory.
    """
    check_folds(folds, data)
    precision = resolve_precision(device)
    return Plan(
        folds=folds,
        data=data,
        device=device,
        precision=precision,
        workers=_fitting_workers(engine, entries, data, device, precision),
        threads=engine.cpus,
        folder=folder,
    )


def free_device_memory() -> int:
    """Free bytes of the GPU's memory."""
    import torch

    return torch.cuda.mem_get_info()[0]


def _fitting_workers(
    engine: Engine,
    entries: Sequence[Entry],
    data: DataSet,
    device: Device,
    precision: Precision,
) -> int:
    """The workers that are asked for, if they fit into memory; that of a cluster is Ray's to know."""
    wanted = engine.count(device)
    if engine.ray is not None:
        return wanted
    needs = memory_needs((entry.config for entry in entries), data, device, precision)
    tests = [evaluation_memory(entry.config, data.shape, TEST_IMAGES, device) for entry in entries]
    limits = [("memory", [n.host for n in needs], max(t.host for t in tests), available_memory())]
    if device == "cuda":
        once = max(test.device for test in tests)
        limits.append(("GPU memory", [n.device for n in needs], once, free_device_memory()))
    name, needs_of, once, free = min(limits, key=lambda limit: (limit[3] - limit[2]) / max(limit[1]))
    each = max(needs_of)
    fitting = max(free - once, 0) // each
    if wanted <= fitting:
        return wanted
    largest = entries[needs_of.index(each)]
    parameters = cost(largest.config.architecture, data.shape).parameters
    needed = (
        f"a training of {largest.name} ({parameters:,} parameters) takes about {megabytes(each)} of {name}, "
        f"and its test {megabytes(once)}; {megabytes(free)} are free"
    )
    if fitting < 1:
        raise Mc1optError(
            f"too little memory: {needed}. Close other programs, or use a machine with at least "
            f"{megabytes(each + once)} free; `mc1opt presets` lists smaller presets."
        )
    if engine.workers == "auto":
        return fitting
    raise UsageError(f"--workers {engine.workers} is too many: {needed}. Give --workers {fitting}.")


def entry_jobs(plan: Plan, entry: Entry) -> list[Job]:
    """An entry over its seeds on all training images, then over the folds with the first seed."""
    config, epochs = entry.config, entry.epochs
    weights = entry_folder(plan.folder, entry.name) / "weights" / plan.data.sha256[:8]
    seeds = {index: seed_value(index) for index in entry.seeds}
    finals = plan.final_jobs(entry.label, config, epochs, seeds, weights)
    return finals + plan.fold_jobs(entry.label, config, epochs, seed_value(0))


# ---- Training and testing --------------------------------------------------------------------------------


def run_presets(
    options: PresetsOptions,
    *,
    stop: StopFlag,
    output: TextIO,
    on_start: Callable[[], None] = lambda: None,
    new_pool: Callable[[int], Pool] | None = None,
    measure: Measure | None = None,
) -> Results:
    """Measures presets as the command line asks for it.

    Args:
        options: of the command.
        stop: set by signals; read only once `on_start` was called.
        output: where progress is shown.
        on_start: called before the first training begins.
        new_pool: makes the pool for a number of workers; None for that of the options.
        measure: see `run_final_test`.

    Returns:
        What is known, also where it was stopped; `stop` says why.

    Raises:
        Mc1optError: wrong use, or what went wrong; finished trainings are kept.
    """
    presets = chosen_presets(options.names, everything=options.everything)
    check_libraries()
    device = options.engine.find_device()  # a wrong option is said before images are fetched
    entries = [
        preset_entry(preset, options.recipe, seeds=options.seeds, epochs=options.epochs) for preset in presets
    ]
    plan = make_plan(
        entries,
        folds=options.folds or 0,
        data=find_data(options.data, output=output),
        device=device,
        engine=options.engine,
        folder=presets_folder(options.storage),
    )
    stop.limit(options.timeout)
    return measure_entries(
        entries,
        plan,
        stop=stop,
        write=lambda line: print(line, file=output, flush=True),
        on_start=on_start,
        new_pool=new_pool or functools.partial(options.engine.pool, device=device),
        measure=measure,
    )


def measure_entries(
    entries: Sequence[Entry],
    plan: Plan,
    *,
    stop: StopFlag,
    write: Callable[[str], None],
    on_start: Callable[[], None] = lambda: None,
    new_pool: Callable[[int], Pool] = ProcessPool,
    measure: Measure | None = None,
    on_result: Callable[[Entry, int, StoredTraining, float | None], None] = lambda *_: None,
) -> Results:
    """Trains and tests the jobs of entries that the plan's folder lacks.

    Args:
        entries: what is measured.
        plan: of these entries.
        stop: see `run_presets`.
        write: takes a line of progress.
        on_start: see `run_presets`.
        new_pool: see `run_presets`.
        measure: see `run_final_test`.
        on_result: takes the entry, the seed's index and the training of each seed, with its test accuracy, or
            None where its config made it fail; also of those that were stored before.

    Raises:
        UsageError: another process measures presets in the same folder.
        WorkerError: trainings failed that may go well at another time; the others are stored.
        DataError: the test images are missing or damaged.
        StorageError: a result cannot be stored.
    """
    by_label = {entry.label: entry for entry in entries}

    def on_trained(job: Job, stored: StoredTraining) -> None:
        if stored.key.fold is None:
            entry, accuracy = by_label[job.name], None
            if stored.failure is None:
                accuracy = _test(plan, entry, job, stored, measure)
                write(f"{job.label}: test accuracy {accuracy:.4f}")
            on_result(entry, job.seed, stored, accuracy)

    with exclusive(plan.folder, f"presets are being trained by another process, in {plan.folder}."):
        on_start()
        store = TrainingStore(plan.folder / TRAININGS)
        found = [(entry, *each) for entry in entries for each in _found(plan, entry, store)]
        for entry, job, stored, accuracy in found:
            if stored is not None and accuracy is not None:
                _delete_weights(job)
                on_result(entry, job.seed, stored, accuracy)
        missing = [job for _, job, _, accuracy in found if accuracy is None]
        left = sum(store.find(job.training) is None for job in missing)
        write(plan_line(entries, plan, stored=len(found) - left))
        with StoredTrainings(
            store,
            lambda: new_pool(plan.workers),
            stop,
            write,
            len(found),
            done=len(found) - len(missing),
        ) as trainings:
            if not trainings.train(missing, on_trained):
                write(trainings.stopped_line())
        return [
            (entry, measurement((s, accuracy) for _, s, accuracy in _found(plan, entry, store) if s))
            for entry in entries
        ]


def _found(
    plan: Plan, entry: Entry, store: TrainingStore
) -> list[tuple[Job, StoredTraining | None, float | None]]:
    """An entry's jobs, each with its stored training and test accuracy; None for what is missing."""
    accuracy_of = stored_accuracies(entry_folder(plan.folder, entry.name))
    found = []
    for job in entry_jobs(plan, entry):
        # The weights of a tested training were deleted.
        stored = store.find(job.training.model_copy(update={"weights": None}))
        found.append((job, stored, None if stored is None else accuracy_of(stored)))
    return found


def _test(plan: Plan, entry: Entry, job: Job, stored: StoredTraining, measure: Measure | None) -> float:
    """The accuracy of a training on the test images; its weights are deleted afterwards."""
    test = run_final_test(
        [(job, stored)],
        data=plan.data,
        reason=f"presets: {job.label}, {plural(entry.epochs, 'epoch')}",
        folder=entry_folder(plan.folder, entry.name),
        device=plan.device,
        write=lambda _line: None,  # said once, for all of them, before the start
        measure=measure,
    )
    _delete_weights(job)
    return test.by_seed[stored.key.seed]


def _delete_weights(job: Job) -> None:
    if job.training.weights is not None:
        delete(Path(job.training.weights))


def plan_line(entries: Sequence[Entry], plan: Plan, *, stored: int) -> str:
    """What is about to be trained."""
    names = ", ".join(entry.label for entry in entries)
    seeds = sum(len(entry.seeds) for entry in entries)
    parts = [f"{plural(seeds, 'training')} on all {plan.data.train_images:,} images"]
    if plan.folds:
        folds = len(entries) * plan.folds
        parts.append(f"{plural(folds, 'training')} in {plan.folds} folds")
    done = f" Of them stored already: {stored}." if stored else ""
    return (
        f"{names}: {', '.join(parts)}; {plural(plan.workers, 'worker')} on {plan.device} ({plan.precision})."
        f"{done} The test images are opened after each training on all images, which is recorded; nothing is "
        "chosen by them. Ctrl-C keeps every finished training."
    )
