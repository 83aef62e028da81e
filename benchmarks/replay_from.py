"""Is what was known kept when a search space is widened, and the study begun from the narrow one? Replayed.

At the top of the repository:

    python -m benchmarks.replay_from                       from scratch, 20 repetitions
    python -m benchmarks.replay_from --starting-points     all searches begin with those of the study

The narrow space is that of `studies/cnn.py` without the choice of an activation and with half of the
multiply-accumulates. Compared are, in the wide space: 30 trials, 130 trials, and 30 trials that begin from a
study of 100 trials in the narrow space. None has a time limit. With the starting points nearly all is known
at once, and differences are small; from scratch they are those of what was found.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
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
from mc1opt.database.study_attributes import STUDY_FROM, STUDY_KNOWN
from mc1opt.dataset import DataSet
from mc1opt.files import read_lines
from mc1opt.metric import ACCURACY
from mc1opt.search.sampling import make_sampler
from mc1opt.search.settings import SearchSettings
from mc1opt.search.warm_start import begin_from, for_sampler, starting_points
from mc1opt.spec import Fidelity

BEFORE, FURTHER = 100, 30
"""Trials in the narrow space, and in the wide one after them."""
FIXED = {"activation": "relu"}
"""What the narrow space does not suggest."""
FIDELITY = Fidelity(train_images=DEFINITION.fidelity.train_images, epochs=LONG, short_epochs=SHORT)
SAMPLERS = ("local", "tpe")

Points = Mapping[str, Mapping[str, Any]]
"""Name -> parameters of a starting point."""


class _Narrow:
    """A trial that suggests all but what is fixed; starting points are without it, too."""

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


def enqueue(study: optuna.Study, points: Points) -> None:
    """Adds the starting points to a new study."""
    for name, params in points.items():
        study.enqueue_trial(dict(params), user_attrs={records.STARTING_POINT: name})


def begun_from_narrow(sampler: str, surrogate: Surrogate, seed: int, points: Points) -> tuple[float, float]:
    """Truths of what is named after the narrow search, and after the further trials in the wide space."""
    arm = replace(ARMS["local, short (default)"], sampler=partial(make_sampler, sampler))
    source = new_study(arm, seed)
    source.set_user_attr(records.FIDELITY, FIDELITY.model_dump())
    source.set_user_attr(records.DATA, {"name": DEFINITION.data.name})
    enqueue(source, points)
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
    attributes = {STUDY_KNOWN: [asdict(trial) for trial in known], STUDY_FROM: asdict(begun)}
    enqueue(study, starting_points(replace(WIDE, starting_points=points), attributes))
    after = replay(arm, surrogate, seed, Task(WIDE, trials=FURTHER, seconds=math.inf), study)
    return before.truth, after.truth


def wide(sampler: str, surrogate: Surrogate, seed: int, points: Points, trials: int) -> float:
    """The truth of what is named after so many trials in the wide space."""
    arm = replace(ARMS["local, short (default)"], sampler=partial(make_sampler, sampler))
    study = new_study(arm, seed)
    enqueue(study, points)
    return replay(arm, surrogate, seed, Task(WIDE, trials=trials, seconds=math.inf), study).truth


def compared(sampler: str, surrogate: Surrogate, seed: int, points: Points) -> list[float]:
    """The truths of one repetition, in the order of the table's columns."""
    narrow, begun = begun_from_narrow(sampler, surrogate, seed, points)
    return [
        narrow,
        wide(sampler, surrogate, seed, points, FURTHER),
        wide(sampler, surrogate, seed, points, BEFORE + FURTHER),
        begun,
    ]


def main() -> None:
    """Replays the searches, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_results_option(parser, "curves")
    parser.add_argument("--sampler", choices=SAMPLERS, action="append")
    parser.add_argument("--starting-points", action="store_true")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    surrogate = Surrogate(list(read_lines(options.results)))
    points = WIDE.starting_points if options.starting_points else {}
    rows = []
    for sampler in options.sampler or SAMPLERS:
        done = []
        for seed in range(options.repetitions):
            done.append(compared(sampler, surrogate, seed, points))
            print(sampler, seed, " ".join(f"{each:.4f}" for each in done[-1]), file=sys.stderr, flush=True)
        ahead = [100.0 * (each[3] - each[2]) for each in done]
        error = statistics.stdev(ahead) / math.sqrt(len(ahead)) if len(ahead) > 1 else 0.0
        means = [f"{mean:.4f}" for mean in np.mean(done, axis=0)]
        rows.append([sampler, *means, f"{statistics.mean(ahead):+.2f} ({error:.2f})"])
    columns = [
        f"{BEFORE} narrow",
        f"{FURTHER} wide",
        f"{BEFORE + FURTHER} wide",
        f"{FURTHER} begun from narrow",
    ]
    print(
        markdown_table(
            ["sampler", *columns, f"points ahead of {BEFORE + FURTHER} wide (standard error)"], rows
        )
    )


if __name__ == "__main__":
    main()
