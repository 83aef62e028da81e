"""Whole searches replayed in seconds on a model of recorded learning curves: which sampler and pruner finds?

At the top of the repository:

    python -m benchmarks.replay                    all arms, 20 searches each
    python -m benchmarks.replay --arm local        one of them
    python -m benchmarks.replay --error            how wrong the model is on configs that it has not seen,
                                                   and which early values tell the end of the curves

The model is fitted to `benchmarks/results/curves.jsonl`, which `benchmarks/curves.py` records: extremely
randomised trees (Geurts, Ernst and Wehenkel, 2006) from a config's parameters and cost to its accuracies
after each epoch, with the seed noise of the configs that were trained thrice. A replay asks the real sampler
and the real pruner, has two workers whose epochs take what their multiply-accumulates take, and ends after
100 trials or 30 minutes of their clock. What is reported is the noise-free accuracy of the config that the
search would name as its best. Not here: real trainings; what a replay chooses is to be confirmed by them.
"""

import argparse
import heapq
import itertools
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import spearmanr

from benchmarks.common import add_results_option, markdown_table
from benchmarks.curves import DEFINITION
from benchmarks.replay_model import LONG, SHORT, Surrogate
from benchmarks.replay_samplers import Evolution, Incumbent, LocalSearch, Smac
from mc1opt.config import config_id, config_to_json
from mc1opt.database import records
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.files import read_lines
from mc1opt.models.cost import cost
from mc1opt.search.definition import StudyDefinition
from mc1opt.search.local import LocalSampler
from mc1opt.search.pruning import make_pruner
from mc1opt.search.sampling import STARTUP, SeededSampler, make_sampler
from mc1opt.search.stop_conditions import MAX_UNTRAINED

HELD_OUT, UNUSED = 5_000, 27_000
"""Images that validate."""
WORKERS = 2
TRIALS = 100
SECONDS = 1800.0
REPETITIONS = 20
FINALISTS = 3
LEAST = (0.0, 0.75, 0.78, 0.8)
"""Accuracies at the end, above which early values are compared with it."""


@dataclass(frozen=True)
class Arm:
    """A way to search."""

    sampler: Callable[[int], BaseSampler]
    pruner: Callable[[], BasePruner]
    validation: int = 5_000
    """Images after the last epoch."""
    short: int = 0
    """Epochs of the short schedule."""


def own(make: Callable[[int], BaseSampler], seed: int) -> BaseSampler:
    """A sampler as mc1opt uses its own one."""
    return SeededSampler(make, seed, STARTUP["local"])


def short() -> BasePruner:
    """The default pruner after a short schedule."""
    return make_pruner("narrowing", SHORT)


def narrowing() -> BasePruner:
    """The default pruner without one."""
    return make_pruner("narrowing")


ARMS: dict[str, Arm] = {
    "random": Arm(RandomSampler, NopPruner),
    "random, ASHA": Arm(RandomSampler, lambda: SuccessiveHalvingPruner(1, 2)),
    "random, Hyperband": Arm(RandomSampler, lambda: HyperbandPruner(1, LONG, 2)),
    "random, short": Arm(RandomSampler, short, UNUSED, SHORT),
    "Optuna's TPE, median": Arm(lambda seed: TPESampler(seed=seed), MedianPruner),
    "tpe, narrowing (before)": Arm(partial(make_sampler, "tpe"), narrowing),
    "tpe, short": Arm(partial(make_sampler, "tpe"), short, UNUSED, SHORT),
    "evolution, short": Arm(partial(own, Evolution), short, UNUSED, SHORT),
    "local search, short": Arm(partial(own, LocalSearch), short, UNUSED, SHORT),
    "PriorBand's rule, short": Arm(partial(own, Incumbent), short, UNUSED, SHORT),
    "SMAC's, short": Arm(partial(own, Smac), short, UNUSED, SHORT),
    "local, none": Arm(partial(own, LocalSampler), NopPruner, UNUSED),
    "local, narrowing": Arm(partial(own, LocalSampler), narrowing, UNUSED),
    "local, short, 5,000": Arm(partial(own, LocalSampler), short, HELD_OUT, SHORT),
    "local, short (default)": Arm(partial(own, LocalSampler), short, UNUSED, SHORT),
}


