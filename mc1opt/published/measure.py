"""Measuring the presets: trained over seeds and folds, each stored as it ends, and tested.

A training on all training images is tested as soon as it has ended, through the one function that opens the
test images; each opening is recorded. Nothing is chosen by what the tests say. What is stored is neither
trained nor tested again, so that the same command goes on where it was killed, to the same numbers. Not here:
which trainings (`mc1opt.published.plan`), and what they have given (`mc1opt.published.results`).
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from mc1opt.data.libraries import check_libraries
from mc1opt.data.sources import find_data
from mc1opt.errors import UsageError
from mc1opt.files import exclusive
from mc1opt.machine.devices import resolve_device, resolve_precision
from mc1opt.measurement.final_test import Final, Measure, run_final_test, stored_accuracies
from mc1opt.measurement.store import TRAININGS, StoredTraining, TrainingStore
from mc1opt.measurement.trainings import Job, StoredTrainings
from mc1opt.models.cost import cost
from mc1opt.presets import PRESETS, Preset, Recipe, get_preset
from mc1opt.published.plan import Entry, LadderJob, LadderPlan, entry_folder, make_plan, preset_entry
from mc1opt.published.results import Measurement, SeedResult, measurement, presets_folder
from mc1opt.search.settings import resolve_workers
from mc1opt.spec import Training
from mc1opt.text import duration, megabytes, plural
from mc1opt.workers.pool import Pool, ProcessPool
from mc1opt.workers.stop import StopFlag, StopReason

OVERHEAD_MACS = 2_000_000
"""What an image costs beside its multiply-accumulates, in their unit: it dominates in small networks."""

OnTested = Callable[[Entry, int, SeedResult], None]
"""Takes an entry, the seed (counted from 0), and what its test gave."""
OnFailed = Callable[[Entry, int, StoredTraining], None]
"""Takes an entry, the seed (counted from 0), and the training, which has no result."""


@dataclass(frozen=True)
class LadderCommand:
    """The options of `mc1opt presets run`."""

    names: tuple[str, ...]
    storage: str
    everything: bool = False
    """All presets, instead of names."""
    recipe: Recipe = "published"
    seeds: int = 3
    folds: int | None = None
    epochs: int | None = None
    """None for each preset's default."""
    timeout: float | None = None
    """Seconds."""
    workers: str = "auto"
    device: str = "auto"
    data: Path | None = None


@dataclass(frozen=True)
class LadderEnded:
    """How it ended, and what is known by then."""

    reason: StopReason
    message: str
    """Why it stopped, in words; empty if it did not."""
    seconds: float
    results: list[tuple[Entry, Measurement | None]]
    """In the order of the entries; None where nothing is trained yet."""


def run_presets(
    command: LadderCommand,
    *,
    stop: StopFlag,
    output: TextIO,
    on_start: Callable[[], None] = lambda: None,
    new_pool: Callable[[int], Pool] = ProcessPool,
    measure: Measure | None = None,
) -> LadderEnded:
    """Measures presets as the command line asks for it.

    Args:
        command: the options.
        stop: signals set it; it is looked at only when the first training begins.
        output: where progress is shown.
        on_start: called when that is about to happen.
        new_pool: makes the pool for a number of workers; tests put a cheap one in its place.
        measure: see `run_final_test`.

    Raises:
        Mc1optError: wrong use, or what went wrong; finished trainings are kept.
    """

    def write(line: str) -> None:
        print(line, file=output, flush=True)

    presets = chosen_presets(command.names, everything=command.everything)
    check_libraries()
    device = resolve_device(command.device)
    resolve_workers(command.workers, device)  # a wrong option is said before images are fetched
    entries = [
        preset_entry(preset, command.recipe, seeds=command.seeds, epochs=command.epochs) for preset in presets
    ]
    plan = make_plan(
        entries,
        folds=command.folds or 0,
        data=find_data(command.data, output=output),
        device=device,
        precision=resolve_precision(device),
        workers=command.workers,
        folder=presets_folder(command.storage),
    )
    with exclusive(plan.folder, busy_line(plan.folder)):
        on_start()
        return run_ladder(
            plan, stop=stop, write=write, timeout=command.timeout, new_pool=new_pool, measure=measure
        )


