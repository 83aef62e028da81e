"""The race: mc1opt against what people do without it, on the same machine, search space, images and time.

At the top of the repository:

    python -m benchmarks.race                        trains what is missing, one search after the other
    python -m benchmarks.race --arm a e              these arms alone
    python -m benchmarks.race --minutes 1 --results FILE --output FOLDER      to try it out
    python -m benchmarks.race --report               only writes RACE.md, RACE.svg and RACE.csv

An arm is a way to search; `ARMS` has all. Each searches the study `cnn`, as a command of its own with 2
worker processes of one thread, for `--minutes` of wall clock from the start of the command: importing torch
counts, fetching the images does not. A trial counts once it has trained all epochs of mc1opt's default
fidelity, 5 epochs of 18,000 images. It validates on images that are not trained on: the tutorial's training
on 5,000 of them, mc1opt's after its last epoch on these and 22,000 more. The best config is then trained
twice again, with new seeds and by its arm's own training, and validates on the 5,000 that are held out from
all searches. The test images stay closed.

A finished search adds a line to `benchmarks/results/race.jsonl`, and is not searched again; one that was
stopped begins anew. The machine must be quiet. Not here: how the peers search (`race_peers.py`) and train
(`tutorial.py`), and the text of the report (`race_report.py`).
"""

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FixedTrial, TrialState

from benchmarks.common import RESULTS, add_results_option, append_result, machine_facts, machine_line
from benchmarks.race_peers import (
    DEFINITION,
    RAY_TRIALS,
    STUDY,
    journal,
    race_fidelity,
    race_training,
)
from benchmarks.race_report import write_report
from mc1opt.config import config_id
from mc1opt.data.sources import find_data
from mc1opt.database.records import OUTCOME
from mc1opt.dataset import DataSet
from mc1opt.describe import describe_config
from mc1opt.errors import Mc1optError, WorkerError
from mc1opt.files import read_lines
from mc1opt.paths import user_path
from mc1opt.seeds import derive_seed
from mc1opt.spec import Fidelity, TrainingFailed
from mc1opt.workers.pool import ProcessPool
from mc1opt.workers.train import train

ROOT = Path(__file__).parents[1]
MINUTES, REPETITIONS, WORKERS = 30.0, 3, 2
CONFIRMATIONS = 2
"""Trainings of the best config with new seeds."""
LATEST_SECONDS = 300.0
"""By how much a search may be late at its own end, beyond which something is wrong."""
TUTORIAL_TRAINER, OWN_TRAINER = "benchmarks.tutorial:train", "mc1opt.training.loop:train"


@dataclass(frozen=True)
class Arm:
    """A way to search."""

    search: Literal["optuna", "ray", "mc1opt"]
    trainer: str
    options: tuple[str, ...] = ()
    """Of `mc1opt run`."""
    starting_points: bool = False


RANDOM = ("--sampler", "random", "--pruner", "none")
ARMS = {
    "a": Arm("optuna", TUTORIAL_TRAINER),
    "b": Arm("ray", TUTORIAL_TRAINER),
    "c": Arm("mc1opt", OWN_TRAINER, RANDOM),
    "d": Arm("optuna", OWN_TRAINER),
    "e": Arm("mc1opt", OWN_TRAINER),
    "c+": Arm("mc1opt", OWN_TRAINER, RANDOM, starting_points=True),
    "d+": Arm("optuna", OWN_TRAINER, starting_points=True),
    "e+": Arm("mc1opt", OWN_TRAINER, starting_points=True),
}


# ---- What a search leaves --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """A trial that has ended."""

    seconds: float
    """Since the start of the search's command."""
    outcome: str
    value: float | None
    """Validation accuracy after the last epoch; None if it did not get there."""
    params: dict[str, Any]


def trials_of_study(storage: BaseStorage | str, started: float) -> list[Ended]:
    """The ended trials of an Optuna study, which mc1opt's are as well; `started`: Unix time."""
    start = datetime.fromtimestamp(started)  # naive and local, as Optuna's are
    return [
        Ended(
            seconds=(trial.datetime_complete - start).total_seconds(),
            outcome=trial.user_attrs.get(OUTCOME, trial.state.name.lower()),
            value=trial.value if trial.state == TrialState.COMPLETE else None,
            params=trial.params,
        )
        for trial in optuna.load_study(study_name=STUDY, storage=storage).get_trials(deepcopy=False)
        if trial.datetime_complete is not None
    ]


