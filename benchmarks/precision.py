"""Float32 against bfloat16: seconds of an epoch, and the accuracy after the last one, in turn.

At the top of the repository:

    python -m benchmarks.precision
    python -m benchmarks.precision --images 1000 --epochs 2 --rounds 2 --validation-images 100 --device cpu

Each round trains a published model, with the recipe `mc1opt`, in both precisions with the seed of the round.
Of its epochs the first one is left out of the seconds; the others count, with their validation. On a GPU,
float32's convolutions are rounded to TF32: PyTorch's default. The test images stay closed.
"""

import argparse
import statistics
import sys
from typing import Any, get_args

from benchmarks.common import add_results_option, append_result, machine_facts, machine_line, markdown_table
from mc1opt.data.sources import find_data
from mc1opt.machine.devices import resolve_device
from mc1opt.paths import user_path
from mc1opt.presets import get_preset
from mc1opt.spec import EpochResult, Fidelity, Precision, Training
from mc1opt.workers.pool import ProcessPool

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def curve(training: Training, pool: ProcessPool) -> list[EpochResult]:
    """Trains to the end."""
    results: list[EpochResult] = []

    def on_epoch(result: EpochResult) -> bool:
        results.append(result)
        return True

    pool.train(training, on_epoch)
    return results


def measure(training: Training, rounds: int) -> dict[str, dict[str, list[Any]]]:
    """By precision: seconds of all epochs, and the last accuracy, round by round."""
    found: dict[str, dict[str, list[Any]]] = {each: {"seconds": [], "accuracies": []} for each in PRECISIONS}
    with ProcessPool(1) as pool:
        for seed in range(rounds):
            for precision in PRECISIONS:
                results = curve(training.model_copy(update={"seed": seed, "precision": precision}), pool)
                found[precision]["seconds"].append([result.seconds for result in results])
                found[precision]["accuracies"].append(results[-1].accuracy)
    return found


def precision_table(found: dict[str, dict[str, list[Any]]]) -> str:
    """Median seconds of an epoch, as a multiple of float32's, and the mean accuracy."""
    seconds = {
        precision: statistics.median(each for epochs in figures["seconds"] for each in epochs[1:] or epochs)
        for precision, figures in found.items()
    }
    rows = [
        [
            precision,
            f"{seconds[precision]:.2f}",
            f"{seconds[precision] / seconds['float32']:.2f}",
            f"{statistics.mean(figures['accuracies']):.4f}",
            " ".join(f"{value:.4f}" for value in figures["accuracies"]),
        ]
        for precision, figures in found.items()
    ]
    header = ["precision", "seconds an epoch", "of float32", "validation accuracy", "by seed"]
    return markdown_table(header, rows)


def main() -> None:
    """Measures, prints the table and adds a line to the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--network", default="cnn-deep", help="one of the published models")
    parser.add_argument("--epochs", type=int, help="[default: the recipe's]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=45_000, help="training images of an epoch")
    parser.add_argument("--validation-images", type=int, help="[default: the data's own, 5,000 of CIFAR-10]")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data", type=user_path, help="other images than CIFAR-10, to try this out")
    add_results_option(parser, "precision")
    options = parser.parse_args()
    device = resolve_device(options.device)
    machine = machine_facts(device)
    print(machine_line(machine), flush=True)
    data = find_data(options.data, output=sys.stdout)
    if options.validation_images is not None:
        data = data.model_copy(update={"validation_images": options.validation_images})
    preset = get_preset(options.network)
    fidelity = Fidelity(train_images=options.images, epochs=options.epochs or preset.epochs["mc1opt"])
    training = Training(
        config=preset.with_recipe("mc1opt"), fidelity=fidelity, seed=0, data=data, device=device
    )
    found = measure(training, options.rounds)
    print(precision_table(found))
    figures = {"network": options.network, **fidelity.model_dump(), "data": data.name, "device": device}
    figures |= {"validation_images": data.validation_images, "precisions": found}
    append_result(options.results, machine, figures)


if __name__ == "__main__":
    main()
