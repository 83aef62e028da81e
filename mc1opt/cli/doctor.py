"""`mc1opt doctor`: finding problems."""

import typer

from mc1opt.cli.options import DEFAULT_STORAGE, Data, Files, Json, Storage, located, print_result


def doctor(
    storage: Storage = DEFAULT_STORAGE, files: Files = None, data: Data = None, as_json: Json = False
) -> None:
    """Check packages, machine, study database and images.

    Prints a line per check, and below it what to do. Changes and downloads nothing. Exit code 1: a problem
    keeps a command from working.

    \b
    Examples:
      mc1opt doctor
      mc1opt doctor --storage other/study.db --json
    """
    from mc1opt.doctor.checks import examine

    diagnosis = examine(located(storage, files), data)
    print_result(diagnosis.to_json(), diagnosis.lines(), as_json)
    if diagnosis.has_problem:
        raise typer.Exit(1)
