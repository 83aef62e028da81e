"""Trials as the rows of a table: what `show --csv` prints, and what a pandas frame is made of."""

import statistics
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mc1opt.database.records import TrialRecord

AS_THEY_ARE = (
    "number", "state", "outcome", "value", "accuracy", "config_id", "seed", "parameters", "macs", "seconds",
    "epoch_seconds", "started", "ended", "starting_point", "duplicate_of",
)  # fmt: skip
"""Columns that are fields of `TrialRecord`."""


def rows(trials: Iterable["TrialRecord"]) -> list[dict[str, Any]]:
    """A flat dict for each trial, all with the same keys in the same order; None for what a trial lacks.

    Besides the columns of `AS_THEY_ARE`: "epochs", how many it trained; "value_again", the mean of its
    trainings with new seeds; "failure", its kind; and "params_NAME" for each parameter, as in Optuna's
    `trials_dataframe`, the ones drawn first at first.
    """
    trials = list(trials)
    names = {name: None for trial in trials for name in trial.params}
    table = []
    for trial in trials:
        again = [entry["value"] for entry in trial.confirmations if entry["value"] is not None]
        row = {name: getattr(trial, name) for name in AS_THEY_ARE}
        row["epochs"] = len(trial.values_by_epoch)
        row["value_again"] = statistics.fmean(again) if again else None
        row["failure"] = trial.failure["kind"] if trial.failure else None
        table.append(row | {f"params_{name}": trial.params.get(name) for name in names})
    return table