def busy_line(folder: Path) -> str:
    """For `exclusive`: what to tell people while another process trains presets in a folder."""
    return (
        f"presets are being trained by another process, in {folder}. When it has ended, the same command "
        "goes on from what it has stored."
    )


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


def run_ladder(
    plan: LadderPlan,
    *,
    stop: StopFlag,
    write: Callable[[str], None],
    timeout: float | None = None,
    new_pool: Callable[[int], Pool] = ProcessPool,
    measure: Measure | None = None,
    on_tested: OnTested = lambda _entry, _seed, _result: None,
    on_failed: OnFailed = lambda _entry, _seed, _stored: None,
) -> LadderEnded:
    """Trains and tests what a plan has and its folder lacks. One process at a time: see `exclusive`.

    Args:
        plan: which trainings.
        stop: lets others end it, in good order.
        write: takes a line of progress.
        timeout: seconds after which it ends.
        new_pool: see `run_presets`.
        measure: see `run_final_test`.
        on_tested: told of each tested seed, also of those that were tested before.
        on_failed: likewise of each seed whose training failed by its config, as one that diverges.

    Raises:
        WorkerError: trainings failed that may go well at another time; the others are stored.
        DataError: the test images are missing or damaged.
        StorageError: a result cannot be stored.
    """
    return _Ladder(plan, stop, write, new_pool, measure, on_tested, on_failed).run(timeout)


@dataclass
class _LadderTrainings(StoredTrainings):
    """Says the time left by multiply-accumulates: an epoch of one preset costs hundreds of another's."""

    missing: Sequence[Job] = ()
    """What shall be trained."""

    def seconds_left(self) -> float | None:
        """How long the rest will take, at the pace so far; None before the first epoch."""
        with self._lock:
            started = self._epochs[0] if self._epochs else None
            restored = sum(
                _price(job) * _share(job, self._restored.get(job.label, 0)) for job in self.missing
            )
            trained = sum(_price(entry.job) * _share(entry.job, entry.epochs) for entry in self._running)
        ended = (job for job in self.missing if self.store.find(_without_weights(job)) is not None)
        trained += sum(_price(job) for job in ended)
        now = trained - restored  # an epoch from a checkpoint took no time
        if started is None or now <= 0.0:
            return None
        left = sum(_price(job) for job in self.missing) - trained
        return max(0.0, (time.monotonic() - started) / now * left)


