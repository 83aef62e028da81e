"""What checkpoints cost: seconds for each, and as a share of the training.

At the top of the repository:

    python -m benchmarks.checkpointing [--epochs 6] [--folder FOLDER]

Each network trains so many epochs, one thread, on images of noise, as a worker does; the seconds after each
epoch that go to its checkpoint are set against those of the epoch. Once with a checkpoint at every epoch's
end, which is what epochs of 10 s and more have, and once with at most one in 10 s, as it is by default: then
the state of the other epochs is kept in memory. A checkpoint waits for the disk, so `--folder` should lie
where `storage/` does.

Not here: how trainings go on from checkpoints (the tests).
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import add_results_option, append_result, machine_facts, machine_line, markdown_table
from mc1opt.config import MLP, SGD, Adam, Config, ConvBlock, ConvNet, LinearLayer, Pooling
from mc1opt.dataset import DataSet
from mc1opt.paths import user_path
from mc1opt.spec import CHECKPOINT_SECONDS, EpochResult, Fidelity, Training
from mc1opt.training.checkpoint import CheckpointWriter
from mc1opt.training.loop import Trainer

VALIDATION_IMAGES = 1000
TARGET = 0.02
"""Of the training time of the convolutional network."""

_POOL = Pooling(kind="max")
NETWORKS = {
    "conv 32-64-128, batch norm, SGD": (
        Config(
            architecture=ConvNet(
                blocks=tuple(
                    ConvBlock(width=width, padding=1, norm="batch", pooling=_POOL) for width in (32, 64, 128)
                )
            ),
            optimizer=SGD(learning_rate=0.02, momentum=0.9),
            batch_size=64,
        ),
        20_000,
    ),
    "MLP 256-128, batch norm, Adam": (
        Config(
            architecture=MLP(layers=tuple(LinearLayer(width=width, norm="batch") for width in (256, 128))),
            optimizer=Adam(learning_rate=0.001),
            batch_size=64,
        ),
        10_000,
    ),
}
"""Config and training images."""


def main() -> None:
    """Measures, prints a table and adds a line to the results."""
    parser = argparse.ArgumentParser(description="What checkpoints cost.")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument(
        "--folder", type=user_path, default=Path("storage"), help="where checkpoints are written"
    )
    add_results_option(parser, "checkpointing")
    arguments = parser.parse_args()
    machine = machine_facts()
    print(machine_line(machine))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix=".checkpointing-") as folder:
        data = noise(Path(folder))
        rows, figures = [], []
        for name, (config, images) in NETWORKS.items():
            for seconds in (0.0, CHECKPOINT_SECONDS):
                measured = measure(config, images, data, arguments.epochs, seconds, Path(folder))
                figures.append(
                    {"network": name, "train_images": images, "every_seconds": seconds, **measured}
                )
                rows.append(row(name, seconds, measured))
    header = ["network", "written", "epoch", "checkpoint an epoch", "share", "file"]
    print(markdown_table(header, rows))
    print(f"Target: a share under {TARGET:.0%} for the convolutional network.")
    append_result(arguments.results, machine, {"epochs": arguments.epochs, "figures": figures})


def noise(folder: Path) -> DataSet:
    """Images and labels without sense, in the files of a data set."""
    count = VALIDATION_IMAGES + max(images for _, images in NETWORKS.values())
    generator = np.random.default_rng(0)
    np.save(folder / "train_images.npy", generator.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8))
    np.save(folder / "train_labels.npy", (np.arange(count) % 10).astype(np.uint8))
    return DataSet(
        name="noise",
        folder=str(folder),
        sha256="0" * 64,
        train_images=count,
        validation_images=VALIDATION_IMAGES,
    )


def measure(
    config: Config, images: int, data: DataSet, epochs: int, seconds: float, folder: Path
) -> dict[str, float]:
    """Mean seconds of an epoch and of what its checkpoint took; the share; bytes of a checkpoint."""
    path = folder / "measured.checkpoint"
    path.unlink(missing_ok=True)
    training = Training(
        config=config,
        fidelity=Fidelity(train_images=images, epochs=epochs),
        seed=0,
        data=data,
        checkpoint=str(path),
        checkpoint_seconds=seconds,
    )
    trainer = Trainer(training)
    writer = CheckpointWriter(training, trainer.state)
    results: list[EpochResult] = []
    trained = kept = 0.0
    for epoch in range(epochs):
        started = time.perf_counter()
        results.append(trainer.train_epoch(epoch))
        ended = time.perf_counter()
        writer.epoch_ended(results)
        trained += ended - started
        kept += time.perf_counter() - ended
    return {
        "epoch_seconds": trained / epochs,
        "checkpoint_seconds": kept / epochs,
        "share": kept / (trained + kept),
        "bytes": path.stat().st_size if path.exists() else 0,
    }


def row(name: str, seconds: float, measured: dict[str, float]) -> list[str]:
    """A line of the table."""
    return [
        name,
        f"at most every {seconds:g} s" if seconds else "after every epoch",
        f"{measured['epoch_seconds']:.2f} s",
        f"{1000 * measured['checkpoint_seconds']:.1f} ms",
        f"{measured['share']:.2%}",
        f"{measured['bytes'] / 1e6:.1f} MB" if measured["bytes"] else "none",
    ]


if __name__ == "__main__":
    main()