@dataclass(frozen=True)
class Replay:
    """What a replayed search has found."""

    truth: float
    """The accuracy without noise of the config that it names as its best."""
    seconds: float
    trained: int


@dataclass(frozen=True)
class Searched:
    """A replayed search."""

    study: optuna.Study
    truths: dict[int, float]
    """The accuracy without noise of each complete trial."""
    ends: dict[int, float]
    """Seconds after which each trained trial ended."""
    begins: dict[int, float] = field(default_factory=dict)
    """Seconds after which it began."""


@dataclass(frozen=True)
class Task:
    """What is searched."""

    definition: StudyDefinition = DEFINITION
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the model that the search space does not suggest."""
    trials: float = TRIALS
    seconds: float = SECONDS
    workers: int = WORKERS


def new_study(arm: Arm, seed: int) -> optuna.Study:
    """A study without trials."""
    return optuna.create_study(direction="maximize", sampler=arm.sampler(seed), pruner=arm.pruner())


def replay(
    arm: Arm, surrogate: Surrogate, seed: int, task: Task | None = None, study: optuna.Study | None = None
) -> Replay:
    """What one search finds; see `searched`."""
    generator = np.random.default_rng(seed)
    found = searched(arm, surrogate, generator, task or Task(), study or new_study(arm, seed))
    truth = winner(found.study.get_trials(deepcopy=False), found.truths, surrogate, generator)
    return Replay(truth, max(found.ends.values()), len(found.ends))


def searched(
    arm: Arm, surrogate: Surrogate, generator: np.random.Generator, task: Task, study: optuna.Study
) -> Searched:
    """A search in `study`, which may have starting points that wait; ends all trials that it begins.

    A worker asks as soon as it is free. Asking takes none of the clock's time, however many ask at once; the
    sampler sees what has ended by then, not what is in training.
    """
    events: list[tuple[float, int, Any]] = [(0.0, worker, None) for worker in range(task.workers)]
    serial = itertools.count(task.workers)
    truths: dict[int, float] = {}
    begins: dict[int, float] = {}
    ends: dict[int, float] = {}
    seen: set[str] = set()
    trained: float = 0
    while events:
        clock, _, running = heapq.heappop(events)
        if running is None:
            if trained >= task.trials or clock >= task.seconds:
                continue
            if (running := begin(study, surrogate, seen, arm.short, task)) is None:
                trained = task.trials  # as a search ends then
                continue
            trained += 1
            begins[running[0].number] = clock
        else:
            trial, curve, means, epoch, each = running
            noise = arm.validation if epoch == len(curve) - 1 else 5_000
            value = generator.binomial(noise, means[epoch]) / noise
            trial.report(value, epoch)
            if epoch == len(curve) - 1:
                study.tell(trial, value)
                truths[trial.number] = float(curve[-1])
                running = None
            elif trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                running = None
            else:
                running = (trial, curve, means, epoch + 1, each)
            if running is None:
                ends[trial.number] = clock
                heapq.heappush(events, (clock, next(serial), None))
                continue
        if len(running) == 3:
            trial, curve, each = running
            deviations = generator.normal(0.0, surrogate.seed_noise, 2).repeat((arm.short, LONG))
            running = (trial, curve, np.clip(curve + deviations, 0.0, 1.0), 0, each)
        heapq.heappush(events, (clock + running[4], next(serial), running))
    return Searched(study, truths, ends, begins)


def begin(study: optuna.Study, surrogate: Surrogate, seen: set[str], short: int, task: Task) -> Any:
    """The next trial to train, with its curve and the seconds of an epoch; None if nothing new is left."""
    for _ in range(MAX_UNTRAINED):
        trial = study.ask()
        config = task.definition.config(trial)
        identity, macs = config_id(config), cost(config.architecture, CIFAR10_SHAPE).macs
        for key, value in (
            (records.OWNER, {"pid": 0}),
            (records.CONFIG, config_to_json(config)),
            (records.CONFIG_ID, identity),
            (records.EPOCH_SECONDS, surrogate.epoch_seconds(macs)),
        ):
            trial.set_user_attr(key, value)
        if macs > task.definition.max_macs:
            trial.set_constraint(records.TOO_LARGE, macs / task.definition.max_macs - 1.0)
            study.tell(trial, state=TrialState.PRUNED)
        elif identity in seen:
            trial.set_user_attr(records.DUPLICATE_OF, 0)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            seen.add(identity)
            params = {**task.fixed, **trial.params}
            schedules = [surrogate.curve(params, config, epochs) for epochs in (short, LONG)]
            return trial, np.concatenate(schedules), surrogate.epoch_seconds(macs)
    return None


def winner(
    trials: Sequence[FrozenTrial],
    truths: dict[int, float],
    surrogate: Surrogate,
    generator: np.random.Generator,
) -> float:
    """The truth of the finalist that two new trainings say is the best."""
    complete = [trial for trial in trials if trial.number in truths]
    finalists = sorted(complete, key=lambda trial: -(trial.value or 0.0))[:FINALISTS]
    noise = math.hypot(surrogate.seed_noise, math.sqrt(0.2 * 0.8 / 5_000)) / math.sqrt(2.0)
    return max(
        (truths[trial.number] + generator.normal(0.0, noise), truths[trial.number]) for trial in finalists
    )[1]


def rank_table(values: NDArray[np.float64]) -> str:
    """Rank correlations of early values with the end of the long schedule, above several values at the end.

    Args:
        values: of whole trainings, N x `Surrogate.COLUMNS`.
    """
    columns = {f"epoch {epoch + 1} of {whole}": i for i, (whole, epoch) in enumerate(Surrogate.COLUMNS)}
    end = values[:, columns.pop(f"epoch {LONG} of {LONG}")]
    rows = []
    for least in LEAST:
        chosen = end > least
        found = [spearmanr(values[chosen, i], end[chosen]).statistic for i in columns.values()]
        rows.append([f"above {least}", str(chosen.sum()), *(f"{each:.2f}" for each in found)])
    return markdown_table(["at the end", "trainings", *columns], rows)


def main() -> None:
    """Replays what is asked for, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_results_option(parser, "curves")
    parser.add_argument("--arm", choices=sorted(ARMS), action="append")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--error", action="store_true")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    surrogate = Surrogate(list(read_lines(options.results)))
    if options.error:
        pairs = np.array(surrogate.errors())
        rmse = math.sqrt(float(np.mean((pairs[:, 0] - pairs[:, 1]) ** 2)))
        found = spearmanr(pairs[:, 0], pairs[:, 1]).statistic
        print(f"{len(pairs)} trainings left out: error {rmse:.4f}, rank correlation {found:.2f}\n")
        print(rank_table(surrogate.values[surrogate.whole]))
        return
    rows = []
    for name in options.arm or ARMS:
        done = [replay(ARMS[name], surrogate, seed) for seed in range(options.repetitions)]
        truths = [each.truth for each in done]
        deviation = statistics.stdev(truths) if len(truths) > 1 else 0.0
        rows.append(
            [
                name,
                f"{statistics.mean(truths):.4f}",
                f"{deviation / math.sqrt(len(truths)):.4f}",
                f"{min(truths):.4f}",
                f"{statistics.mean(each.seconds for each in done) / 60:.1f}",
                f"{statistics.mean(each.trained for each in done):.0f}",
            ]
        )
        print(f"{name}: {rows[-1][1]}", file=sys.stderr, flush=True)
    print(markdown_table(["arm", "accuracy", "standard error", "worst", "minutes", "trials"], rows))


if __name__ == "__main__":
    main()