@dataclass
class _Ladder:
    plan: LadderPlan
    stop: StopFlag
    write: Callable[[str], None]
    new_pool: Callable[[int], Pool]
    measure: Measure | None
    on_tested: OnTested
    on_failed: OnFailed
    tested: dict[str, dict[int, SeedResult]] = field(default_factory=dict)
    """By label of the entry, and seed."""
    others: dict[str, list[StoredTraining]] = field(default_factory=dict)
    """Folds and failures, by label of the entry."""

    def run(self, timeout: float | None) -> LadderEnded:
        started = time.monotonic()
        self.stop.limit(timeout)
        store = TrainingStore(self.plan.folder / TRAININGS)
        names = {entry.name for entry in self.plan.entries}
        accuracy_of = {name: stored_accuracies(entry_folder(self.plan.folder, name)) for name in names}
        jobs = self.plan.jobs()
        missing = [job for job in jobs if not self._was_tested(job, store, accuracy_of[job.entry.name])]
        to_train = [job for job in missing if store.find(job.training) is None]
        self.write(plan_line(self.plan, stored=len(jobs) - len(to_train)))
        with _LadderTrainings(
            store,
            lambda: self.new_pool(self.plan.workers),
            self.stop,
            self.write,
            total=len(jobs),
            done=len(jobs) - len(missing),
            missing=to_train,
        ) as trainings:
            trainings.train(missing, self._on_result)
        return LadderEnded(
            self.stop.reason,
            self.stop.message,
            time.monotonic() - started,
            [(entry, self._measurement(entry)) for entry in self.plan.entries],
        )

    def _was_tested(
        self, job: LadderJob, store: TrainingStore, accuracy_of: Callable[[StoredTraining], float | None]
    ) -> bool:
        """Takes the result of a training that was tested before; its weights are no longer needed then."""
        stored = store.find(_without_weights(job))
        accuracy = None if stored is None else accuracy_of(stored)
        if stored is None or accuracy is None:
            return False
        self._add(job, SeedResult(stored, accuracy))
        _delete_weights(job)
        return True

    def _on_result(self, job: Job, stored: StoredTraining) -> None:
        assert isinstance(job, LadderJob)
        if stored.failure is not None or stored.key.fold is not None:
            self.others.setdefault(job.entry.label, []).append(stored)
            if stored.failure is not None and stored.key.fold is None:
                self.on_failed(job.entry, job.seed, stored)
            return
        assert job.training.weights is not None
        test = run_final_test(
            [Final(stored, Path(job.training.weights), job.entry.config)],
            data=self.plan.data,
            reason=f"presets: {job.label}, {plural(job.entry.epochs, 'epoch')}",
            folder=entry_folder(self.plan.folder, job.entry.name),
            device=self.plan.device,
            write=lambda _line: None,  # said once, for all of them, before the start
            measure=self.measure,
        )
        result = SeedResult(stored, test.by_seed[stored.key.seed])
        self.write(f"{job.label}: test accuracy {result.accuracy:.4f}")
        self._add(job, result)
        _delete_weights(job)

    def _add(self, job: LadderJob, result: SeedResult) -> None:
        self.tested.setdefault(job.entry.label, {})[job.seed] = result
        self.on_tested(job.entry, job.seed, result)

    def _measurement(self, entry: Entry) -> Measurement | None:
        by_seed = sorted(self.tested.get(entry.label, {}).items())
        return measurement([result for _, result in by_seed], self.others.get(entry.label, []))


def plan_line(plan: LadderPlan, *, stored: int) -> str:
    """What is about to be trained, before it is."""
    names = ", ".join(entry.label for entry in plan.entries)
    seeds = sum(len(entry.seeds) for entry in plan.entries)
    folds = len(plan.entries) * plan.folds
    parts = [f"{plural(seeds, 'training')} on all {plan.data.train_images:,} images"]
    if folds:
        parts.append(f"{plural(folds, 'training')} in {plan.folds} folds")
    done = f" Of them stored already: {stored}." if stored else ""
    return (
        f"{names}: {', '.join(parts)}; {plural(plan.workers, 'worker')} on {plan.device} ({plan.precision}), "
        f"at most about {megabytes(plan.memory_each)} each.{done} The test images are opened after each "
        "training on all images, which is recorded; nothing is chosen by them. Ctrl-C keeps every finished "
        "training."
    )


def stopped_line(ended: LadderEnded) -> str:
    """Why it stopped before its end; empty if it did not."""
    if ended.reason == "finished":
        return ""
    why = {"timeout": "because the time is up", "signal": f"by {ended.message}"}
    return (
        f"Stopped {why.get(ended.reason, ended.message)}, after {duration(ended.seconds)}. Finished "
        "trainings are stored."
    )


def _delete_weights(job: LadderJob) -> None:
    """Deletes weights that are tested; a file that cannot be deleted costs disk, not results."""
    if job.training.weights is not None:
        with contextlib.suppress(OSError):
            Path(job.training.weights).unlink(missing_ok=True)


def _without_weights(job: Job) -> Training:
    return job.training.model_copy(update={"weights": None})


def _price(job: Job) -> float:
    training = job.training
    macs = cost(training.config.architecture).macs + OVERHEAD_MACS
    return float(macs * training.fidelity.train_images * training.fidelity.epochs)


def _share(job: Job, epochs: int) -> float:
    return epochs / job.training.fidelity.epochs
