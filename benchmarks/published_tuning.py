"""How long the presets should be trained: validation accuracy by epoch, on images that never test.

At the top of the repository:

    python -m benchmarks.published_tuning mlp-128-64 --recipe published --epochs 25 --seeds 2
    python -m benchmarks.published_tuning mlp-128-64 --recipe mc1opt --learning-rate 0.1
    python -m benchmarks.published_tuning cnn-32-128-pool --initialisation he
    python -m benchmarks.published_tuning mlp-256-128-64 --normalisation channels

Trains on 45,000 images and validates on the 5,000 that are cut from the training images. With the constant
learning rate of the recipe `published`, epoch e of a longer training is the last one of a training of e
epochs, so that one curve tells of all. Each training adds a line to the file of results when it ends; what is
there is not trained again. It is there to choose the defaults in `mc1opt/presets.py` by; the test images stay
closed. Not here: measuring (`published.py`).
"""

import argparse
import statistics
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.common import add_results_option, append_result, machine_facts, machine_line
from mc1opt.config import Config, config_id
from mc1opt.data.sources import find_data
from mc1opt.describe import describe_config
from mc1opt.files import read_lines
from mc1opt.machine.devices import resolve_precision
from mc1opt.paths import user_path
from mc1opt.presets import RECIPES, get_preset, get_recipe
from mc1opt.published.results import seed_value
from mc1opt.spec import EpochResult, Fidelity, Training
from mc1opt.workers.pool import ProcessPool


def changed(config: Config, options: argparse.Namespace) -> Config:
    """The config with another learning rate, batch size, initialisation or normalisation, where given."""
    optimizer = config.optimizer
    if options.learning_rate is not None:
        optimizer = optimizer.model_copy(update={"learning_rate": options.learning_rate})
    changes = {
        "optimizer": optimizer,
        "batch_size": options.batch_size or config.batch_size,
        "initialisation": options.initialisation or config.initialisation,
        "normalisation": options.normalisation or config.normalisation,
    }
    return config.model_copy(update=changes)


def stored(path: Path) -> dict[tuple[str, int, int, str], dict[str, Any]]:
    """The lines of the file of results by config (its id), epochs, seed and data."""
    return {
        (line["config_id"], line["epochs"], line["seed"], line["data"]): line
        for line in read_lines(path)
        if "config_id" in line  # the first ones do not say it: they are not gone on from
    }


def train(pool: ProcessPool, training: Training) -> dict[str, Any]:
    """Trains, and gives the training's figures for the file of results."""
    results: list[EpochResult] = []
    pool.train(training, lambda result: results.append(result) is None)
    return {
        "config": describe_config(training.config),
        "config_id": config_id(training.config),
        "initialisation": training.config.initialisation,
        "normalisation": training.config.normalisation,
        "data": training.data.name,
        "epochs": training.fidelity.epochs,
        "seed": training.seed,
        "losses": [result.loss for result in results],
        "values_by_epoch": [result.validation_accuracy for result in results],
        "seconds": sum(result.seconds for result in results),
    }


def main() -> None:
    """Trains, adds lines to the results, and prints the mean curve."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("preset")
    parser.add_argument("--recipe", choices=RECIPES, default="published")
    parser.add_argument("--epochs", type=int, help="[default: the preset's]")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--initialisation", choices=["he", "torch"])
    parser.add_argument("--normalisation", choices=["channels", "symmetric"])
    parser.add_argument("--data", type=user_path)
    add_results_option(parser, "published_tuning")
    options = parser.parse_args()
    machine, data = machine_facts(), find_data(options.data)
    preset, recipe = get_preset(options.preset), get_recipe(options.recipe)
    config = changed(preset.with_recipe(recipe), options)
    trainings = [
        Training(
            config=config,
            fidelity=Fidelity(
                train_images=data.train_images - data.validation_images,
                epochs=options.epochs or preset.epochs[recipe],
            ),
            seed=seed_value(options.first_seed + seed),
            data=data,
            precision=resolve_precision("cpu"),
        )
        for seed in range(options.seeds)
    ]
    there, lock = stored(options.results), threading.Lock()

    def line(training: Training) -> dict[str, Any]:
        key = config_id(config), training.fidelity.epochs, training.seed, data.name
        if key not in there:
            found = {"preset": preset.name, "recipe": recipe, **train(pool, training)}
            with lock:
                append_result(options.results, machine, found)
            return found
        return there[key]

    with ProcessPool(options.workers) as pool, ThreadPoolExecutor(options.workers) as threads:
        lines = list(threads.map(line, trainings))
    print(f"{machine_line(machine)}\n{preset.name}, {recipe}: {describe_config(config)}")
    curves = (zip(found["losses"], found["values_by_epoch"], strict=True) for found in lines)
    for epoch, results in enumerate(zip(*curves, strict=True), start=1):
        losses, values = zip(*results, strict=True)
        spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        print(f"epoch {epoch:>3}: {statistics.mean(values):.4f}{spread}, loss {statistics.mean(losses):.4f}")
    seconds = [found["seconds"] / found["epochs"] for found in lines]
    print(f"{statistics.median(seconds):.1f} s an epoch")


if __name__ == "__main__":
    main()
