"""What a search costs beside its trainings: with 1 to 8 workers on three engines, and in large studies.

At the top of the repository:

    python -m benchmarks.scale engines    local processes, PostgreSQL and Ray; epochs sleep for a second
    python -m benchmarks.scale growth     what the next trial costs after 100, 1,000, 10,000; to show all
    python -m benchmarks.scale saturation asks, reports and tells that a study database takes in a second

`engines` runs real searches, whose trainings are a stand-in: made-up accuracies, epochs that sleep. The
overhead an epoch is what the search's threads wait for an epoch, from the end of the one before, less what
the epoch says it took. PostgreSQL's server is started here, as is a Ray cluster of this machine. `growth`
fills a database with trials as a search stores them, then searches on with trainings that take no time.
In `saturation` whole searches have such trainings, one process on a SQLite file or several on PostgreSQL, and
random draws: what they manage in a second is what the database and its processes can at most. Workers whose
epochs take a minute end a sixtieth of an epoch in a second each.
"""

import argparse
import contextlib
import functools
import multiprocessing
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from benchmarks.common import add_results_option, append_result, machine_facts, machine_line, markdown_table
from benchmarks.overhead import EPOCH_SECONDS_VARIABLE, SLEEPING_TRAINER, start_workers
from benchmarks.search_clock import BETWEEN_TRIALS, DATABASE, EPOCHS, Clock, TimedPool, time_database
from mc1opt.data.sources import find_data
from mc1opt.database import records
from mc1opt.database.opening import open_storage
from mc1opt.database.ownership import this_owner
from mc1opt.files import read_lines
from mc1opt.search.definition import load_definition
from mc1opt.search.run import run_search
from mc1opt.search.sampling import SeededSampler
from mc1opt.search.settings import SearchSettings
from mc1opt.spec import Fidelity
from mc1opt.workers.engine import Engine
from tests.support.curves import CurvePool, example_training
from tests.support.postgresql import new_database, new_server

ENGINES = ("local", "postgresql", "ray")
WORKERS = (1, 2, 4, 8)
TRIALS_A_WORKER = 6
EPOCH_SECONDS = 1.0
SIZES = (100, 1_000, 10_000)
MORE = 20
"""Trials after those that are there."""
SAMPLERS = ("local", "tpe", "random")
CREWS = (
    *(("sqlite", 1, workers) for workers in (1, 8, 32, 128, 1_000)),
    *(("postgresql", processes, 8) for processes in (1, 2, 4)),
)
"""Database, processes and workers of each, for `saturation`."""
LEAST_TRIALS = 200
"""Of a search for `saturation`; at least one a worker."""
MINUTE = 60.0
"""Seconds of an epoch of the workers that a database could serve."""


def settings(study: str, trials: int, sampler: str = "random") -> SearchSettings:
    """Of a search on learning curves."""
    return SearchSettings(
        study=study,
        trials=trials,
        fidelity=Fidelity(train_images=20_000, epochs=4),
        seed=0,
        device="cpu",
        max_macs=load_definition("cnn").max_macs,
        sampler=sampler,
        confirm=0,
    )


# ---- Engines ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def database(engine: str, folder: Path) -> Iterator[str]:
    """A new database for a search on this engine: PostgreSQL, or a SQLite file."""
    if engine != "postgresql":
        yield str(folder / "study.db")
        return
    with new_server() as server:
        yield new_database(server.url)


