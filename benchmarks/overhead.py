"""mc1opt's own time between epochs as a share of a search, and how long `mc1opt --help` takes.

At the top of the repository:

    python -m benchmarks.overhead [--trials 100] [--epoch-seconds 2] [--real]

A real search of the study `cnn` runs with a SQLite file, plain progress lines and worker processes. What they
train is a stand-in whose epochs sleep and whose accuracies are made up, so that TPE and the pruner have
something to do and nothing but mc1opt's own time lies between the epochs; with `--real` it is mc1opt's
training on the real images. A worker's time is split, as its thread of the search sees it: the epochs
(training and validation, as `EpochResult.seconds` has them); reporting and pruning; what lies between two
trials; and what the worker needs beside its epochs (messages; with `--real` also opening images, building the
network, writing weights). Of the second and the third, the time in the database is given apart. The database
lies in the folder for temporary files (`TMPDIR`): a commit takes as long as its disk does.

Where epochs sleep, the cores are free for the main process; where they train, it takes time from the epochs
themselves, which no gap shows. Therefore its CPU time is printed, too: an upper bound of what it takes.

Not here: how fast training is (`throughput.py`), and how good a search is.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.common import add_results_option, append_result, machine_facts, machine_line, markdown_table
from benchmarks.search_clock import BETWEEN_EPOCHS, EPOCHS, PARTS, Clock, TimedPool, time_database
from mc1opt.data.sources import find_data
from mc1opt.database.opening import open_storage
from mc1opt.database.ownership import this_owner
from mc1opt.display.progress import PlainProgress
from mc1opt.machine.devices import resolve_precision
from mc1opt.search.definition import load_definition
from mc1opt.search.run import run_search
from mc1opt.search.settings import SearchSettings
from mc1opt.spec import EpochResult, Fidelity, Training
from mc1opt.workers.pool import Pool, ProcessPool
from tests.support.curves import curve, example_training

TARGET_SHARE = 0.02
"""mc1opt's own time, of the time from a worker's first proposal to the end of its last training."""
TARGET_HELP = (3.0, 0.25)
"""`mc1opt --help`: so many times an empty Python, and so many seconds."""
HELP_ROUNDS = 15
REAL_TRAINER, SLEEPING_TRAINER = "mc1opt.training.loop:train", "benchmarks.overhead:sleeping_train"
EPOCH_SECONDS_VARIABLE = "MC1OPT_BENCHMARK_EPOCH_SECONDS"


def sleeping_train(training: Training) -> Iterator[EpochResult]:
    """Stands in for training in a worker: epochs that sleep, with made-up accuracies."""
    for result in curve(training):
        started = time.monotonic()
        time.sleep(float(os.environ[EPOCH_SECONDS_VARIABLE]))
        yield result.model_copy(update={"seconds": time.monotonic() - started})


# ---- The search ------------------------------------------------------------------------------------------


def measure_search(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Runs a search in `folder`, and gives its figures, in seconds."""
    definition = load_definition("cnn")
    data = find_data()
    settings = SearchSettings(
        study="overhead",
        trials=options.trials,
        fidelity=Fidelity(train_images=options.images, epochs=options.epochs),
        seed=0,
        device="cpu",
        max_macs=definition.max_macs,
        precision=resolve_precision("cpu"),
        confirm=0,
    )
    workers = options.workers
    storage = open_storage(str(folder / "study.db"), create=True, owner=this_owner(), threads=workers)
    clock = Clock()
    time_database(storage, clock)
    os.environ[EPOCH_SECONDS_VARIABLE] = str(options.epoch_seconds)
    trainer = REAL_TRAINER if options.real else SLEEPING_TRAINER
    with ProcessPool(workers, trainer=trainer) as processes:
        start_up = start_workers(processes, example_training(epochs=1, data=data))
        pool = TimedPool(processes, clock)
        progress = PlainProgress(lambda line: print(line, file=sys.stderr, flush=True))
        started, cpu_started = time.monotonic(), time.process_time()
        run_search(definition, settings, storage, data, pool, observers=(progress,))
        wall, cpu = time.monotonic() - started, time.process_time() - cpu_started
    return {
        "workers": workers,
        "wall": wall,
        "start_up": start_up,
        "main_process_cpu": cpu,
        "trainings": pool.trainings,
        "epochs": pool.epochs,
        "seconds": {part: pool.seconds[part] for part in PARTS},
    }


