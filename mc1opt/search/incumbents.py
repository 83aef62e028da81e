"""Which trials are trained a second time within a search, and what a trial is worth to the sampler then.

The highest of a hundred values is high by luck, too, and a sampler that draws near it would follow luck. So
a trial that is just ahead of all earlier ones is trained again with a new seed, before the next draw, and is
worth the mean of both, as in racing (Lopez-Ibanez et al., 2016, "The irace package"; SMAC). Stored values
alone decide, in the order of the trials' numbers, so that interruptions change nothing.
"""

import math
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial, TrialState

from mc1opt.database import records
from mc1opt.database.records import own_trials
from mc1opt.database.trial import as_stored
from mc1opt.metric import ACCURACY, Metric
from mc1opt.seeds import derive_seed
from mc1opt.spec import CAUSED_BY_CONFIG

BEYOND_LUCK = 0.02
"""A lead of so much, as a share of 1, is more than seeds explain: they deviate by a fifth of it or less.
Of a metric that is no share nobody knows: there every lead is looked at."""


@dataclass
class Incumbents:
    """What a search takes its complete trials to be worth."""

    scores: dict[int, float] = field(default_factory=dict)
    """The mean score by number. A training that failed because of the config counts as 0 where the metric is
    a share of 1, else as the worst trial so far."""
    unrepeated: list[int] = field(default_factory=list)
    """Numbers of trials that lack their second training."""


def repeats(study: optuna.Study) -> bool:
    """Whether a search trains new incumbents again: a grid sampler, for one, knows nothing of it."""
    return getattr(study.sampler, "repeats", False)


def confirmation_seed(study_seed: int, number: int, index: int) -> int:
    """The seed of a trial's confirmation; the first one (0) also repeats a new incumbent."""
    return derive_seed(study_seed, number, "confirm", index)


def incumbents(
    study: optuna.Study, study_seed: int, metric: Metric = ACCURACY, target: float = math.inf
) -> Incumbents:
    """Goes through a study's own trials in the order of their numbers.

    Args:
        study: the study.
        study_seed: its seed.
        metric: what its values are.
        target: a new best score of at least this is trained again however far it is ahead.
    """
    found = Incumbents()
    best, worst = -math.inf, math.inf
    beyond_luck = BEYOND_LUCK if metric.is_share else math.inf
    for trial in own_trials(study):
        if trial.state != TrialState.COMPLETE or trial.value is None:
            continue
        score = metric.score(trial.value)
        worst = 0.0 if metric.is_share else min(worst, score)
        if best < score and (score <= best + beyond_luck or score >= target):
            seed = confirmation_seed(study_seed, trial.number, 0)
            again = _again(as_stored(study, trial), seed, metric, worst)
            if again is None:
                found.unrepeated.append(trial.number)
            else:
                score = (score + again) / 2.0
        best = max(best, score)
        found.scores[trial.number] = score
    return found


def _again(trial: FrozenTrial, seed: int, metric: Metric, worst: float) -> float | None:
    """The score with another seed; None if it is not known."""
    for entry in trial.user_attrs.get(records.CONFIRMATIONS, []):
        if entry["seed"] == seed:
            if entry["value"] is not None:
                return metric.score(float(entry["value"]))
            if entry.get("failure", {}).get("kind") in CAUSED_BY_CONFIG:
                return worst
    return None
