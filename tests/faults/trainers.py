"""Trainers to which faults happen that rules for learning curves cannot have."""

import json
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

from mc1opt.seeds import derive_seed
from mc1opt.spec import EpochResult, Training
from mc1opt.workers.speed import SPEED_SEED
from tests.support.curves import train
from tests.support.studies import SEED


def computes_for_ever(training: Training) -> Iterator[EpochResult]:
    """One call of a library's own code, which lets no other thread run meanwhile."""
    for result in train(training):
        yield result
        if training.seed != SPEED_SEED:
            re.match(r"(a+)+$", "a" * 60 + "b")  # tries some 2^60 ways


def noted(training: Training) -> Iterator[EpochResult]:
    """The real training; each epoch that it trains is noted in ./noted.jsonl."""
    from mc1opt.training.loop import train as train_really  # torch: not for those above and below

    epochs = train_really(training)
    try:
        for result in epochs:
            if not result.restored and training.seed != SPEED_SEED:
                with Path("noted.jsonl").open("ab", buffering=0) as file:
                    file.write(json.dumps({"seed": training.seed, "epoch": result.epoch}).encode() + b"\n")
            yield result
    except KeyboardInterrupt as interrupt:
        epochs.throw(interrupt)
        raise


VICTIM = derive_seed(SEED, 6)
"""The seed of the trial that eats memory."""
LIMIT = 1 << 30


def takes_all_memory(training: Training) -> Iterator[EpochResult]:
    """Learning curves; in one trial, after its second epoch, memory is taken until there is no more.

    The environment says whether a limit of this process ends it with a MemoryError ("limited"), or another
    one's, of which only the kernel knows, with a kill.
    """
    for result in train(training):
        yield result
        if training.seed == VICTIM and result.epoch == 2:
            _take_memory(limited=os.environ["MC1OPT_TEST_GLUTTON"] == "limited")


def _take_memory(limited: bool) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    if limited:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, before[1]))
    try:
        taken = [bytearray(b"x" * (1 << 20)) for _ in range(4 * LIMIT >> 20)]
        taken.clear()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
