"""The command `mc1opt`: its subcommands and error handling."""

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
    explain,
    export,
    mirror,
    predict,
    presets,
    replay,
    report,
    retrain,
    run,
    show,
    studies,
)
from mc1opt.cli.api import CHOICES_WARNING
from mc1opt.errors import Mc1optError

app = typer.Typer(
    name="mc1opt",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="""Finds a good image classifier, for CIFAR-10 or for your own images, and shows why it is good.

\b
Examples:
  mc1opt run --study cnn --trials 100
  mc1opt run --study cnn --trials 100 --timeout 8m
  mc1opt show --study cnn
  mc1opt dashboard --study cnn --open
  mc1opt retrain --study cnn
  mc1opt explain --study cnn
  mc1opt report --study cnn
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
app.command("explain")(explain.explain)
app.command("report")(report.report)
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
        bool, typer.Option("--debug", help="Show tracebacks of errors; may stand behind the command.")
    ] = False,
) -> None:
    """Options of all commands, which `main` handles."""


def _showing_once() -> Callable[..., None]:
    """A `warnings.showwarning` that shows each warning once, in one line.

    Python's own "once" starts over whenever its filters change, as Optuna does often.
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
    """Runs the command line: errors on standard error, exit code 2 for wrong use, 1 for failure."""
    warnings.showwarning = _showing_once()
    warnings.filterwarnings("ignore", CHOICES_WARNING)
    # A sampler's matrices are small: threads would take the workers' cores, and change last bits of draws.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
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
    except BrokenPipeError:  # the reader of the pipe has ended: `mc1opt show | head`
        _drop_unprinted()
        sys.exit(1)
    except Exception as error:
        _drop_unprinted()
        if debug:
            raise
        typer.echo(
            f"Error: unexpected {type(error).__name__}: {error}. Run the command again with --debug for the "
            "traceback, and report it.",
            err=True,
        )
        sys.exit(1)
    sys.exit(code)


def _drop_unprinted() -> None:
    """Drops unprinted output: Python would fail on it at exit, with its own exit code."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
