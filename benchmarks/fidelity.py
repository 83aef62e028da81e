"""Which fidelity a search should have: the same number of steps as few epochs of many images, or the reverse.

At the top of the repository:

    python -m benchmarks.fidelity [--point whitened-32-64-64-128] [--seeds 3]

A starting point of the study `cnn` is trained on the real images at each fidelity, over several seeds, by as
many workers as there are cores. Every finished training adds a line to the file of results, and what is there
already is not trained again. Not here: what the search makes of it.
"""

import argparse
import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from optuna.trial import FixedTrial

from benchmarks.common import add_results_option, append_result, machine_facts, machine_line, markdown_table
from mc1opt.config import Config, config_id
from mc1opt.data.sources import find_data
from mc1opt.machine.devices import resolve_precision
from mc1opt.machine.resources import available_cpus
from mc1opt.search.definition import load_definition
from mc1opt.spec import EpochResult, Fidelity, Training
from mc1opt.workers.pool import ProcessPool

FIDELITIES = [(10_000, 10), (20_000, 5), (33_333, 3)]
"""Training images and epochs: 100,000 images are seen in each."""


def starting_point(name: str) -> Config:
    """The config of a starting point of the study `cnn`."""
    definition = load_definition("cnn")
    return definition.config(FixedTrial(dict(definition.starting_points[name])))


def missing_trainings(config: Config, seeds: int, path: Path) -> list[Training]:
    """What is not in the file of results yet, seed by seed."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    there = {(line["config_id"], line["train_images"], line["epochs"], line["seed"]) for line in lines}
    data, precision = find_data(), resolve_precision("cpu")
    return [
        Training(
            config=config,
            fidelity=Fidelity(train_images=images, epochs=epochs),
            seed=seed,
            data=data,
            precision=precision,
        )
        for seed in range(seeds)
        for images, epochs in FIDELITIES
        if (config_id(config), images, epochs, seed) not in there
    ]


def train(pool: ProcessPool, training: Training, path: Path, machine: dict[str, Any]) -> None:
    """Trains to the end, and adds a line to the results."""
    results: list[EpochResult] = []
    pool.train(training, lambda result: results.append(result) is None)
    figures = {
        "config_id": config_id(training.config),
        "train_images": training.fidelity.train_images,
        "epochs": training.fidelity.epochs,
        "seed": training.seed,
        "values_by_epoch": [result.validation_accuracy for result in results],
        "seconds": sum(result.seconds for result in results),
    }
    append_result(path, machine, figures)


def table(config: Config, path: Path) -> str:
    """Mean and standard deviation of the accuracy, and the mean seconds, by fidelity."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    rows = []
    for images, epochs in FIDELITIES:
        same = [
            line
            for line in lines
            if (line["config_id"], line["train_images"], line["epochs"])
            == (config_id(config), images, epochs)
        ]
        values = [line["values_by_epoch"][-1] for line in same]
        spread = f"{statistics.stdev(values):.4f}" if len(values) > 1 else ""
        seconds = statistics.mean(line["seconds"] for line in same)
        cells = [f"{statistics.mean(values):.4f}", spread, str(len(values)), f"{seconds:.0f}"]
        rows.append([f"{epochs} epochs of {images:,}", *cells])
    return markdown_table(["fidelity", "validation accuracy", "std", "seeds", "s a training"], rows)


def main() -> None:
    """Trains what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--point", default="whitened-32-64-64-128")
    parser.add_argument("--seeds", type=int, default=3)
    add_results_option(parser, "fidelity")
    options = parser.parse_args()
    machine = machine_facts()
    config = starting_point(options.point)
    workers = available_cpus()
    with ProcessPool(workers) as pool, ThreadPoolExecutor(workers) as threads:
        missing = missing_trainings(config, options.seeds, options.results)
        done = [threads.submit(train, pool, training, options.results, machine) for training in missing]
        for future in done:
            future.result()
    print(f"{machine_line(machine)}\n{options.point}\n\n{table(config, options.results)}")


if __name__ == "__main__":
    main()
