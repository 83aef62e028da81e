"""`mc1opt show`: a stored study, or one of its trials."""

from typing import Annotated

import typer

from mc1opt.cli.options import (
    DEFAULT_STORAGE,
    Files,
    Json,
    Storage,
    StoredStudy,
    located,
    print_csv,
    print_result,
)
from mc1opt.errors import UsageError


def show(
    study: StoredStudy,
    trial: Annotated[int | None, typer.Option(help="Show this trial in full.")] = None,
    storage: Storage = DEFAULT_STORAGE,
    files: Files = None,
    as_json: Json = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print only CSV on standard output: a row for each trial.")
    ] = False,
) -> None:
    """Show a stored study: its best trials and counts.

    \b
    Examples:
      mc1opt show --study cnn
      mc1opt show --study cnn --trial 7
      mc1opt show --study cnn --json
      mc1opt show --study cnn --csv > trials.csv
    """
    from mc1opt.database.studies import read_study
    from mc1opt.display.tables import study_lines, trial_lines

    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other: give one of them.")
    record = read_study(located(storage, files), study, trial)
    if as_csv:
        print_csv(record.rows())
        return
    lines = study_lines(record) if trial is None else trial_lines(record.trials[0])
    print_result(record.to_json(), lines, as_json)
