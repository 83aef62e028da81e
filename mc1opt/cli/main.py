"""The command `mc1opt`: its commands, and how errors end."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from mc1opt import __version__
from mc1opt.cli import (
    dashboard,
    data,
    doctor,
    evaluate,
    export,
    mirror,
    predict,
    presets,
    replay,
    retrain,
    run,
    show,
    studies,
)
from mc1opt.errors import Mc1optError

app = typer.Typer(
    name="mc1opt",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="""Finds a good image classifier on CIFAR-10, and shows why it is good.

\b
Examples:
  mc1opt run --study cnn --trials 100
  mc1opt run --study cnn --trials 100 --timeout 8m
  mc1opt show --study cnn
  mc1opt dashboard --study cnn --open
  mc1opt retrain --study cnn
  mc1opt mirror --study cnn
  mc1opt export --study cnn --format onnx
  mc1opt predict storage/models/cnn photo.png
  mc1opt studies
  mc1opt presets
""",
)
app.command("run")(run.run)
app.add_typer(studies.app)
app.add_typer(presets.app)
app.command("show")(show.show)
app.command("dashboard")(dashboard.dashboard)
app.command("retrain")(retrain.retrain)
app.command("mirror")(mirror.mirror)
app.command("export")(export.export)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("replay")(replay.replay)
app.command("data")(data.data)
app.command("doctor")(doctor.doctor)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"mc1opt {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (may stand behind the command).")
    ] = False,
) -> None:
    """Options of all commands; `main` has acted on them already."""


def _showing_once() -> Callable[..., None]:
    """A `warnings.showwarning` for people: each in one line, once, though many draws give it.

    Python's own "once" begins anew with every change of its filters, of which Optuna has many.
    """
    shown: set[str] = set()

    def show(message: Warning | str, *where: Any, **_: Any) -> None:
        _category, filename, lineno, *_file = where
        ours = Path(filename).is_relative_to(Path(__file__).parents[1])
        line = f"Warning: {message}" + ("" if ours else f" ({filename}, line {lineno})")
        if line not in shown:
            shown.add(line)
            typer.echo(line, err=True)

    return show


def main() -> None:
    """Runs the command line: errors for people on standard error, 2 for wrong use, 1 for failure."""
    warnings.showwarning = _showing_once()
    # mc1opt looks at choices itself (`mc1opt.search.storable`).
    warnings.filterwarnings("ignore", "Choices for a categorical distribution")
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        try:
            code = app(arguments, prog_name="mc1opt", standalone_mode=True)
        finally:
            sys.stdout.flush()
    except Mc1optError as error:
        if debug:
            traceback.print_exception(error)
        typer.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of a pipe has gone: `mc1opt show | head`
        _drop_unprinted()
        sys.exit(1)
    except Exception as error:
        _drop_unprinted()
        if debug:
            raise
        typer.echo(
            f"Error: unexpected {type(error).__name__}: {error}. Give the command again with --debug for the "
            "traceback, which belongs in a report.",
            err=True,
        )
        sys.exit(1)
    sys.exit(code)


def _drop_unprinted() -> None:
    """Drops what cannot be printed; else Python complains of it at its end, with an exit code of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