def trials_of_ray(path: Path, started: float) -> list[Ended]:
    """The ended trials of a Ray Tune search; `started`: Unix time."""
    return [
        Ended(
            seconds=line["ended"] - started,
            outcome=line["outcome"],
            value=line["value"] if line["outcome"] == "complete" else None,
            params=line["params"],
        )
        for line in read_lines(path)
    ]


def search_figures(ended: Sequence[Ended], seconds: float) -> dict[str, Any]:
    """What a search found within its time: trial counts, best value over time, the best trial."""
    in_time = sorted((trial for trial in ended if trial.seconds <= seconds), key=lambda trial: trial.seconds)
    best: Ended | None = None
    trace = []
    for trial in in_time:
        if trial.value is not None and (best is None or best.value is None or trial.value > best.value):
            best = trial
            trace.append([round(trial.seconds, 1), trial.value])
    found = None
    if best is not None:
        config = DEFINITION.config(FixedTrial(best.params))
        summary = describe_config(config)
        found = {"config_id": config_id(config), "summary": summary, "params": best.params}
    return {"trials": Counter(trial.outcome for trial in in_time), "trace": trace, "best": found}


# ---- Searching -------------------------------------------------------------------------------------------


def commands(
    arm: Arm, folder: Path, seed: int, until: float, fidelity: Fidelity, images: Path | None
) -> Iterator[list[str]]:
    """The commands of a search, which run side by side; `images`: other ones than CIFAR-10."""
    data = [] if images is None else ["--data", str(images)]
    if arm.search == "mc1opt":
        run = ["run", "--study", "cnn", "--name", STUDY, "--storage", str(folder / "study.db")]
        run += ["--seed", str(seed), "--trials", "100000", "--timeout", f"{until - time.time():.1f}s"]
        run += ["--workers", str(WORKERS), "--device", "cpu", "--confirm", "0", "--wandb", "off"]
        run += ["--train-images", str(fidelity.train_images)]
        start = "--starting-points" if arm.starting_points else "--no-starting-points"
        yield [str(Path(sys.executable).with_name("mc1opt")), *run, start, *arm.options, *data]
        return
    for process in range(WORKERS if arm.search == "optuna" else 1):
        own_seed = derive_seed("race", seed, process)
        peers = [arm.search, str(folder), "--trainer", arm.trainer, "--seed", str(own_seed)]
        yield [sys.executable, "-m", "benchmarks.race_peers", *peers, "--until", str(until), *data]


def search(
    arm: Arm, folder: Path, seed: int, seconds: float, fidelity: Fidelity, images: Path | None
) -> list[Ended]:
    """Searches for so many seconds, and gives the trials that have ended.

    Raises:
        WorkerError: a command failed.
    """
    started = time.time()
    until = started + seconds
    if arm.search == "optuna":
        study = optuna.create_study(study_name=STUDY, storage=journal(folder), direction="maximize")
        for point in DEFINITION.starting_points.values() if arm.starting_points else ():
            study.enqueue_trial(dict(point))
    log = folder / "log.txt"
    # As mc1opt's workers are started: one thread each. Ray would give its own a lower priority (nice 15).
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment = os.environ | threads | {"PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"}
    processes = []
    try:
        with log.open("w") as output:
            for command in commands(arm, folder, seed, until, fidelity, images):
                processes.append(
                    subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
                )
        for process in processes:
            _wait(process, arm, until, log)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if arm.search == "ray":
        return trials_of_ray(folder / RAY_TRIALS, started)
    return trials_of_study(
        journal(folder) if arm.search == "optuna" else f"sqlite:///{folder / 'study.db'}", started
    )


