"""Training images a second: the tutorial's loop against mc1opt's workers, on the same machine in turn.

At the top of the repository:

    python -m benchmarks.throughput [--rounds 5] [--images 9984] [--network all]
    python -m benchmarks.throughput --device cuda --images 24960

The tutorial's loop is what PyTorch's and torchvision's tutorials show: a data set of PIL images, transforms
an image at a time, a DataLoader, NCHW float32, all cores in one process, convolution -> norm -> activation ->
pooling. mc1opt trains one network a core, each with one thread, as a search does; the images a second of all
are summed. Real images, batch size, optimizer and augmentation are the same.

Only the second of two epochs counts: start-up and warming-up are in neither arm. Neither is validation: the
tutorial's loop has none; mc1opt's cannot be turned off, and gets a single image. What else differs favours
the tutorial: its loader processes live on between epochs, the better count of them is taken, and its crop
fills the border with zeros, which is cheaper than mc1opt's reflection. The machine must be quiet: other load
slows the tutorial's threads, which wait for each other, far more than mc1opt's.

On a GPU both loops train there, mc1opt with as many workers as a search has by default. Convolutions in
float32 are rounded to TF32 there in both: PyTorch's default.

Not here: accuracy, what a search adds to training (`overhead.py`), how many workers (`workers.py`).
"""

import argparse
import statistics
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import torch

from benchmarks.common import add_results_option, append_result, machine_facts, machine_line, markdown_table
from benchmarks.tutorial import tutorial_dataset, tutorial_speed
from mc1opt.config import SGD, Augmentation, Config, ConvBlock, ConvNet, Pooling
from mc1opt.data.sources import find_data
from mc1opt.dataset import DataSet
from mc1opt.machine.devices import cpu_flags, resolve_device, resolve_precision
from mc1opt.machine.resources import available_cpus, default_workers
from mc1opt.paths import user_path
from mc1opt.spec import Device, EpochResult, Fidelity, Precision, Training, TrainingFailed
from mc1opt.workers.pool import ProcessPool

NETWORKS = {"32-64-128": (32, 64, 128), "16-32-64": (16, 32, 64)}
BATCH_SIZE = 64
EPOCHS = 2  # the last one counts
CROP = 4  # pixels
OPTIMIZER = SGD(learning_rate=0.02, momentum=0.9, weight_decay=5e-4)
IDENTICAL_TARGET, DEFAULT_TARGET = 2.4, 3.5
"""mc1opt's images a second as a multiple of the tutorial's: with identical layers, and with its own order."""


@dataclass(frozen=True)
class Arm:
    """A way to train; `speed` trains, and gives the images a second of the counted epoch."""

    name: str
    speed: Callable[[], float]
    target: float | None = None


def network(widths: tuple[int, ...], *, tutorial_order: bool) -> ConvNet:
    """3x3 convolutions with same padding, each with batch norm, ReLU and max pooling."""
    pooling = Pooling(kind="max")
    blocks = [ConvBlock(width=width, padding=1, norm="batch", pooling=pooling) for width in widths]
    order = "norm_activation_pool" if tutorial_order else "pool_norm_activation"
    return ConvNet(blocks=tuple(blocks), order=order)


# ---- mc1opt's workers ------------------------------------------------------------------------------------


def workers_speed(pool: ProcessPool, training: Training) -> float:
    """Images a second of all workers together; they begin the counted epoch at the same moment."""
    together = threading.Barrier(pool.size)

    def counted_seconds(seed: int) -> float:
        results: list[EpochResult] = []

        def on_epoch(result: EpochResult) -> bool:
            results.append(result)
            if len(results) == EPOCHS - 1:
                together.wait()
            return True

        try:
            pool.train(training.model_copy(update={"seed": seed}), on_epoch)
        except TrainingFailed:
            together.abort()
            raise
        return results[-1].seconds

    with ThreadPoolExecutor(pool.size) as threads:
        trainings = [threads.submit(counted_seconds, seed) for seed in range(pool.size)]
        return sum(training.fidelity.train_images / done.result() for done in as_completed(trainings))


# ---- Arms, rounds and the table --------------------------------------------------------------------------