def measure_engine(engine: str, workers: int) -> dict[str, Any]:
    """A search of six trials a worker."""
    os.environ[EPOCH_SECONDS_VARIABLE] = str(EPOCH_SECONDS)
    trials = TRIALS_A_WORKER * workers
    with tempfile.TemporaryDirectory() as folder, database(engine, Path(folder)) as path:
        storage = open_storage(path, create=True, owner=this_owner(), threads=workers)
        clock = Clock()
        time_database(storage, clock)
        made = Engine(str(workers), "cpu", ray="local" if engine == "ray" else None)
        made.find_device()
        with made.pool(workers, "cpu", trainer=SLEEPING_TRAINER) as processes:
            start_workers(processes, example_training(epochs=1, data=find_data()))
            pool = TimedPool(processes, clock)
            started, cpu = time.monotonic(), time.process_time()
            run_search(load_definition("cnn"), settings("s", trials), storage, find_data(), pool)
            wall, cpu = time.monotonic() - started, time.process_time() - cpu
    seconds = pool.seconds
    return {
        "engine": engine,
        "workers": workers,
        "trials_an_hour": 3600.0 * trials / wall,
        "driver_cpu_a_trial": cpu / trials,
        "epochs": pool.epochs,
        "overhead_an_epoch": (sum(seconds.values()) - seconds[EPOCHS]) / pool.epochs,
        "between_trials": (seconds[BETWEEN_TRIALS] + seconds[BETWEEN_TRIALS + DATABASE]) / pool.trainings,
    }


def engines_table(lines: list[dict[str, Any]]) -> str:
    """A row for each engine and number of workers: medians over repetitions."""
    rows = []
    for engine in ENGINES:
        for workers in WORKERS:
            found = [line for line in lines if (line["engine"], line["workers"]) == (engine, workers)]
            if found:
                trials, cpu, epoch, between = (
                    statistics.median(line[key] for line in found)
                    for key in ("trials_an_hour", "driver_cpu_a_trial", "overhead_an_epoch", "between_trials")
                )
                figures = [f"{trials:,.0f}", f"{1e3 * cpu:.0f}", f"{1e3 * epoch:.0f}", f"{1e3 * between:.0f}"]
                rows.append([engine, str(workers), *figures, str(len(found))])
    header = ["engine", "workers", "trials an hour", "driver's CPU, ms a trial", "beside an epoch, ms"]
    return markdown_table([*header, "between trials, ms", "searches"], rows)


# ---- Growth ----------------------------------------------------------------------------------------------


