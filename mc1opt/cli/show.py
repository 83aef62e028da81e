"""`mc1opt show`: a stored study, or one of its trials."""

from typing import Annotated

import typer

from mc1opt.cli.options import DEFAULT_STORAGE, Json, Storage, StoredStudy, print_result


def show(
    study: StoredStudy,
    trial: Annotated[int | None, typer.Option(help="Show this trial in full.")] = None,
    storage: Storage = DEFAULT_STORAGE,
    as_json: Json = False,
) -> None:
    """Show a stored study: its best trials and counts.

    \b
    Examples:
      mc1opt show --study cnn
      mc1opt show --study cnn --trial 7
      mc1opt show --study cnn --json
    """
    from mc1opt.database.studies import read_study
    from mc1opt.display.tables import study_lines, trial_lines

    record = read_study(storage, study, trial)
    lines = study_lines(record) if trial is None else trial_lines(record.trials[0])
    print_result(record.to_json(), lines, as_json)
