"""`mc1opt run`: searching."""

import sys
from typing import Annotated

import typer

from mc1opt.cli.options import (
    DEFAULT_STORAGE,
    Data,
    DeviceName,
    ImageSize,
    Json,
    MaxUnreadable,
    Storage,
    Study,
    Timeout,
    Wandb,
    Workers,
    print_json,
    wandb_mode,
)
from mc1opt.cli.signals import Signals, resume_command
from mc1opt.cli.values import at_least, parse_duration
from mc1opt.errors import SearchStoppedError


def run(
    study: Study,
    trials: Annotated[int, typer.Option(help="Total number of trials in the study.")] = 100,
    name: Annotated[
        str | None, typer.Option(help="Name of the stored study [default: the definition's].")
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    epochs: Annotated[int | None, typer.Option(help="Epochs per trial [default: the study's].")] = None,
    train_images: Annotated[
        int | None, typer.Option(help="Training images per trial [default: the study's].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The study's seed [default: 0].")] = None,
    timeout: Timeout = None,
    workers: Workers = "auto",
    device: DeviceName = "auto",
    sampler: Annotated[
        str | None, typer.Option(help="local, tpe, random or grid [default: the study's, else local].")
    ] = None,
    pruner: Annotated[
        str | None,
        typer.Option(help="narrowing, median, halving or none [default: the study's, else narrowing]."),
    ] = None,
    max_macs: Annotated[
        int | None,
        typer.Option(help="Largest network, in multiply-accumulates per image [default: the study's]."),
    ] = None,
    max_trial_time: Annotated[
        str, typer.Option(help="Time limit of a trial, above which it fails: 90s, 8m, 1h30m.")
    ] = "2h",
    max_failures: Annotated[int, typer.Option(help="Failed trials in a row that stop the search.")] = 10,
    confirm: Annotated[
        int, typer.Option(help="Number of best trials trained again with two new seeds; 0 for none.")
    ] = 3,
    keep: Annotated[
        int,
        typer.Option(
            help="Number of best trials that keep their weights, and as many of the best with new seeds."
        ),
    ] = 5,
    starting_points: Annotated[
        bool,
        typer.Option(
            "--starting-points/--no-starting-points",
            help="Whether a new study begins with the configs that its definition names.",
        ),
    ] = True,
    begin_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Name of a stored study, perhaps of a narrower search space: a new study knows what "
            "it has found.",
        ),
    ] = None,
    data: Data = None,
    image_size: ImageSize = None,
    max_unreadable: MaxUnreadable = None,
    wandb: Wandb = None,
    as_json: Json = False,
) -> None:
    """Search: create a study, or continue it.

    It ends when the study has --trials trials. If it was stopped, the same command continues it.

    \b
    Examples:
      mc1opt run --study cnn --trials 100
      mc1opt run --study cnn --trials 100 --timeout 8m     the same command without --timeout continues
      mc1opt run --study path/to/mine.py --name mine-2
      mc1opt run --study path/to/mine.py --name wider --from mine-2     after widening the search space
    """
    at_least(trials, 1, "--trials")
    at_least(epochs, 1, "--epochs")
    at_least(train_images, 1, "--train-images")
    at_least(max_macs, 1, "--max-macs")
    at_least(max_failures, 1, "--max-failures")
    at_least(confirm, 0, "--confirm")
    at_least(keep, 0, "--keep")
    at_least(seed, 0, "--seed")
    at_least(max_unreadable, 0, "--max-unreadable")
    seconds = parse_duration(timeout, "--timeout")
    trial_seconds = parse_duration(max_trial_time, "--max-trial-time")
    mode = wandb_mode(wandb)

    from mc1opt.dashboard.pages import DashboardWriter
    from mc1opt.display.live import display
    from mc1opt.display.tables import end_lines
    from mc1opt.mirror.observer import mirrored_search
    from mc1opt.search.command import search
    from mc1opt.search.settings import SearchCommand
    from mc1opt.workers.stop import StopFlag

    output = sys.stderr if as_json else sys.stdout
    stop = StopFlag()
    signals = Signals(stop)
    mirrored = mirrored_search(mode, storage, lambda line: typer.echo(line, err=as_json))
    with signals.ending_early("the search"), mirrored as mirrors:
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
                keep=keep,
                max_trial_seconds=trial_seconds,
                data=data,
                image_size=image_size,
                max_unreadable=max_unreadable,
                starting_points=starting_points,
                begin_from=begin_from,
            ),
            stop=stop,
            on_start=signals.leave_to_the_work,
            output=output,
            display=display(output),
            observers=(DashboardWriter(storage), *mirrors),
        )
        for line in end_lines(ended, storage):
            print(line, file=output, flush=True)
    if as_json:
        print_json(ended.record.to_json())
    if ended.reason == "failures":
        raise SearchStoppedError(ended.message)
    if ended.reason in ("timeout", "signal"):
        typer.echo(f"Go on with:               {resume_command()}", err=as_json)
    raise typer.Exit(signals.exit_code)