def filled(path: str, trials: int) -> int:
    """Fills a new study with so many trials, as a search of learning curves leaves them; how many count."""
    storage = open_storage(path, create=True, owner=this_owner(), threads=1)
    run_search(load_definition("cnn"), settings("s", SIZES[0] // 2), storage, find_data(), CurvePool(1))
    copy_trials(path, trials)
    study = optuna.load_study(study_name="s", storage=open_storage(path, create=False))
    return sum(map(records.is_counted, study.get_trials(deepcopy=False)))


def copy_trials(path: str, trials: int) -> None:
    """Copies the trials of a SQLite file's only study until there are so many.

    By SQL, in one commit: Optuna's `add_trials` takes many minutes for 10,000 on a busy disk.
    """
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        (there, first), *_ = database.execute("SELECT COUNT(*), MIN(trial_id) FROM trials")
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            keys = {name: key for _, name, *_, key in database.execute(f"PRAGMA table_info({table})")}
            if "trial_id" not in keys:
                continue
            kept = [name for name, key in keys.items() if not key or name == "trial_id"]
            shifted = {"trial_id", "number"} if table == "trials" else {"trial_id"}
            values = ", ".join(f"{name} + :by" if name in shifted else name for name in kept)
            for by in range(there, trials, there):
                database.execute(
                    f"INSERT INTO {table} ({', '.join(kept)}) SELECT {values} FROM {table} "
                    "WHERE trial_id >= :first AND trial_id < :first + :count",
                    {"by": by, "first": first, "count": min(there, trials - by)},
                )


def measure_growth(trials: int, sampler: str) -> dict[str, Any]:
    """What the next trials of a study cost, and to show all of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "study.db")
        counted = filled(path, trials)
        show = [
            str(Path(sys.executable).with_name("mc1opt")),
            "show",
            "--study",
            "s",
            "--storage",
            path,
            "--json",
        ]
        started = time.monotonic()
        subprocess.run(show, check=True, stdout=subprocess.DEVNULL)
        show_seconds = time.monotonic() - started
        storage = open_storage(path, create=False, owner=this_owner(), threads=1)
        clock = Clock()
        time_database(storage, clock)
        pool = TimedPool(CurvePool(1), clock)
        with timed_draws() as draws:
            wanted = settings("s", counted + MORE, sampler)
            run_search(load_definition("cnn"), wanted, storage, find_data(), pool)
    return {
        "trials": trials,
        "sampler": sampler,
        "milliseconds_a_trial": {
            part: round(1e3 * seconds / pool.trainings, 2) for part, seconds in pool.seconds.items()
        },
        "cpu_milliseconds": round(1e3 * sum(pool.cpu_seconds.values()) / pool.trainings, 2),
        "draw_milliseconds": round(1e3 * sum(draws) / pool.trainings, 2),
        "show_seconds": round(show_seconds, 2),
    }


@contextlib.contextmanager
def timed_draws() -> Iterator[list[float]]:
    """The seconds of each call in which a sampler draws a whole proposal or a parameter."""
    seconds: list[float] = []
    names = ("infer_relative_search_space", "sample_relative", "sample_independent")
    before = {name: getattr(SeededSampler, name) for name in names}

    def timed(draw: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            started = time.monotonic()
            try:
                return draw(*arguments)
            finally:
                seconds.append(time.monotonic() - started)

        return call

    for name, draw in before.items():
        setattr(SeededSampler, name, timed(draw))
    try:
        yield seconds
    finally:
        for name, draw in before.items():
            setattr(SeededSampler, name, draw)


def _growth(line: dict[str, Any]) -> tuple[float, float, float, float, float]:
    """Milliseconds of draws, of the database, of the rest and of CPU time a trial; seconds of `show`."""
    parts, draw = line["milliseconds_a_trial"], line["draw_milliseconds"]
    stored = sum(milliseconds for part, milliseconds in parts.items() if DATABASE in part)
    rest = sum(parts.values()) - draw - stored
    return draw, stored, rest, line["cpu_milliseconds"], line["show_seconds"]


def growth_table(lines: list[dict[str, Any]]) -> str:
    """A row for each sampler and size: medians over repetitions."""
    rows = []
    for sampler in SAMPLERS:
        for trials in SIZES:
            found = [line for line in lines if (line["sampler"], line["trials"]) == (sampler, trials)]
            if not found:
                continue
            *parts, show = map(statistics.median, zip(*map(_growth, found), strict=True))
            figures = [*(f"{part:,.0f}" for part in parts), f"{show:.1f}"]
            rows.append([sampler, f"{trials:,}", *figures, str(len(found))])
    header = ["sampler", "trials", "draw, ms a trial", "database, ms", "the rest, ms", "CPU, ms a trial"]
    return markdown_table([*header, "show, s", "studies"], rows)


# ---- Saturation ------------------------------------------------------------------------------------------


def join_search(path: str, workers: int, trials: int, cpu: "SimpleQueue[float]") -> None:
    """Searches in a study that others may search in, with trainings that take no time; tells its CPU time."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_storage(path, create=True, owner=this_owner(), threads=workers)
    started = time.process_time()
    run_search(load_definition("cnn"), settings("s", trials), storage, find_data(), CurvePool(workers))
    cpu.put(time.process_time() - started)


def measure_saturation(engine: str, processes: int, workers: int) -> dict[str, Any]:
    """What so many processes, with so many workers each, make of one study in a second."""
    trials = max(LEAST_TRIALS, processes * workers)
    with tempfile.TemporaryDirectory() as folder, database(engine, Path(folder)) as path:
        storage = open_storage(path, create=True, owner=this_owner(), threads=1)
        spawn = multiprocessing.get_context("spawn")
        cpu: SimpleQueue[float] = spawn.SimpleQueue()
        crew = [
            spawn.Process(target=join_search, args=(path, workers, trials, cpu)) for _ in range(processes)
        ]
        for process in crew:
            process.start()
        for process in crew:
            process.join()
        if any(process.exitcode for process in crew):
            raise RuntimeError(f"exit codes {[process.exitcode for process in crew]}")
        study = optuna.load_study(study_name="s", storage=storage)
        return {
            "engine": engine,
            "processes": processes,
            "workers": workers,
            "cpu_a_trial": sum(cpu.get() for _ in crew) / trials,
            **rates(study.get_trials(deepcopy=False)),
        }


def rates(trials: list[FrozenTrial]) -> dict[str, Any]:
    """Asks, tells and reports in a second, while all processes search: until the first has told its last."""
    times: dict[int, list[FrozenTrial]] = {}
    for trial in trials:
        if trial.state.is_finished():
            times.setdefault(trial.user_attrs[records.OWNER]["pid"], []).append(trial)
    begin = max(min(trial.datetime_start for trial in own if trial.datetime_start) for own in times.values())
    end = min(
        max(trial.datetime_complete for trial in own if trial.datetime_complete) for own in times.values()
    )
    within = [trial for trial in trials if trial.datetime_complete and begin < trial.datetime_complete <= end]
    seconds, counted = (end - begin).total_seconds(), sum(map(records.is_counted, within))
    epochs = sum(len(trial.intermediate_values) for trial in within)
    return {
        "seconds": seconds,
        "asked": len(within) / seconds,
        "trials": counted / seconds,
        "epochs": epochs / seconds,
        "epochs_a_trial": epochs / counted,
    }


def saturation_table(lines: list[dict[str, Any]]) -> str:
    """A row for each crew: medians over repetitions, and workers with epochs of a minute as many would be."""
    rows = []
    for crew in CREWS:
        found = [line for line in lines if (line["engine"], line["processes"], line["workers"]) == crew]
        if found:
            asked, trials, epochs, cpu = (
                statistics.median(line[name] for line in found)
                for name in ("asked", "trials", "epochs", "cpu_a_trial")
            )
            figures = [f"{asked:.1f}", f"{trials:.1f}", f"{epochs:.1f}", f"{MINUTE * epochs:,.0f}"]
            figures += [f"{1e3 * cpu:.0f}", str(len(found))]
            rows.append([crew[0], str(crew[1]), f"{crew[2]:,}", *figures])
    header = ["database", "processes", "workers of each", "asks a second", "trials told a second"]
    header += ["epochs reported a second", "workers at 60 s an epoch", "CPU, ms a trial"]
    return markdown_table([*header, "searches"], rows)


TABLES = {"engines": engines_table, "growth": growth_table, "saturation": saturation_table}


def main() -> None:
    """Measures, and prints the table of all that was measured on this commit's machine."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_results_option(parser, "scale")
    parser.add_argument("what", choices=TABLES)
    parser.add_argument("--engine", choices=ENGINES, action="append")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), action="append")
    parser.add_argument("--workers", type=int, action="append")
    parser.add_argument("--trials", type=int, choices=SIZES, action="append")
    parser.add_argument("--sampler", choices=SAMPLERS, action="append")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    machine = machine_facts()
    if options.what == "engines":
        work = [
            functools.partial(measure_engine, engine, workers)
            for workers in options.workers or WORKERS
            for engine in options.engine or ENGINES
        ]
    elif options.what == "saturation":
        work = [
            functools.partial(measure_saturation, *crew)
            for crew in CREWS
            if crew[0] in (options.database or ("sqlite", "postgresql"))
            and crew[2] in (options.workers or {workers for _, _, workers in CREWS})
        ]
    else:
        work = [
            functools.partial(measure_growth, trials, sampler)
            for trials in options.trials or SIZES
            for sampler in options.sampler or SAMPLERS
        ]
    for measure in work:
        append_result(options.results, machine, {"what": options.what, **measure()})
    lines = [line for line in read_lines(options.results) if line["what"] == options.what]
    print(machine_line(machine))
    print(TABLES[options.what](lines))


if __name__ == "__main__":
    main()
