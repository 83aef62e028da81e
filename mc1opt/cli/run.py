"""`mc1opt run`: searches."""

import json
import shlex
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
    trials: Annotated[int, typer.Option(help="The total that the study shall have; again resumes.")] = 100,
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
    """Search: create a study, or go on with it until it has --trials trials.

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
    caught = _stop_on_signals(stop)
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
        output=sys.stderr if as_json else sys.stdout,
    )
    if as_json:
        typer.echo(json.dumps(ended.record.to_json(), indent=2))
    if ended.reason in ("timeout", "signal"):
        typer.echo(f"Go on with: {_resume_command()}", err=as_json)
    if caught:
        raise typer.Exit(128 + caught[0])


def _stop_on_signals(stop: "StopFlag") -> list[int]:
    """The first SIGINT or SIGTERM stops in good order, the second at once; returns the list of them."""
    caught: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        if len(caught) > 1:
            # The workers end with their parent; running trials are taken up at the next start.
            import os

            os._exit(128 + number)
        stop.set("signal", signal.Signals(number).name)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return caught


def _resume_command() -> str:
    """The command as it was given, without --timeout."""
    arguments: list[str] = []
    skip = False
    for argument in sys.argv[1:]:
        if not skip and argument != "--timeout" and not argument.startswith("--timeout="):
            arguments.append(argument)
        skip = argument == "--timeout"
    program = sys.argv[0] if "/" in sys.argv[0] and not Path(sys.argv[0]).is_absolute() else "mc1opt"
    return shlex.join([program, *arguments])
