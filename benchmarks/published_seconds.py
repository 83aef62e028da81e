"""Seconds of an epoch of batch norm's arms, alternating in one run.

At the top of the repository:

    python -m benchmarks.published_seconds
    python -m benchmarks.published_seconds --rounds 5 --images 4000

The seconds of whole trainings cannot be compared: they ran hours apart, some beside other work. Here each
round trains two short epochs of every arm, of which the second one counts. A run adds a line to
`benchmarks/results/published_seconds.jsonl`. `published_norm.py` multiplies its medians by the epochs that
the trainings took to reach a loss. The test images stay closed.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence

from benchmarks.common import (
    add_results_option,
    append_result,
    machine_facts,
    machine_line,
    markdown_table,
)
from benchmarks.published_arms import BASE, DEEP, arms
from benchmarks.published_lines import EpochSeconds
from benchmarks.published_norm import NORM_ARMS
from mc1opt.config import Config
from mc1opt.data.sources import find_data
from mc1opt.dataset import DataSet
from mc1opt.machine.devices import resolve_device, resolve_precision
from mc1opt.paths import user_path
from mc1opt.spec import Device, EpochResult, Fidelity, Training
from mc1opt.workers.pool import ProcessPool

SEED = 0


def epoch_seconds(config: Config, pool: ProcessPool, data: DataSet, images: int, device: Device) -> float:
    """Seconds of the second of two epochs, without validation."""
    results: list[EpochResult] = []

    def on_epoch(result: EpochResult) -> bool:
        results.append(result)
        return True

    training = Training(
        config=config,
        fidelity=Fidelity(train_images=images, epochs=2),
        seed=SEED,
        data=data.model_copy(update={"validation_images": 0}),
        device=device,
        precision=resolve_precision(device),
    )
    pool.train(training, on_epoch)
    return results[-1].seconds


def measure(base: str, data: DataSet, *, images: int, rounds: int, device: Device) -> EpochSeconds:
    """Seconds by arm, round by round: in each round every arm once, in turn."""
    configs = {arm.name: arm.config for arm in arms() if arm.recipe == "published"}
    seconds: dict[str, list[float]] = {name: [] for name in NORM_ARMS[base].values()}
    with ProcessPool(1) as pool:
        for _ in range(rounds):
            for name, found in seconds.items():
                found.append(epoch_seconds(configs[name], pool, data, images, device))
    return seconds


def seconds_table(seconds: EpochSeconds, images: int) -> str:
    """Medians and ranges of an epoch of so many images, by arm."""
    rows = [
        [f"`{name}`", f"{statistics.median(found):.2f}", f"{min(found):.2f} to {max(found):.2f}"]
        for name, found in seconds.items()
    ]
    return markdown_table(["arm", f"seconds of {images:,} images", "rounds"], rows)


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; see the top of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--base", choices=list(NORM_ARMS), default=BASE, help=f"{DEEP} is for a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=4000, help="training images of an epoch")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data", type=user_path, help="other images than CIFAR-10, to try this out")
    add_results_option(parser, "published_seconds")
    return parser.parse_args(arguments)


def main() -> None:
    """Measures, prints the table and adds a line to the results."""
    options = parse_options()
    device = resolve_device(options.device)
    machine = machine_facts(device)
    print(machine_line(machine), flush=True)
    data = find_data(options.data, output=sys.stdout)
    seconds = measure(options.base, data, images=options.images, rounds=options.rounds, device=device)
    print(seconds_table(seconds, options.images))
    figures = {"base": options.base, "images": options.images, "data": data.name, "device": device}
    append_result(options.results, machine, {**figures, "seconds": seconds})


if __name__ == "__main__":
    main()
