"""For the same multiply-accumulates: a small network for many epochs, or a wider one for fewer?

At the top of the repository:

    python -m benchmarks.sizes [--config 5097fed54d3b] [--epochs 36] [--growths 1 2 4] [--seeds 1]

A config of `results/curves.jsonl` is trained on all images but those of validation, as wide as it is for
`--epochs`, and in wider forms for as many fewer as each costs more. Every finished training adds a line to
the file of results, and what is there already is not trained again. The test images stay closed.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from optuna.trial import FixedTrial

from benchmarks.common import RESULTS, add_results_option, append_result, machine_facts, markdown_table
from benchmarks.curves import DEFINITION
from mc1opt.config import Config, config_id
from mc1opt.data.sources import find_data
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.files import read_lines
from mc1opt.machine.devices import resolve_precision
from mc1opt.models.cost import cost
from mc1opt.models.widen import widened
from mc1opt.spec import Fidelity, Training
from mc1opt.training.loop import Trainer

CURVES = RESULTS / "curves.jsonl"


def config_of(identity: str) -> Config:
    """The config of a training that is in the file of curves."""
    params = next(line["params"] for line in read_lines(CURVES) if line["config_id"] == identity)
    return DEFINITION.config(FixedTrial(params))


def measure(config: Config, epochs: int, seed: int) -> dict[str, Any]:
    """Trains to the end; seconds are CPU time of this process, which other work hardly changes."""
    data = find_data()
    fidelity = Fidelity(train_images=data.train_images - data.validation_images, epochs=epochs)
    trainer = Trainer(
        Training(config=config, fidelity=fidelity, seed=seed, data=data, precision=resolve_precision("cpu"))
    )
    started = time.process_time()
    values = []
    for epoch in range(epochs):
        values.append(trainer.train_epoch(epoch).validation_accuracy)
        print(f"  epoch {epoch + 1}/{epochs} {values[-1]:.4f}", flush=True)
    return {"values_by_epoch": values, "cpu_seconds": round(time.process_time() - started, 1)}


def table(path: Path) -> str:
    """Mean accuracy by config, epochs of the form as it was found, and growth."""
    rows = []
    groups: dict[tuple[str, int, float], list[dict[str, Any]]] = {}
    for line in read_lines(path):
        groups.setdefault((line["config_id"], line["epochs_as_found"], line["growth"]), []).append(line)
    for (identity, as_found, growth), lines in sorted(groups.items()):
        values = [line["values_by_epoch"][-1] for line in lines]
        first = lines[0]
        rows.append(
            [
                f"{identity}, {as_found} epochs",
                f"{growth:g}",
                f"{first['macs'] / 1e6:.1f}",
                f"{first['parameters']:,}",
                str(first["epochs"]),
                f"{statistics.mean(line['cpu_seconds'] for line in lines):.0f}",
                f"{statistics.mean(values):.4f}",
                str(len(values)),
            ]
        )
    header = ["config", "growth", "million MACs", "parameters", "epochs", "CPU s", "accuracy", "seeds"]
    return markdown_table(header, rows)


def main() -> None:
    """Trains what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--config", default="5097fed54d3b", help="its id in results/curves.jsonl")
    parser.add_argument("--epochs", type=int, default=36, help="of the config as it was found")
    parser.add_argument("--growths", type=float, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seeds", type=int, default=1)
    add_results_option(parser, "sizes")
    options = parser.parse_args()
    found = config_of(options.config)
    for seed in range(options.seeds):
        for growth in options.growths:
            key = (options.config, options.epochs, growth, seed)
            there = {
                (line["config_id"], line["epochs_as_found"], line["growth"], line["seed"])
                for line in read_lines(options.results)
            }
            if key in there:
                continue
            config = found.model_copy(
                update={"architecture": widened(found.architecture, growth, CIFAR10_SHAPE)}
            )
            size = cost(config.architecture, CIFAR10_SHAPE)
            epochs = round(options.epochs * cost(found.architecture, CIFAR10_SHAPE).macs / size.macs)
            print(f"growth {growth:g}, seed {seed}: {size.macs / 1e6:.1f} million MACs", flush=True)
            figures = {
                "config_id": options.config,
                "epochs_as_found": options.epochs,
                "growth": growth,
                "seed": seed,
                "widened_id": config_id(config),
                "parameters": size.parameters,
                "macs": size.macs,
                "epochs": epochs,
                **measure(config, epochs, seed),
            }
            append_result(options.results, machine_facts(), figures)
    print(table(options.results))


if __name__ == "__main__":
    main()
