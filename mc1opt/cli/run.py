"""`mc1opt run`: searches."""

import json
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from mc1opt.cli.options import DEFAULT_STORAGE, Data, Json, Storage, Study, at_least, parse_duration

if TYPE_CHECKING:
    from mc1opt.search.run import StopFlag


def run(
    study: Study,
    trials: Annotated[int, typer.Option(help="How many trials the study shall have in all.")] = 100,
    name: Annotated[
        str | None, typer.Option(help="The name to store it under [default: the study's].")
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    epochs: Annotated[int | None, typer.Option(help="Epochs a trial [default: the study's].")] = None,
    train_images: Annotated[
        int | None, typer.Option(help="Training images a trial [default: the study's].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The study's seed [default: 0].")] = None,
    timeout: Annotated[
        str | None, typer.Option(help="Stop in good order after this time: 90s, 8m, 1h30m.")
    ] = None,
    workers: Annotated[str, typer.Option(help="Trainings at once: a number, or auto.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    sampler: Annotated[str, typer.Option(help="tpe or random.")] = "tpe",
    pruner: Annotated[str, typer.Option(help="narrowing, median, halving or none.")] = "narrowing",
    max_macs: Annotated[
        int | None,
        typer.Option(help="Multiply-accumulates an image above which a network is too large."),
    ] = None,
    max_failures: Annotated[int, typer.Option(help="Failed trials in a row that end the search.")] = 10,
    confirm: Annotated[
        int, typer.Option(help="How many of the best are trained again with two new seeds; 0 for none.")
    ] = 3,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Search: create a study, or go on with it.

    It ends when the study has --trials trials; the same command again goes on where it stopped.

    \b
    Examples:
      mc1opt run --study cnn --trials 100
      mc1opt run --study cnn --trials 100 --timeout 8m     the same command without it goes on later
      mc1opt run --study path/to/mine.py --name mine-2
    """
    at_least(trials, 1, "--trials")
    at_least(epochs, 1, "--epochs")
    at_least(train_images, 1, "--train-images")
    at_least(max_macs, 1, "--max-macs")
    at_least(max_failures, 1, "--max-failures")
    at_least(confirm, 0, "--confirm")
    at_least(seed, 0, "--seed")
    seconds = parse_duration(timeout, "--timeout")

    from mc1opt.search.command import SearchCommand, search
    from mc1opt.search.run import StopFlag

    stop = StopFlag()
    signals = _Signals(stop)
    try:
        ended = search(
            SearchCommand(
                study=study,
                trials=trials,
                name=name,
                storage=storage,
                epochs=epochs,
                train_images=train_images,
                seed=seed,
                timeout=seconds,
                workers=workers,
                device=device,
                sampler=sampler,
                pruner=pruner,
                max_macs=max_macs,
                max_failures=max_failures,
                confirm=confirm,
                data=data,
            ),
            stop=stop,
            on_start=signals.leave_to_the_search,
            output=sys.stderr if as_json else sys.stdout,
        )
    except _StoppedEarlyError:
        typer.echo("Stopped before the search began.", err=True)
        raise typer.Exit(signals.exit_code) from None
    if as_json:
        typer.echo(json.dumps(ended.record.to_json(), indent=2))
    if ended.reason in ("timeout", "signal"):
        typer.echo(f"Go on with:               {_resume_command()}", err=as_json)
    raise typer.Exit(signals.exit_code)


class _StoppedEarlyError(BaseException):
    """A signal came before the search began."""


class _Signals:
    """The first SIGINT or SIGTERM stops in good order, the second at once.

    Before the search begins there is nothing to keep, but much to wait for: a download, another process's
    lock. A signal ends that by an exception; the search itself looks at the flag.
    """

    def __init__(self, stop: "StopFlag") -> None:
        self._stop = stop
        self._searching = False
        self._first: int | None = None
        signal.signal(signal.SIGINT, self._handle)
        signal.signal(signal.SIGTERM, self._handle)

    @property
    def exit_code(self) -> int:
        """128 and the number of the first signal, as shells have it; 0 without one."""
        return 0 if self._first is None else 128 + self._first

    def leave_to_the_search(self) -> None:
        """From now on the search sees to its end."""
        self._searching = True

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._first is not None:
            # The workers end with their parent; running trials are taken up at the next start.
            os._exit(128 + number)
        self._first = number
        self._stop.set("signal", signal.Signals(number).name)
        if not self._searching:
            raise _StoppedEarlyError


def _resume_command() -> str:
    """The command as it was given, without --timeout."""
    arguments: list[str] = []
    skip = False
    for argument in sys.argv[1:]:
        if not skip and argument != "--timeout" and not argument.startswith("--timeout="):
            arguments.append(argument)
        skip = argument == "--timeout"
    return shlex.join([_program(), *arguments])


def _program() -> str:
    """How this program was called; by its bare name where the shell finds it so."""
    called = sys.argv[0]
    found = shutil.which("mc1opt")
    return "mc1opt" if found and Path(called).is_absolute() and Path(found).samefile(called) else called
