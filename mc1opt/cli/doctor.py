"""`mc1opt doctor`: finding problems."""

import typer

from mc1opt.cli.options import DEFAULT_STORAGE, Data, Json, Storage, print_json


def doctor(storage: Storage = DEFAULT_STORAGE, data: Data = None, as_json: Json = False) -> None:
    """Check packages, machine, study database and images.

    Prints a line per check, and below it what to do. Changes and downloads nothing. Exit code 1: a problem
    keeps a command from working.

    \b
    Examples:
      mc1opt doctor
      mc1opt doctor --storage other/study.db --json
    """
    from mc1opt.doctor.checks import examine

    diagnosis = examine(storage, data)
    if as_json:
        print_json(diagnosis.to_json())
    else:
        for line in diagnosis.lines():
            typer.echo(line)
    if diagnosis.has_problem:
        raise typer.Exit(1)
