"""When to stop: what `--patience` saves and loses, and whether the forecast of a half hour comes true.

At the top of the repository:

    OMP_NUM_THREADS=1 python -m benchmarks.stopping      20 searches
    OMP_NUM_THREADS=1 python -m benchmarks.stopping --repetitions 3

With more threads than free cores, they wait for each other most of the time.

Searches of an hour of their own clock are replayed on the model of `benchmarks/replay.py`, from the starting
points of the study cnn, by the default sampler and pruner; all that is said here is told from these records.
`--patience` stops such a search at the first moment at which it would have stopped the real one; what it
loses is the accuracy without noise of the config that is named as the best, against that after the hour. The
forecast is made after each of `MOMENTS`, of the half hour that follows, and compared with what it brought:
to the best value, and to the accuracy without noise of the trial that has it. Not here: second trainings of
new incumbents, which replays do not have.
"""

import argparse
import dataclasses
import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna

from benchmarks.common import add_results_option, markdown_table
from benchmarks.curves import DEFINITION
from benchmarks.replay import (
    ARMS,
    REPETITIONS,
    WORKERS,
    Searched,
    Surrogate,
    Task,
    new_study,
    searched,
    winner,
)
from mc1opt.database import records
from mc1opt.database.records import StudyRecord, by_value, study_record
from mc1opt.files import read_lines
from mc1opt.search.forecast import HALF_HOUR, forecast
from mc1opt.search.stop_conditions import without_improvement

ARM = ARMS["local, short (default)"]
PATIENCE = (10, 20, 30, 40, 60)
HOUR = 3600.0
MOMENTS = (1200.0, 1500.0, 1800.0)
"""Seconds after which a forecast is made: with fewer trials it says nothing."""


@dataclass(frozen=True)
class Stopped:
    """A search that `--patience` has stopped, or that took the hour."""

    trials: int
    seconds: float
    truth: float
    """The accuracy without noise of the config that it names as its best."""


@dataclass(frozen=True)
class Compared:
    """A forecast, and what became of it, as shares of 1."""

    interval: tuple[float, float]
    median: float
    gain: float
    """Of the best value."""
    truth: float
    """Of the accuracy without noise."""


def after(found: Searched, seconds: float) -> StudyRecord:
    """The study as it was after so many seconds."""
    record = study_record(found.study)
    ended = [trial for trial in record.trials if found.ends.get(trial.number, math.inf) <= seconds]
    return dataclasses.replace(record, trials=ended)


def stopped(found: Searched, surrogate: Surrogate, seed: int, patience: float) -> Stopped:
    """The search with `--patience`; infinite for none."""
    scores: dict[int, float] = {}
    values = {trial.number: trial.score for trial in study_record(found.study).trials}
    for number in sorted(found.ends, key=found.ends.__getitem__):
        scores[number] = values[number]
        if without_improvement([scores[each] for each in sorted(scores)]) >= patience:
            break
    trials = [trial for trial in found.study.get_trials(deepcopy=False) if trial.number in scores]
    truth = winner(trials, found.truths, surrogate, np.random.default_rng(seed))
    return Stopped(len(scores), max(found.ends[number] for number in scores), truth)


def compared(found: Searched, moment: float) -> Compared | None:
    """The forecast at a moment beside the half hour after it; None where it says nothing."""
    before, later = after(found, moment), after(found, moment + HALF_HOUR)
    told = forecast(before, WORKERS)
    if told is None:
        return None
    first, last = by_value(before.trials)[0], by_value(later.trials)[0]
    truth = found.truths[last.number] - found.truths[first.number]
    return Compared(told.interval, told.gain, last.score - first.score, truth)


def patience_table(runs: dict[float, Sequence[Stopped]]) -> str:
    """What each patience saves and loses against none (infinite), with the standard error of the loss."""
    rows = []
    for patience, each in runs.items():
        losses = [100.0 * (a.truth - b.truth) for a, b in zip(runs[math.inf], each, strict=True)]
        error = statistics.stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 else 0.0
        rows.append(
            [
                "none" if math.isinf(patience) else str(patience),
                f"{statistics.mean(run.trials for run in each):.0f}",
                f"{statistics.mean(run.seconds for run in each) / 60:.0f}",
                f"{statistics.mean(run.truth for run in each):.4f}",
                f"{statistics.mean(losses):.1f} ± {error:.1f}",
                f"{max(losses):.1f}",
            ]
        )
    return markdown_table(["patience", "trials", "minutes", "accuracy", "points lost", "at worst"], rows)


def forecast_table(told: dict[float, Sequence[Compared]]) -> str:
    """How often the intervals cover what came, and the gains in points."""
    rows = []
    for moment, each in told.items():
        if not each:
            continue
        low, high = ([one.interval[i] for one in each] for i in (0, 1))
        within = [one.interval[0] <= one.gain <= one.interval[1] for one in each]
        rows.append(
            [
                f"{moment / 60:.0f}",
                str(len(each)),
                f"{statistics.mean(within):.0%}",
                f"{statistics.mean(one.truth <= one.interval[1] for one in each):.0%}",
                f"{100 * statistics.mean(one.median for one in each):.1f}",
                f"{100 * statistics.mean(low):.1f} to {100 * statistics.mean(high):.1f}",
                f"{100 * statistics.mean(one.gain for one in each):.1f}",
                f"{100 * statistics.mean(one.truth for one in each):.1f}",
            ]
        )
    header = [
        "after minutes", "forecasts", "within 90 %", "truth not above", "median", "interval", "gain",
        "without noise",
    ]  # fmt: skip
    return markdown_table(header, rows)


def main() -> None:
    """Replays the searches, and prints both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_results_option(parser, "curves")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    surrogate = Surrogate(list(read_lines(options.results)))
    runs: dict[float, list[Stopped]] = {patience: [] for patience in (*PATIENCE, math.inf)}
    told: dict[float, list[Compared]] = {moment: [] for moment in MOMENTS}
    for seed in range(options.repetitions):
        generator = np.random.default_rng(seed)
        study = new_study(ARM, seed)
        for name, point in DEFINITION.starting_points.items():
            study.enqueue_trial(dict(point), user_attrs={records.STARTING_POINT: name})
        hour = Task(trials=math.inf, seconds=HOUR)
        found = searched(ARM, surrogate, generator, hour, study)
        for patience, stops in runs.items():
            stops.append(stopped(found, surrogate, seed, patience))
        for moment, each in told.items():
            if (one := compared(found, moment)) is not None:
                each.append(one)
        line: dict[str, Any] = {"seed": seed, "trials": len(found.ends), "truth": runs[math.inf][-1].truth}
        print(json.dumps(line), file=sys.stderr, flush=True)
    print(patience_table(dict(runs)))
    print()
    print(forecast_table(dict(told)))


if __name__ == "__main__":
    main()
