"""Several workers on one GPU: what they train together, as a multiple of what one does.

At the top of the repository:

    python -m benchmarks.workers
    python -m benchmarks.workers --workers 1 2 --device cpu --images 2000

Small networks leave a GPU idle between their steps, and further workers fill the gaps. In turn, so many
workers each train two epochs of the best starting point of the study `cnn`, and begin the second one at the
same moment; it counts, with its validation, as in a search. Trials an hour are those of the study's own
fidelity, start-up not counted. Not here: the tutorial's loop (`throughput.py`).
"""

import argparse
import statistics
import sys
from pathlib import Path

from optuna.trial import FixedTrial

from benchmarks.common import add_results_option, append_result, machine_facts, machine_line, markdown_table
from benchmarks.throughput import EPOCHS, workers_speed
from mc1opt.data.sources import find_data
from mc1opt.machine.devices import resolve_device, resolve_precision
from mc1opt.paths import user_path
from mc1opt.search.definition import load_definition
from mc1opt.spec import Fidelity, Training
from mc1opt.workers.pool import ProcessPool

# By its file: by name it is found only where mc1opt is installed.
DEFINITION = load_definition(str(Path(__file__).parents[1] / "studies" / "cnn.py"))
POINT = "whitened-32-64-64-128"


def measure(training: Training, counts: list[int], rounds: int) -> dict[int, list[float]]:
    """Images a second of so many workers together, by count and round."""
    speeds: dict[int, list[float]] = {}
    for count in counts:
        with ProcessPool(count) as pool:
            speeds[count] = [workers_speed(pool, training) for _ in range(rounds)]
    return speeds


def speeds_table(speeds: dict[int, list[float]]) -> str:
    """Medians over the rounds, and the multiples of the first count's."""
    medians = {count: statistics.median(found) for count, found in speeds.items()}
    first = next(iter(medians))
    each = DEFINITION.fidelity.train_images * DEFINITION.fidelity.epochs
    rows = [
        [str(count), f"{speed:,.0f}", f"{3600 * speed / each:,.0f}", f"{speed / medians[first]:.2f}"]
        for count, speed in medians.items()
    ]
    return markdown_table(["workers", "images/s", "trials an hour", f"of {first}"], rows)


def main() -> None:
    """Measures, prints the table and adds a line to the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=45_000, help="training images of an epoch")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data", type=user_path, help="other images than CIFAR-10, to try this out")
    add_results_option(parser, "workers")
    options = parser.parse_args()
    device = resolve_device(options.device)
    machine = machine_facts(device)
    print(machine_line(machine), flush=True)
    data = find_data(options.data, output=sys.stdout)
    training = Training(
        config=DEFINITION.config(FixedTrial(dict(DEFINITION.starting_points[POINT]))),
        fidelity=Fidelity(train_images=options.images, epochs=EPOCHS),
        seed=0,
        data=data,
        device=device,
        precision=resolve_precision(device),
    )
    speeds = measure(training, options.workers, options.rounds)
    print(speeds_table(speeds))
    figures = {"point": POINT, "images": options.images, "data": data.name, "device": device}
    figures |= {"precision": training.precision, "images_per_second": speeds}
    append_result(options.results, machine, figures)


if __name__ == "__main__":
    main()