def _wait(process: "subprocess.Popen[bytes]", arm: Arm, until: float, log: Path) -> None:
    """Waits for a search's process; Optuna's, which would finish its trial first, is left when time is up."""
    late = 0.0 if arm.search == "optuna" else LATEST_SECONDS
    try:
        code = process.wait(max(0.0, until + late - time.time()))
    except subprocess.TimeoutExpired:
        code = 0 if arm.search == "optuna" else -1
    if code:
        end = "\n".join(log.read_text().splitlines()[-20:])
        raise WorkerError(f"a search has failed (exit code {code}); the end of its output:\n{end}")


def confirm(arm: Arm, params: dict[str, Any], data: DataSet, seed: int) -> list[float | None]:
    """The accuracies of a config, trained anew by its arm's training; None where that fails."""
    config = DEFINITION.config(FixedTrial(params))
    seeds = [derive_seed("race", seed, "confirm", index) for index in range(CONFIRMATIONS)]
    trainings = [race_training(config, data, each) for each in seeds]
    # No search has seen the held-out images, so that they favour none.
    fidelity = trainings[0].fidelity.model_copy(update={"validation": "held_out"})

    with ProcessPool(WORKERS, trainer=arm.trainer) as pool, ThreadPoolExecutor(WORKERS) as threads:

        def accuracy(training: Any) -> float | None:
            try:
                return train(pool, training.model_copy(update={"fidelity": fidelity})).results[-1].accuracy
            except TrainingFailed:
                return None

        return list(threads.map(accuracy, trainings))


# ---- The command line ------------------------------------------------------------------------------------


def missing(options: argparse.Namespace, data: DataSet) -> Iterator[tuple[str, int]]:
    """The searches (arm, repetition) that the file of results lacks, the first repetitions first."""
    there = {
        (line["arm"], line["repetition"])
        for line in read_lines(options.results)
        if (line["minutes"], line["data"]) == (options.minutes, data.name)
    }
    for repetition in range(1, options.repetitions + 1):
        for name in options.arm or ARMS:
            if (name, repetition) not in there:
                yield name, repetition


def race(options: argparse.Namespace) -> None:
    """Searches what is missing, each into the file of results and the report."""
    machine = machine_facts()
    print(machine_line(machine), flush=True)
    data = find_data(options.data, output=sys.stdout)
    seconds, fidelity = 60 * options.minutes, race_fidelity(data)
    for name, repetition in list(missing(options, data)):
        arm = ARMS[name]
        if arm.search == "ray" and not has_ray_tune():
            print(f'{name}, repetition {repetition}: left out, Ray Tune is missing: pip install "ray[tune]"')
            continue
        with tempfile.TemporaryDirectory() as folder:
            ended = search(arm, Path(folder), repetition, seconds, fidelity, options.data)
        figures = search_figures(ended, seconds)
        best = figures["best"]
        confirmed = [] if best is None else confirm(arm, best["params"], data, repetition)
        line = {
            "arm": name,
            "repetition": repetition,
            "minutes": options.minutes,
            "workers": WORKERS,
            "data": data.name,
            "fidelity": fidelity.model_dump(),
            "ray": version("ray") if arm.search == "ray" else None,
            **figures,
            "confirmed": confirmed,
        }
        append_result(options.results, machine, line)
        value = figures["trace"][-1][1] if figures["trace"] else None
        print(f"{name}, repetition {repetition}: {value}, with new seeds {confirmed}", flush=True)
        write_report(options.results, options.minutes, options.output)


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; see the top of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--arm", nargs="+", choices=ARMS, help="[default: all]")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, help=f"[default: {REPETITIONS}]")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"of a search [default: {MINUTES:g}]")
    parser.add_argument("--data", type=user_path, help="other images than CIFAR-10, to try this out")
    parser.add_argument("--report", action="store_true", help="only write the report")
    parser.add_argument("--output", type=user_path, default=RESULTS.parent, help="the folder of the report")
    add_results_option(parser, "race")
    return parser.parse_args(arguments)


def has_ray_tune() -> bool:
    """Whether Ray is installed with what its Tune needs."""
    return all(importlib.util.find_spec(name) for name in ("ray", "pandas", "pyarrow"))


def main() -> None:
    """Searches what is missing, and writes the report."""
    options = parse_options()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # ends its searches first
    try:
        if not options.report:
            race(options)
        write_report(options.results, options.minutes, options.output)
    except Mc1optError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
