"""Many image files -> one file of pixels, in parallel processes.

Each process writes its images into the file itself, so that no pixels go through pipes. Processes are started
by hand rather than by `multiprocessing`, which imports the main script again: a script without a guard would
begin anew in each of them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from mc1opt.data.image_files import open_image, square_pixels
from mc1opt.errors import DataError
from mc1opt.program import search_path

CHUNK = 64
"""Images that a process decodes at a time."""
FEW = 512
"""Fewer images are decoded here: other processes take half a second to start."""


COMMAND = [sys.executable, "-P", "-c", "from mc1opt.data.decode import serve; serve()"]


@dataclass(frozen=True)
class Decoded:
    """What is known of decoded images beside their pixels."""

    unreadable: dict[int, str]
    """Why an image could not be read, by its place."""
    sides: list[int]
    """Pixels of the shorter side of each image that could."""
    grey: bool
    """Whether all of them are."""


@dataclass(frozen=True)
class Chunk:
    """Images that a process decodes at a time."""

    start: int
    """Place of the first one."""
    paths: Sequence[str]
    size: int
    """Pixels, height and width, that they get."""
    pixels: str
    """The file that is written."""


def decode_images(
    paths: Sequence[Path], size: int, pixels: Path, on_progress: Callable[[int], None]
) -> Decoded:
    """Decodes image files, and writes those that can be read as 3 x size x size, each in its place.

    Args:
        paths: of the image files.
        size: pixels, height and width.
        pixels: the file that is written, N x 3 x size x size, uint8.
        on_progress: called with the number of images done.

    Raises:
        DataError: a process died.
        OSError: the file cannot be written.
    """
    pixels.touch()
    names = [str(path) for path in paths]
    chunks = [
        Chunk(start, names[start : start + CHUNK], size, str(pixels)) for start in range(0, len(names), CHUNK)
    ]
    unreadable: dict[int, str] = {}
    sides: list[int] = []
    grey = True
    processes = cpus() if len(names) >= FEW else 1
    with ExitStack() as started:
        results = _start(processes, started)(chunks) if processes > 1 else map(decode_chunk, chunks)
        for done in results:
            unreadable |= done.unreadable
            sides += done.sides
            grey = grey and done.grey
            on_progress(len(sides) + len(unreadable))
    return Decoded(unreadable, sides, grey)


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decode_chunk(chunk: Chunk) -> Decoded:
    """Decodes the images of a chunk, and writes them to its file.

    Raises:
        OSError: the file cannot be written.
    """
    block = np.zeros((len(chunk.paths), 3, chunk.size, chunk.size), dtype=np.uint8)
    unreadable, sides = {}, []
    for place, path in enumerate(chunk.paths):
        try:
            image = open_image(Path(path))
        except DataError as error:
            unreadable[chunk.start + place] = str(error)
            continue
        sides.append(min(image.size))
        block[place] = square_pixels(image, 3, chunk.size)
    with Path(chunk.pixels).open("r+b") as file:
        file.seek(chunk.start * block[0].nbytes)
        file.write(block.data)  # and no map of the file, which ends a process where the disk is full
    grey = bool((block[:, 0] == block[:, 1]).all() and (block[:, 0] == block[:, 2]).all())
    return Decoded(unreadable, sides, grey)


# ---- Processes: a line of JSON with a chunk goes in, and one with what is known of it comes out ----------


def _start(count: int, started: ExitStack) -> Callable[[Sequence[Chunk]], Iterator[Decoded]]:
    """Starts so many processes, which end with the stack; what decodes chunks in them, in their order."""
    idle: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()

    def ask(chunk: Chunk) -> Decoded:
        process = idle.get()
        try:
            return _ask(process, chunk)
        finally:
            idle.put(process)

    processes = [started.enter_context(_process()) for _ in range(count)]
    threads = ThreadPoolExecutor(count)
    started.callback(threads.shutdown, cancel_futures=True)
    for process in processes:
        idle.put(process)
        started.callback(process.kill)  # first of all, so that nobody waits for an answer
    return lambda chunks: threads.map(ask, chunks)


def _process() -> "subprocess.Popen[str]":
    """A process that ends when its standard input does, and so with this one, however that ends."""
    return subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # decoders complain there of damaged files, which we name
        text=True,
        env=os.environ | {"PYTHONPATH": search_path()},
        start_new_session=True,  # a terminal's Ctrl-C does not reach it
    )


def _ask(process: "subprocess.Popen[str]", chunk: Chunk) -> Decoded:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        print(json.dumps(asdict(chunk)), file=process.stdin, flush=True)
        answer = process.stdout.readline()
    except BrokenPipeError:
        answer = ""
    if not answer:
        raise DataError("a process that decodes images died. Is memory enough? Try again.")
    content = json.loads(answer)
    if "errno" in content:
        raise OSError(content["errno"], os.strerror(content["errno"]))
    unreadable = {int(place): why for place, why in content["unreadable"].items()}
    return Decoded(unreadable, content["sides"], content["grey"])


def serve() -> None:
    """Decodes the chunks that standard input names: what a process of `decode_images` does."""
    for line in sys.stdin:
        try:
            print(json.dumps(asdict(decode_chunk(Chunk(**json.loads(line))))), flush=True)
        except OSError as error:
            print(json.dumps({"errno": error.errno}), flush=True)
