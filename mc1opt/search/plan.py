"""The expected cost of a search, in seconds and bytes, before it starts."""

import contextlib
import statistics

import optuna

from mc1opt.config import Config
from mc1opt.database.records import StudyRecord, TrialRecord
from mc1opt.errors import NetworkError
from mc1opt.metric import Aim
from mc1opt.models.cost import cost
from mc1opt.search.definition import StudyDefinition
from mc1opt.spec import Fidelity

SHARE_TRAINED = 0.5
"""Share of the epochs of 100 trials that remains after the default pruner (`benchmarks/LOG.md`)."""
MEAN_COST = 1.8
"""Mean cost of an epoch in a search, relative to the typical config: samplers prefer larger networks."""
BEST_COST = 2.4
"""Cost of an epoch of the best configs, relative to the typical config: they are rarely small."""
TRIAL_BYTES = 40_000
"""Bytes of a trial in the database."""
LEAST_TRIALS = 5
"""Fewest trained trials from which a study's own speed is estimated."""
DRAWS = 64
"""Random configs among which `typical_config` chooses."""


def has_timings(record: StudyRecord) -> bool:
    """Whether a study has enough trained trials to estimate the time of others."""
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
    """Expected seconds of a search; None if unknown.

    Estimated from the study's own trials if it has enough, else from an epoch of a typical config.

    Args:
        record: the study so far.
        trials: total number of trials at the end.
        fidelity: fidelity of each trial.
        workers: trainings at once.
        pruner: name of the pruner.
        typical_epoch: seconds of an epoch of the typical config; None if not measured.
        confirmations: full trainings of the best configs that follow.
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
        each = share * fidelity.all_epochs * MEAN_COST * typical_epoch
        whole = fidelity.epochs * BEST_COST * typical_epoch
    else:
        return None
    # No more workers than trainings are busy.
    return left * each / max(min(workers, left), 1) + confirmations * whole / max(
        min(workers, confirmations), 1
    )


def expected_bytes(trials: int, keep: int, record: StudyRecord) -> int:
    """Expected bytes of a search on disk: the database, and the kept weights of 4 bytes per parameter."""
    parameters = [trial.parameters for trial in _trained(record) if trial.parameters] or [1_000_000]
    return trials * TRIAL_BYTES + keep * 4 * max(parameters)


def _trained(record: StudyRecord) -> list[TrialRecord]:
    return [trial for trial in record.trials if trial.outcome in ("complete", "pruned")]


def _seconds_by_trial(record: StudyRecord) -> list[float]:
    """Seconds of each trained trial: its epochs before pruning times their mean seconds."""
    return [
        trial.epoch_seconds * len(trial.values_by_epoch) for trial in _trained(record) if trial.epoch_seconds
    ]


def typical_config(definition: StudyDefinition, max_macs: int, aim: Aim | None = None) -> Config:
    """The random config whose cost is nearest to the mean of those that are not too large.

    The draws are those of `space_fingerprint`, which has checked that some are feasible.

    Raises:
        NetworkError: none of them has a network that can be built.
    """
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    configs = []
    for _ in range(DRAWS):
        with contextlib.suppress(optuna.TrialPruned):
            configs.append(definition.config(study.ask()))
    sizes, problem = {}, None
    for config in configs:
        try:
            sizes[config] = cost(config.architecture, definition.data.shape)
        except NetworkError as error:
            problem = error
    if not sizes and problem is not None:
        raise problem
    macs = {config: size.macs for config, size in sizes.items()}
    affordable = [
        config
        for config, size in sizes.items()
        if size.macs <= max_macs and (aim or Aim()).allows(parameters=size.parameters, macs=size.macs)
    ]
    if not affordable:
        return min(sizes, key=macs.__getitem__)
    mean = sum(macs[config] for config in affordable) / len(affordable)
    return min(affordable, key=lambda config: abs(macs[config] - mean))
