"""How fast a folder of JPEG files is taken in, against decoding alone, and how fast it opens again.

    python -m benchmarks.folders --images 2000 --side 160

Both are measured in one run, in turn, so that the ratio holds on a machine that does other things, too.
Decoding alone is Pillow's: open, load, convert, crop and resize, in as many processes, without the pixels.
"""

import argparse
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from mc1opt.data.decode import cpus
from mc1opt.data.sources import find_data

CHUNK = 64
ROUNDS = 3


def write_files(folder: Path, count: int, side: int) -> list[Path]:
    """JPEG files of CIFAR-10's training images, enlarged, in a folder for each class."""
    data = Path(find_data().folder)
    images = np.load(data / "train_images.npy", mmap_mode="r")
    labels = np.load(data / "train_labels.npy")
    paths = []
    for number in range(count):
        place = number % len(images)
        path = folder / f"class {labels[place]}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.ascontiguousarray(images[place].transpose(1, 2, 0)))
        image.resize((side * 4 // 3, side), Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(path)
    return paths


def decode(paths: list[Path], size: int) -> None:
    """Decodes files as anybody would, and throws the pixels away."""
    for path in paths:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        side = min(rgb.size)
        left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
        rgb.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)


def seconds_of_decoding(paths: list[Path], size: int) -> float:
    """Seconds in all processes, which have started before."""
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    with ProcessPoolExecutor(cpus()) as executor:
        list(executor.map(decode, [[]] * cpus(), [size] * cpus()))
        begin = time.perf_counter()
        list(executor.map(decode, chunks, [size] * len(chunks)))
        return time.perf_counter() - begin


def seconds_of_opening(folder: Path) -> tuple[float, int]:
    """Seconds until the data set is there, and its images' size."""
    begin = time.perf_counter()
    size = find_data(folder).size
    return time.perf_counter() - begin, size


def main() -> None:
    """Prints a line for each round, and the ratio of the fastest ones."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=60_000, help="JPEG files [default: 60,000]")
    parser.add_argument("--side", type=int, default=160, help="pixels of their shorter side [default: 160]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        paths = write_files(root / "images", options.images, options.side)
        decoding, taking_in, again = [], [], []
        for round_ in range(ROUNDS):
            os.environ["MC1OPT_DATA"] = str(root / f"cache-{round_}")
            seconds, size = seconds_of_opening(root / "images")
            taking_in.append(seconds)
            again.append(seconds_of_opening(root / "images")[0])
            decoding.append(seconds_of_decoding(paths, size))
            print(
                f"taken in {taking_in[-1]:.2f} s, decoding alone {decoding[-1]:.2f} s on {cpus()} CPUs, "
                f"opened again {again[-1]:.2f} s",
                flush=True,
            )
        ratio = min(decoding) / min(taking_in)
        print(
            f"{options.images:,} files of {options.side} pixels: {100 * ratio:.0f} % of the speed of "
            f"decoding alone; opened again in {min(again):.2f} s"
        )


if __name__ == "__main__":
    main()
