"""What a search will cost, said before it starts: minutes and disk."""

import contextlib
import statistics
from collections.abc import Callable

import optuna

from mc1opt.config import Config
from mc1opt.database.records import StudyRecord, TrialRecord
from mc1opt.models.cost import cost
from mc1opt.search.definition import StudyDefinition
from mc1opt.spec import DataSet, Device, Fidelity, Precision
from mc1opt.workers.pool import Pool
from mc1opt.workers.speed import epoch_seconds

SHARE_TRAINED = 0.45
"""Of the epochs of 100 trials, what the default pruner leaves to be trained (`benchmarks/LOG.md`)."""
MEAN_COST = 1.1
"""Of an epoch in a search, in those of the typical config: samplers soon prefer larger networks."""
BEST_COST = 1.4
"""Of an epoch of the best configs, likewise: they are rarely small."""
TRIAL_BYTES = 40_000
"""Of a trial in the database."""
LEAST_TRIALS = 5
"""Trained trials of the study from which its own speed is taken."""


def has_timings(record: StudyRecord) -> bool:
    """Whether a study has enough trained trials to say how long others take."""
    return len(_seconds_by_trial(record)) >= LEAST_TRIALS


def expected_seconds(
    record: StudyRecord,
    *,
    trials: int,
    fidelity: Fidelity,
    workers: int,
    pruner: str,
    typical_epoch: float | None = None,
    confirmations: int = 0,
) -> float | None:
    """About how long a search takes; None where nothing is known.

    From the study's own trials where it has some; else from an epoch of a typical config on this machine.

    Args:
        record: the study as it is.
        trials: the total that it shall have.
        fidelity: of each.
        workers: how many train at once.
        pruner: its name.
        typical_epoch: seconds (`mc1opt.workers.speed`); None where it was not measured.
        confirmations: trainings to the end that follow, of the best configs.
    """
    trained = _trained(record)
    left = max(trials - len(trained), 0)
    if has_timings(record):
        seconds = _seconds_by_trial(record)
        each = statistics.mean(seconds)
        whole = fidelity.epochs * statistics.mean(
            trial.epoch_seconds for trial in trained if trial.epoch_seconds
        )
    elif typical_epoch is not None:
        share = 1.0 if pruner == "none" else SHARE_TRAINED
        each = share * fidelity.epochs * MEAN_COST * typical_epoch
        whole = fidelity.epochs * BEST_COST * typical_epoch
    else:
        return None
    # The last training is done by one worker, however many there are.
    return left * each / max(min(workers, left), 1) + confirmations * whole / max(
        min(workers, confirmations), 1
    )


def expected_bytes(trials: int, keep: int, record: StudyRecord) -> int:
    """About how much disk a search takes: the database, and the kept weights, 4 bytes a parameter."""
    parameters = [trial.parameters for trial in _trained(record) if trial.parameters] or [1_000_000]
    return trials * TRIAL_BYTES + keep * 4 * max(parameters)


def _trained(record: StudyRecord) -> list[TrialRecord]:
    return [trial for trial in record.trials if trial.outcome in ("complete", "pruned")]


def _seconds_by_trial(record: StudyRecord) -> list[float]:
    """What the trained trials took, each with as many epochs as it was left."""
    return [
        trial.epoch_seconds * len(trial.values_by_epoch) for trial in _trained(record) if trial.epoch_seconds
    ]


DRAWS = 64
"""Random configs, from which the typical one is taken."""


def typical_config(definition: StudyDefinition, max_macs: int) -> Config:
    """The random config whose cost is nearest to the mean of those that are not too large.

    The draws are among those of `space_fingerprint`, which has made sure that some are feasible.
    """
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    configs = []
    for _ in range(DRAWS):
        with contextlib.suppress(optuna.TrialPruned):
            configs.append(definition.config(study.ask()))
    macs = {config: cost(config.architecture).macs for config in configs}
    affordable = [config for config in configs if macs[config] <= max_macs]
    if not affordable:
        return min(configs, key=macs.__getitem__)
    mean = sum(macs[config] for config in affordable) / len(affordable)
    return min(affordable, key=lambda config: abs(macs[config] - mean))


def typical_epoch_seconds(
    definition: StudyDefinition,
    pool: Pool,
    *,
    data: DataSet,
    fidelity: Fidelity,
    max_macs: int,
    device: Device,
    precision: Precision,
    interrupted: Callable[[], bool] = lambda: False,
) -> float | None:
    """Seconds that an epoch of the typical config takes while all workers train; see `epoch_seconds`.

    Takes about 3 seconds on a CPU, and the workers' start, which a search waits for anyway.

    Args:
        definition: what is searched.
        pool: who trains, with nothing else to do yet.
        data: the images.
        fidelity: of the epoch that is asked for.
        max_macs: above which a network is not trained.
        device: where.
        precision: in which.
        interrupted: whether to give up; the pool is interrupted then.

    Returns:
        None if a training failed, or was given up.

    Raises:
        WorkerError: no worker can be started.
    """
    return epoch_seconds(
        typical_config(definition, max_macs),
        pool,
        data=data,
        fidelity=fidelity,
        device=device,
        precision=precision,
        interrupted=interrupted,
    )
