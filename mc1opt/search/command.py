"""From the options of `run` to a running search: definition, data, device, workers, database, display."""

import contextlib
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TextIO

import optuna

from mc1opt.data.examine import serious_findings
from mc1opt.data.libraries import check_libraries
from mc1opt.data.named import NAMED
from mc1opt.data.sources import find_data
from mc1opt.database.opening import open_storage, try_server
from mc1opt.database.ownership import this_owner
from mc1opt.machine.resources import workers_in_memory
from mc1opt.search.definition import load_definition
from mc1opt.search.observers import Observer, SearchEnded
from mc1opt.search.pruning import make_pruner
from mc1opt.search.run import run_search
from mc1opt.search.sampling import make_sampler
from mc1opt.search.settings import (
    SearchCommand,
    check_train_images,
    check_until,
    search_settings,
)
from mc1opt.search.study import space_fingerprint
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
    """Runs a search with the options of the command line.

    Args:
        command: the options.
        stop: ends the search; ignored until the search has begun.
        output: receives messages before the search begins.
        on_start: called when the search begins, once data and database are open.
        trainer: "module:function" that the workers train with; tests replace it by a cheap one.
        display: shows the running search.
        observers: receive the events after the display.

    Raises:
        Mc1optError: wrong use, or a failure.
    """

    def write(line: str) -> None:
        print(line, file=output, flush=True)

    # Wrong use is an error before anything is downloaded or created.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    check_libraries()
    definition = load_definition(command.study)
    if not command.starting_points:
        definition = dataclasses.replace(definition, starting_points={})
    make_sampler(command.sampler or definition.sampler, 0, definition.grid)
    make_pruner(command.pruner or definition.pruner)
    check_until(command.until, definition.aim.metric)
    device = command.engine.find_device()
    workers = command.engine.count(device)
    if command.engine.ray is None and (fit := workers_in_memory()) < workers:
        write(
            f"Free memory is enough for about {fit} of {workers} workers. A worker that runs out of memory "
            f"is killed, and its trial fails: --workers {fit} is safer."
        )
    space_fingerprint(definition)  # fails here if the search space raises
    try_server(command.storage)
    data = find_data(
        command.data or definition.data_path,
        image_size=command.image_size,
        max_unreadable=command.max_unreadable,
        output=output,
    )
    definition = definition.on(data)
    if command.train_images is not None:
        check_train_images(f"--train-images {command.train_images}", command.train_images, data)
    # A study to begin from is in a database that there is.
    create = command.begin_from is None
    storage = open_storage(command.storage, create=create, owner=this_owner(), threads=workers)
    settings = search_settings(command, definition, data, device, storage)
    if not settings.is_stored and data.name not in NAMED:  # of named ones everything is known
        for finding in serious_findings(data):
            write(finding.line())
    on_start()
    pool = command.engine.pool(
        workers, device, trainer=trainer, max_training_seconds=command.max_trial_seconds
    )
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
