"""`mc1opt replay`: training a trial again and comparing the learning curves."""

import sys
from typing import Annotated

import typer

from mc1opt.cli.options import DEFAULT_STORAGE, Data, Files, Json, Storage, StoredStudy, located, print_result
from mc1opt.cli.values import at_least


def replay(
    study: StoredStudy,
    trial: Annotated[int, typer.Option(help="Number of the trial.")],
    storage: Storage = DEFAULT_STORAGE,
    files: Files = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Train a trial again and compare the learning curves.

    Exit code 0: they are equal, bit for bit. 1: they differ (from which epoch on is printed), or cannot be
    compared, because the trial was trained on another CPU capability, torch build or device.

    \b
    Examples:
      mc1opt replay --study cnn --trial 7
    """
    at_least(trial, 0, "--trial")

    from mc1opt.retraining.replay import replay as run_replay

    result = run_replay(
        located(storage, files), study, trial, data=data, output=sys.stderr if as_json else sys.stdout
    )
    print_result(result.to_json(), [result.line()], as_json)
    if not result.equal:
        raise typer.Exit(1)
