"""Is what was known kept when a search space is widened, and the study begun from the narrow one? Replayed.

At the top of the repository:

    python -m benchmarks.replay_from                  20 repetitions
    python -m benchmarks.replay_from --repetitions 2

The narrow space is that of `studies/cnn.py` without the choice of an activation and with half of the
multiply-accumulates. Compared are, in the wide space: 130 trials from scratch; 30 trials from scratch; and 30
trials that begin from a study of 100 trials in the narrow space. None has a time limit, and none has starting
points but those that it takes over.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.trial import BaseTrial

from benchmarks.common import add_results_option, markdown_table
from benchmarks.curves import DEFINITION
from benchmarks.replay import ARMS, LONG, REPETITIONS, SHORT, Surrogate, Task, new_study, replay
from mc1opt.config import Config
from mc1opt.database import records
from mc1opt.dataset import DataSet
from mc1opt.files import read_lines
from mc1opt.metric import ACCURACY
from mc1opt.search.sampling import make_sampler
from mc1opt.search.settings import SearchSettings
from mc1opt.search.warm_start import begin_from, for_sampler
from mc1opt.spec import Fidelity

BEFORE, FURTHER = 100, 30
"""Trials in the narrow space, and in the wide one after them."""
FIXED = {"activation": "relu"}
"""What the narrow space does not suggest."""
FIDELITY = Fidelity(train_images=DEFINITION.fidelity.train_images, epochs=LONG, short_epochs=SHORT)
SAMPLERS = ("local", "tpe")


class _Narrow:
    """A trial that suggests all but what is fixed."""

    def __init__(self, trial: BaseTrial) -> None:
        self._trial = trial

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return FIXED[name] if name in FIXED else self._trial.suggest_categorical(name, choices)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)


def _narrow_space(trial: BaseTrial, data: DataSet) -> Config:
    narrow: Any = _Narrow(trial)
    return DEFINITION.search_space(narrow, data)


WIDE = DEFINITION
NARROW = replace(
    DEFINITION,
    search_space=_narrow_space,
    chosen={**DEFINITION.chosen, "max_macs": DEFINITION.max_macs // 2},
)


def begun_from_narrow(sampler: str, surrogate: Surrogate, seed: int) -> tuple[float, float]:
    """Truths of what is named after the narrow search, and after the further trials in the wide space."""
    arm = replace(ARMS["local, short (default)"], sampler=partial(make_sampler, sampler))
    source = new_study(arm, seed)
    source.set_user_attr(records.FIDELITY, FIDELITY.model_dump())
    source.set_user_attr(records.DATA, {"name": DEFINITION.data.name})
    before = replay(arm, surrogate, seed, Task(NARROW, FIXED, BEFORE, math.inf), source)
    settings = SearchSettings(
        study="wide",
        trials=FURTHER,
        fidelity=FIDELITY,
        seed=seed,
        device="cpu",
        max_macs=WIDE.max_macs,
        sampler=sampler,
    )
    begun, known = begin_from(source, WIDE, settings, WIDE.data)
    study = new_study(arm, seed)
    study.sampler = make_sampler(sampler, seed, known=for_sampler(known, WIDE, ACCURACY))
    for params in begun.starting_points.values():
        study.enqueue_trial(params, user_attrs={records.STARTING_POINT: "known"})
    after = replay(arm, surrogate, seed, Task(WIDE, trials=FURTHER, seconds=math.inf), study)
    return before.truth, after.truth


def from_scratch(sampler: str, surrogate: Surrogate, seed: int, trials: int) -> float:
    """The truth of what is named after so many trials in the wide space."""
    arm = replace(ARMS["local, short (default)"], sampler=partial(make_sampler, sampler))
    return replay(arm, surrogate, seed, Task(WIDE, trials=trials, seconds=math.inf)).truth


def compared(sampler: str, surrogate: Surrogate, seed: int) -> list[float]:
    """The truths of one repetition, in the order of the table's columns."""
    narrow, begun = begun_from_narrow(sampler, surrogate, seed)
    return [
        narrow,
        from_scratch(sampler, surrogate, seed, FURTHER),
        from_scratch(sampler, surrogate, seed, BEFORE + FURTHER),
        begun,
    ]


def main() -> None:
    """Replays the searches, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_results_option(parser, "curves")
    parser.add_argument("--sampler", choices=SAMPLERS, action="append")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    surrogate = Surrogate(list(read_lines(options.results)))
    rows = []
    for sampler in options.sampler or SAMPLERS:
        done = []
        for seed in range(options.repetitions):
            done.append(compared(sampler, surrogate, seed))
            print(sampler, seed, " ".join(f"{each:.4f}" for each in done[-1]), file=sys.stderr, flush=True)
        ahead = [100.0 * (each[3] - each[2]) for each in done]
        error = statistics.stdev(ahead) / math.sqrt(len(ahead)) if len(ahead) > 1 else 0.0
        means = [f"{mean:.4f}" for mean in np.mean(done, axis=0)]
        rows.append([sampler, *means, f"{statistics.mean(ahead):+.2f} ({error:.2f})"])
    columns = [
        f"{BEFORE} narrow",
        f"{FURTHER} from scratch",
        f"{BEFORE + FURTHER} from scratch",
        f"{FURTHER} begun from narrow",
    ]
    print(markdown_table(["sampler", *columns, "points ahead of scratch (standard error)"], rows))


if __name__ == "__main__":
    main()
