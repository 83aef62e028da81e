"""Trainers that misbehave in ways which the learning curves do not."""

import sys
from collections.abc import Iterator

from mc1opt.errors import DataError
from mc1opt.spec import EpochResult, Training
from tests.support.curves import curve


def data_error(training: Training) -> Iterator[EpochResult]:
    raise DataError("the images are damaged")
    yield


def complains_when_closed(training: Training) -> Iterator[EpochResult]:
    """The generator is kept, so that it is not closed merely because nobody holds it any more."""
    _kept.append(_complaining(training))
    return _kept[-1]


_kept: list[Iterator[EpochResult]] = []


def _complaining(training: Training) -> Iterator[EpochResult]:
    try:
        yield from curve(training)
    except GeneratorExit:
        print("closed", file=sys.stderr, flush=True)
        raise


def closes_slowly(training: Training) -> Iterator[EpochResult]:
    import time

    try:
        yield from curve(training)
    finally:
        time.sleep(60)


def raises_what_the_seed_says(training: Training) -> Iterator[EpochResult]:
    raise (RuntimeError("shapes differ"), OSError("the disk is full"), MemoryError())[training.seed]
    yield curve(training)[0]


def out_of_memory_in_torch(training: Training) -> Iterator[EpochResult]:
    import torch

    torch.empty(1 << 60, dtype=torch.uint8)
    yield curve(training)[0]


def leaves_a_child_process(training: Training) -> Iterator[EpochResult]:
    """The first result's seconds are the number of a process that would live on."""
    import subprocess

    child = subprocess.Popen(["sleep", "60"])
    for result in curve(training):
        yield result.model_copy(update={"seconds": float(child.pid)})


def holds_much_memory(training: Training) -> Iterator[EpochResult]:
    """A cycle keeps what it holds alive until garbage is collected; the seconds are how many there were."""
    alive = sum(isinstance(thing, _Much) for thing in _everything())
    much = _Much()
    much.itself = much
    yield curve(training)[0].model_copy(update={"seconds": float(alive)})


class _Much:
    itself: "_Much"


def _everything() -> list[object]:
    import gc

    return gc.get_objects()


def warns(training: Training) -> Iterator[EpochResult]:
    """Warns in the name of mc1opt's code, and of other code."""
    import logging

    logging.getLogger("other").warning("not for people")
    logging.getLogger("mc1opt.some").info("not for people")
    logging.getLogger("mc1opt.some").warning("the %s is full", "disk")
    yield from curve(training)


def tells_its_threads(training: Training) -> Iterator[EpochResult]:
    """The seconds are OMP_NUM_THREADS and MKL_NUM_THREADS, written one after the other."""
    import os

    threads = os.environ["OMP_NUM_THREADS"] + os.environ["MKL_NUM_THREADS"]
    yield curve(training)[0].model_copy(update={"seconds": float(threads)})
