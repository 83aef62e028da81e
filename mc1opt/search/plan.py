"""What a search will cost, said before it starts: minutes and disk."""

import statistics
import time

import numpy as np
import optuna

from mc1opt.models.cost import cost
from mc1opt.search.records import StudyRecord, TrialRecord
from mc1opt.search.space import StudyDefinition
from mc1opt.spec import Device, Fidelity, Precision
from mc1opt.workers.resources import available_cpus

SHARE_TRAINED = 0.5
"""Of the epochs of 100 trials, what the pruner leaves to be trained (`benchmarks/LOG.md`)."""
BFLOAT16_SPEEDUP = 1.6
"""Of a whole training on a CPU with instructions for it (`benchmarks/LOG.md`)."""
MATRIX = 1024
"""Side of the matrices whose product measures the CPU."""
PRODUCTS = 20
"""How many of them are timed."""
TRIAL_BYTES = 40_000
"""Of a trial in the database."""
LEAST_TRIALS = 5
"""Trained trials of the study from which its own speed is taken."""


def expected_seconds(
    definition: StudyDefinition,
    record: StudyRecord,
    *,
    trials: int,
    fidelity: Fidelity,
    max_macs: int,
    workers: int,
    device: Device,
    precision: Precision,
    confirmations: int = 0,
) -> float | None:
    """About how long a search takes; None where nothing is known (a GPU without trials yet).

    From the study's own trials where it has some; else from the speed of a matrix product and the networks
    that the search space gives.

    Args:
        definition: what is searched.
        record: the study as it is.
        trials: the total that it shall have.
        fidelity: of each.
        max_macs: above which a network is not trained.
        workers: how many train at once.
        device: where.
        precision: in which.
        confirmations: trainings to the end that follow, of the best configs.
    """
    trained = _trained(record)
    left = max(trials - len(trained), 0)
    busy = max(min(workers, left), 1)  # the last trial is trained by one worker, however many there are
    spent = [
        (trial.epoch_seconds or 0.0) * len(trial.values_by_epoch) for trial in trained if trial.epoch_seconds
    ]
    if len(spent) >= LEAST_TRIALS:
        whole = fidelity.epochs * statistics.mean(
            trial.epoch_seconds for trial in trained if trial.epoch_seconds
        )
        return left * statistics.mean(spent) / busy + confirmations * whole / max(
            min(workers, confirmations), 1
        )
    if device != "cpu":
        return None
    speedup = BFLOAT16_SPEEDUP if precision == "bfloat16" else 1.0
    # Forward and backward pass, two operations a multiply-accumulate, and validation after each epoch.
    each = 6.0 * fidelity.train_images * fidelity.epochs * 1.1
    # The best networks are rarely small.
    macs = left * SHARE_TRAINED * _mean_macs(definition, max_macs) + confirmations * max_macs
    cpus = min(busy / available_cpus(), 1.0)  # a worker keeps one busy
    return each * macs / (_operations_per_second() * cpus * speedup)


def expected_bytes(trials: int, keep: int, record: StudyRecord) -> int:
    """About how much disk a search takes: the database, and the kept weights, 4 bytes a parameter."""
    parameters = [trial.parameters for trial in _trained(record) if trial.parameters] or [1_000_000]
    return trials * TRIAL_BYTES + keep * 4 * max(parameters)


def _trained(record: StudyRecord) -> list[TrialRecord]:
    return [trial for trial in record.trials if trial.outcome in ("complete", "pruned")]


def _mean_macs(definition: StudyDefinition, max_macs: int, draws: int = 64) -> float:
    """The mean over random networks that are not too large; the search soon prefers larger ones."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    macs = [cost(definition.config(study.ask()).architecture).macs for _ in range(draws)]
    return statistics.mean([value for value in macs if value <= max_macs] or [max_macs])


def _operations_per_second() -> float:
    """Floating-point operations a second of all CPUs together, in a matrix product; takes some 0.3 s.

    The fastest of many short products: whatever else starts at this moment disturbs only some of them.
    """
    generator = np.random.default_rng(0)
    a, b = (generator.random((MATRIX, MATRIX), dtype=np.float32) for _ in range(2))
    a @ b
    times = []
    for _ in range(PRODUCTS):
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    return 2.0 * MATRIX**3 / min(times)