def make_arms(
    widths: tuple[int, ...], data: DataSet, images: int, pool: ProcessPool, device: Device
) -> list[Arm]:
    """All arms; the names of those of the tutorial's loop begin with "tutorial"."""
    same, own = (
        Config(
            architecture=network(widths, tutorial_order=tutorial_order),
            optimizer=OPTIMIZER,
            batch_size=BATCH_SIZE,
            augmentation=Augmentation(flip=True, crop=CROP),
        )
        for tutorial_order in (True, False)
    )
    dataset = tutorial_dataset(same, data, images)

    def tutorial(processes: int) -> Arm:
        name = f"tutorial, {processes} loader processes, float32"

        def speed() -> float:
            return tutorial_speed(same, dataset, loader_processes=processes, epochs=EPOCHS, device=device)

        return Arm(name, speed)

    def workers(what: str, config: Config, precision: Precision, target: float) -> Arm:
        fidelity = Fidelity(train_images=images, epochs=EPOCHS)
        training = Training(
            config=config, fidelity=fidelity, seed=0, data=data, device=device, precision=precision
        )
        aim = target if device == "cpu" and precision == chosen else None
        return Arm(f"mc1opt, {what}, {precision}", lambda: workers_speed(pool, training), aim)

    chosen = resolve_precision(device)
    # What a search takes, and where there are instructions for both, the other: is the choice right?
    both = device == "cuda" or bool({"avx512_bf16", "amx_bf16"} & cpu_flags())
    precisions: tuple[Precision, ...] = ("float32", "bfloat16") if both else (chosen,)
    return [
        tutorial(0),
        tutorial(available_cpus()),
        *(workers("identical layers", same, precision, IDENTICAL_TARGET) for precision in precisions),
        *(workers("default order", own, precision, DEFAULT_TARGET) for precision in precisions),
    ]


def measure(arms: list[Arm], rounds: int) -> dict[str, list[float]]:
    """Images a second of each arm by round; each round begins with another arm."""
    speeds: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for number in range(rounds):
        first = number % len(arms)
        for arm in arms[first:] + arms[:first]:
            speeds[arm.name].append(arm.speed())
    return speeds


def multiples_of_tutorial(speeds: dict[str, list[float]]) -> dict[str, list[float]]:
    """Each arm as a multiple of the tutorial's loop with the better count of processes, by round."""
    tutorial = [values for name, values in speeds.items() if name.startswith("tutorial")]
    best = max(tutorial, key=statistics.median)
    return {name: [a / b for a, b in zip(values, best, strict=True)] for name, values in speeds.items()}


def table(arms: list[Arm], speeds: dict[str, list[float]], multiples: dict[str, list[float]]) -> str:
    """Medians over the rounds, the spread of the multiples, and the targets."""
    rows = []
    for arm in arms:
        speed, multiple = statistics.median(speeds[arm.name]), multiples[arm.name]
        spread = f"{min(multiple):.2f} to {max(multiple):.2f}"
        target = "" if arm.target is None else f">= {arm.target}"
        rows.append([arm.name, f"{speed:,.0f}", f"{statistics.median(multiple):.2f}", spread, target])
    return markdown_table(["arm", "images/s", "of the tutorial", "rounds", "target"], rows)


def main() -> None:
    """Measures each network, prints its table and adds its line to the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=9_984, help="rounded down to whole batches")
    parser.add_argument("--network", choices=[*NETWORKS, "all"], default="all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=user_path, help="other images than CIFAR-10, to try this out")
    add_results_option(parser, "throughput")
    options = parser.parse_args()
    images = options.images - options.images % BATCH_SIZE
    device = resolve_device(options.device)
    size = available_cpus() if device == "cpu" else default_workers(device)
    machine = machine_facts(device)
    data = find_data(options.data).model_copy(update={"validation_images": 1})
    names = list(NETWORKS) if options.network == "all" else [options.network]
    print(
        f"{machine_line(machine)}\nTraining only, no validation; {images} images an epoch, batches of "
        f"{BATCH_SIZE}; medians of {options.rounds} rounds. Tutorial: 1 process, {torch.get_num_threads()} "
        f"threads. mc1opt: {size} processes of 1 thread. Both on {device}."
    )
    with ProcessPool(size) as pool:
        for name in names:
            arms = make_arms(NETWORKS[name], data, images, pool, device)
            speeds = measure(arms, options.rounds)
            multiples = multiples_of_tutorial(speeds)
            print(f"\nConvolutions {name}\n\n{table(arms, speeds, multiples)}", flush=True)
            figures = {"network": name, "images": images, "batch_size": BATCH_SIZE, "rounds": options.rounds}
            figures |= {"data": data.name, "device": device, "workers": size}
            figures |= {"images_per_second": speeds, "multiples": multiples}
            figures["targets"] = {arm.name: arm.target for arm in arms if arm.target is not None}
            append_result(options.results, machine, figures)


if __name__ == "__main__":
    main()