def start_workers(pool: Pool, training: Training) -> float:
    """The seconds until all workers have imported torch and trained: paid once, however long the search."""
    started = time.monotonic()
    trainings = [training.model_copy(update={"seed": seed}) for seed in range(pool.size)]
    with ThreadPoolExecutor(pool.size) as threads:
        list(threads.map(lambda one: pool.train(one, lambda _: True), trainings))
    return time.monotonic() - started


def own_share(figures: dict[str, Any]) -> float:
    """mc1opt's own time as a share of a worker's time until the end of its last training."""
    total = sum(figures["seconds"].values())
    return 1.0 - figures["seconds"][EPOCHS] / total if total else 0.0


def search_report(figures: dict[str, Any]) -> str:
    """A table of the parts, and the share that has a target."""
    whole = figures["workers"] * figures["wall"]
    rows = []
    for part, name in PARTS.items():
        seconds = figures["seconds"][part]
        unit = "epochs" if part.startswith((EPOCHS, BETWEEN_EPOCHS)) else "trainings"
        each = f"{seconds / max(figures[unit], 1) * 1000:,.1f} ms"
        rows.append([name, f"{seconds:.2f}", f"{seconds / whole:.2%}", f"{each} ({unit})"])
    rest = whole - sum(figures["seconds"].values())
    rows.append(["before the first and after the last training", f"{rest:.2f}", f"{rest / whole:.2%}", ""])
    cpu = figures["main_process_cpu"]
    return (
        markdown_table(["part", f"s, {figures['workers']} workers", "of the search", "each"], rows)
        + f"\n\n**mc1opt's own time between epochs: {own_share(figures):.2%}** (target: under "
        f"{TARGET_SHARE:.0%}); with the search's beginning and end: "
        f"{1.0 - figures['seconds'][EPOCHS] / whole:.2%} of {figures['workers']} x {figures['wall']:.1f} s.\n"
        f"CPU time of the main process: {cpu:.2f} s, {cpu / whole:.2%}. "
        f"Start-up of the workers, once and not in the table: {figures['start_up']:.1f} s."
    )


# ---- The command line ------------------------------------------------------------------------------------


def measure_help() -> dict[str, list[float]]:
    """Seconds of `mc1opt --help` and of an empty Python, in turn; the first of each is not counted."""
    program = Path(sys.executable).with_name("mc1opt")
    commands = {"help": [str(program), "--help"], "empty": [sys.executable, "-c", "pass"]}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(HELP_ROUNDS + 1):
        for name, command in commands.items():
            started = time.monotonic()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.monotonic() - started)
    return {name: values[1:] for name, values in seconds.items()}


def help_report(seconds: dict[str, list[float]]) -> str:
    """The medians beside the target."""
    taken, empty = (statistics.median(seconds[name]) for name in ("help", "empty"))
    factor, constant = TARGET_HELP
    return (
        f"`mc1opt --help`: {taken:.3f} s; `python -c pass`: {empty:.3f} s (medians of {HELP_ROUNDS}). "
        f"Target: at most {factor:g} x + {constant:g} s = {factor * empty + constant:.3f} s."
    )


def main() -> None:
    """Measures both, prints them and adds a line to the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--epoch-seconds", type=float, default=2.0, help="of an epoch that sleeps")
    parser.add_argument("--real", action="store_true", help="train on the real images instead of sleeping")
    parser.add_argument("--images", type=int, default=20_000, help="training images, with --real")
    parser.add_argument("--workers", type=int, default=2)
    add_results_option(parser, "overhead")
    options = parser.parse_args()
    machine = machine_facts()
    what = f"{options.images:,} real images" if options.real else f"{options.epoch_seconds:g} s of sleep"
    print(
        f"{machine_line(machine)}\n{options.trials} trials of at most {options.epochs} epochs, each {what}.\n"
    )
    help_seconds = measure_help()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure_search(options, Path(folder))
    print(f"{search_report(figures)}\n\n{help_report(help_seconds)}")
    settings = {name: value for name, value in vars(options).items() if name != "results"}
    figures |= {"settings": settings, "own_share": own_share(figures), "help_seconds": help_seconds}
    append_result(options.results, machine, figures)


if __name__ == "__main__":
    main()
