"""From what a user asked for to a running search: definition, data, device, workers, database, display."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import optuna

from mc1opt.data.libraries import check_libraries
from mc1opt.data.sources import find_data
from mc1opt.database import records
from mc1opt.database.opening import open_storage
from mc1opt.database.ownership import this_owner
from mc1opt.database.storage import StudyStorage
from mc1opt.errors import UsageError
from mc1opt.machine.devices import resolve_device, resolve_precision
from mc1opt.machine.resources import WORKER_MEMORY, default_workers, workers_in_memory
from mc1opt.search.definition import StudyDefinition, load_definition
from mc1opt.search.observers import Observer, SearchEnded
from mc1opt.search.run import SearchSettings, run_search
from mc1opt.search.sampling import GRID_SAMPLER, grid_trials, make_pruner, make_sampler
from mc1opt.search.study import space_fingerprint
from mc1opt.spec import DataSet, Device, Fidelity
from mc1opt.workers.pool import ProcessPool
from mc1opt.workers.stop import StopFlag

MAX_WORKERS = 256


@dataclass(frozen=True)
class SearchCommand:
    """The options of `mc1opt run`; None is "as the study has it, else its definition's, else the default"."""

    study: str
    trials: int
    storage: str
    name: str | None = None
    epochs: int | None = None
    train_images: int | None = None
    seed: int | None = None
    timeout: float | None = None
    workers: str = "auto"
    device: str = "auto"
    sampler: str | None = None
    pruner: str | None = None
    max_macs: int | None = None
    max_failures: int = 10
    confirm: int = 3
    keep: int = 5
    max_trial_seconds: float | None = None
    """Of training; None is no limit."""
    data: Path | None = None


def search(
    command: SearchCommand,
    *,
    stop: StopFlag,
    output: TextIO,
    on_start: Callable[[], None] = lambda: None,
    trainer: str = "mc1opt.training.loop:train",
    display: AbstractContextManager[Observer] | None = None,
    observers: tuple[Observer, ...] = (),
) -> SearchEnded:
    """Runs a search as the command line asks for it.

    Args:
        command: the options.
        stop: signals set it; it is looked at only when the search has begun.
        output: where is said what happens before the search begins.
        on_start: called when the search begins, with images and database at hand.
        trainer: "module:function" that the workers train with; tests put a cheap one in its place.
        display: shows the search as it runs.
        observers: who is told what happens, behind the display.

    Raises:
        Mc1optError: wrong use, or what went wrong.
    """

    def write(line: str) -> None:
        print(line, file=output, flush=True)

    # What is wrong with the command is found before anything is fetched or made.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    check_libraries()
    definition = load_definition(command.study)
    make_sampler(command.sampler or definition.sampler, 0, definition.grid)
    make_pruner(command.pruner or definition.pruner)
    device = resolve_device(command.device)
    workers = resolve_workers(command.workers, device)
    if (fit := workers_in_memory()) < workers:
        write(
            f"Memory is free for about {fit} of {workers} workers. A worker that memory runs out for is "
            f"killed, and its trial fails: --workers {fit} is safer."
        )
    space_fingerprint(definition)  # draws from the search space, which may raise
    data = find_data(command.data, output=output)
    if command.train_images is not None:
        _check_train_images(f"--train-images {command.train_images}", command.train_images, data)
    storage = open_storage(command.storage, create=True, owner=this_owner(), threads=workers)
    settings = _settings(command, definition, data, device, storage)
    on_start()
    limit = command.max_trial_seconds
    pool = ProcessPool(workers, trainer=trainer, max_training_seconds=limit)
    with pool, display or contextlib.nullcontext(Observer()) as shown:
        return run_search(
            definition,
            settings,
            storage,
            data,
            pool,
            observers=(shown, *observers),
            stop=stop,
        )


def resolve_workers(text: str, device: Device, memory_each: int = WORKER_MEMORY) -> int:
    """How many trainings at once.

    Args:
        text: of `--workers`: a number, or auto.
        device: where they train.
        memory_each: bytes of the machine's memory that each takes, as far as it is known; it limits auto.

    Raises:
        UsageError: the text is neither a number of at least 1 nor "auto".
    """
    if text == "auto":
        return default_workers(device, memory_each)
    if not text.isdecimal() or not 1 <= int(text) <= MAX_WORKERS:
        raise UsageError(f"--workers {text!r}: give a number from 1 to {MAX_WORKERS}, or auto.")
    if device == "mps" and int(text) > 1:
        raise UsageError(f"--workers {text}: on mps one worker trains; give 1 or auto.")
    return int(text)


def _settings(
    command: SearchCommand,
    definition: StudyDefinition,
    data: DataSet,
    device: Device,
    storage: StudyStorage,
) -> SearchSettings:
    """The settings: what the command says, else what the study has, else what the definition says."""
    name = command.name or definition.name
    stored = {study.study_name: study.user_attrs for study in storage.get_all_studies()}.get(name, {})
    fidelity = Fidelity.model_validate(stored.get(records.FIDELITY) or definition.fidelity.model_dump())
    chosen = {"epochs": command.epochs, "train_images": command.train_images}
    fidelity = fidelity.model_copy(update={key: value for key, value in chosen.items() if value is not None})
    if stored:
        what = f"study {name!r} trains on {fidelity.train_images} images, which"
        _check_train_images(what, fidelity.train_images, data)
    elif command.train_images is None:
        most = min(fidelity.train_images, data.train_images - data.validation_images)
        fidelity = fidelity.model_copy(update={"train_images": most})
    sampler = command.sampler or stored.get(records.STUDY_SAMPLER) or definition.sampler
    trials = command.trials
    if sampler == GRID_SAMPLER:
        trials = min(trials, grid_trials(definition.grid, definition.starting_points.values()))
    return SearchSettings(
        study=name,
        trials=trials,
        fidelity=fidelity,
        seed=command.seed if command.seed is not None else stored.get(records.STUDY_SEED, 0),
        device=device,
        precision=resolve_precision(device),
        max_macs=command.max_macs or stored.get(records.STUDY_MAX_MACS) or definition.max_macs,
        timeout=command.timeout,
        sampler=sampler,
        pruner=command.pruner or stored.get(records.STUDY_PRUNER) or definition.pruner,
        max_failures=command.max_failures,
        confirm=command.confirm,
        keep=command.keep,
    )


def _check_train_images(what: str, wanted: int, data: DataSet) -> None:
    available = data.train_images - data.validation_images
    if wanted > available:
        raise UsageError(
            f"{what} is too many: {data.name} has {data.train_images} training images, of which "
            f"{data.validation_images} are kept for validation, so at most {available} are left."
        )
