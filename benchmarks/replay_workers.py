"""What 1 to 1,000 workers find with as many trials, replayed: the more train at once, the less a draw knows.

At the top of the repository:

    python -m benchmarks.replay_workers                        what is missing of 100 and 1,000 trials
    python -m benchmarks.replay_workers --trials 100 --workers 1 32 --repetitions 20
    python -m benchmarks.replay_workers --table                trains nothing, prints what is there

Searches on the model of recorded curves (`benchmarks/replay.py`), with the default sampler and with random
draws, both with the default pruner and without starting points. The clock is simulated: an epoch takes what
its multiply-accumulates take on one core, a worker asks when it is free, and the sampler sees what has ended.
With as many workers as trials, every draw is made before anything is known. A search adds a line to
`benchmarks/results/scale.jsonl`, and is not repeated. Not here: what asking takes, and at how many workers
that counts (`scale.py`).
"""

import argparse
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import optuna

from benchmarks.common import RESULTS, add_results_option, append_result, machine_facts, markdown_table
from benchmarks.replay import ARMS, Surrogate, Task, new_study, searched, winner
from mc1opt.files import read_lines
from mc1opt.paths import user_path

WHAT = "quality"
WORKERS = (1, 2, 8, 32, 128, 1_000)
TRIALS = (100, 1_000)
REPETITIONS = 10
SEARCHES = {"local": ARMS["local, short (default)"], "random": ARMS["random, short"]}

Line = dict[str, Any]


def counts(workers: Sequence[int], trials: int) -> list[int]:
    """The numbers of workers that differ for so many trials: those beyond the trials have nothing to do."""
    return sorted({min(each, trials) for each in workers})


def search(sampler: str, surrogate: Surrogate, seed: int, trials: int, workers: int) -> Line:
    """One search: the accuracy without noise of what it names as its best, and minutes of its own clock."""
    arm, generator, started = SEARCHES[sampler], np.random.default_rng(seed), time.process_time()
    task = Task(trials=trials, seconds=math.inf, workers=workers)
    found = searched(arm, surrogate, generator, task, new_study(arm, seed))
    busy = sum(found.ends[number] - begin for number, begin in found.begins.items())
    stored = found.study.get_trials(deepcopy=False)
    return {
        "what": WHAT,
        "sampler": sampler,
        "trials": trials,
        "workers": workers,
        "seed": seed,
        "truth": winner(stored, found.truths, surrogate, generator),
        "trained": len(found.ends),
        "untrained": len(stored) - len(found.ends),
        "minutes": round(max(found.ends.values()) / 60, 2),
        "worker_minutes": round(busy / 60, 2),
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def key(line: Line) -> tuple[str, int, int, int]:
    """What tells searches apart."""
    return line["sampler"], line["trials"], line["workers"], line["seed"]


def missing(options: argparse.Namespace, lines: Sequence[Line]) -> Iterator[tuple[str, int, int, int]]:
    """What is asked for and not there, as `key` has it: all of one seed, then all of the next."""
    there = {key(line) for line in lines}
    for seed in range(options.repetitions):
        for trials in options.trials:
            for sampler in options.sampler:
                for workers in counts(options.workers, trials):
                    if (sampler, trials, workers, seed) not in there:
                        yield sampler, trials, workers, seed


def table(lines: Sequence[Line]) -> str:
    """A row for each number of trials and of workers: the samplers' means with their standard errors."""
    rows = []
    for trials, workers in sorted({(line["trials"], line["workers"]) for line in lines}):
        here = [line for line in lines if (line["trials"], line["workers"]) == (trials, workers)]
        row, minutes = [f"{trials:,}", f"{workers:,}"], "-"
        for sampler in SEARCHES:
            found = [line for line in here if line["sampler"] == sampler]
            row += _cells([line["truth"] for line in found])
            if found and sampler == "local":
                minutes = f"{statistics.mean(line['minutes'] for line in found):,.0f}"
        rows.append([*row, minutes])
    header = ["trials", "workers"]
    for sampler in SEARCHES:
        header += [f"{sampler}, accuracy", "searches"]
    return markdown_table([*header, "local, minutes"], rows)


def _cells(truths: Sequence[float]) -> list[str]:
    if len(truths) < 2:
        return [f"{truths[0]:.4f}" if truths else "-", str(len(truths))]
    error = statistics.stdev(truths) / math.sqrt(len(truths))
    return [f"{statistics.mean(truths):.4f} ± {error:.4f}", str(len(truths))]


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; see the top of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--trials", type=int, nargs="+", default=list(TRIALS))
    parser.add_argument("--workers", type=int, nargs="+", default=list(WORKERS))
    parser.add_argument("--sampler", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--table", action="store_true", help="search nothing, print what is there")
    parser.add_argument("--curves", type=user_path, default=RESULTS / "curves.jsonl")
    add_results_option(parser, "scale")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Replays what is missing, and prints the table."""
    options = parse_options(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    left = [] if options.table else list(missing(options, _stored(options)))
    if left:
        surrogate = Surrogate(read_lines(options.curves))
        machine = machine_facts()
        for sampler, trials, workers, seed in left:
            append_result(options.results, machine, search(sampler, surrogate, seed, trials, workers))
    print(table(_stored(options)))


def _stored(options: argparse.Namespace) -> list[Line]:
    return [line for line in read_lines(options.results) if line["what"] == WHAT]


if __name__ == "__main__":
    main()
