"""From what a user asked for to a running search: definition, data, device, workers, database, display."""

import contextlib
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TextIO

import optuna

from mc1opt.data.libraries import check_libraries
from mc1opt.data.sources import find_data
from mc1opt.database.opening import open_storage
from mc1opt.database.ownership import this_owner
from mc1opt.machine.devices import resolve_device
from mc1opt.machine.resources import workers_in_memory
from mc1opt.search.definition import load_definition
from mc1opt.search.observers import Observer, SearchEnded
from mc1opt.search.run import run_search
from mc1opt.search.sampling import make_pruner, make_sampler
from mc1opt.search.settings import SearchCommand, check_train_images, resolve_workers, search_settings
from mc1opt.search.study import space_fingerprint
from mc1opt.workers.pool import ProcessPool
from mc1opt.workers.stop import StopFlag


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
    if not command.starting_points:
        definition = dataclasses.replace(definition, starting_points={})
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
        check_train_images(f"--train-images {command.train_images}", command.train_images, data)
    storage = open_storage(command.storage, create=True, owner=this_owner(), threads=workers)
    settings = search_settings(command, definition, data, device, storage)
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
