"""`mc1opt report`: the story of a study on one page."""

from pathlib import Path
from typing import Annotated

import typer

from mc1opt.cli.options import DEFAULT_STORAGE, Files, Storage, StoredStudy, located
from mc1opt.paths import user_path


def report(
    study: StoredStudy,
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write [default: storage/reports/STUDY.html].", parser=user_path, metavar="<path>"
        ),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    files: Files = None,
) -> None:
    """Write the story of a study on one HTML page.

    It needs no network, and can be sent to somebody: what was found, whether that can be believed, what made
    the difference, what the search did, what else there is to take, where the model is wrong, and how to
    repeat it. `mc1opt run`, `mc1opt retrain` and `mc1opt explain` write it at their end. Prints the path.

    \b
    Examples:
      mc1opt report --study cnn
      mc1opt report --study cnn --output cnn.html
    """
    from mc1opt.report.page import write_report

    typer.echo(write_report(located(storage, files), study, output))
