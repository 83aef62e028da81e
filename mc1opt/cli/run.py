"""`mc1opt run`: searching."""

import sys
from typing import Annotated

import typer

from mc1opt.cli.api import search_command, shown_search
from mc1opt.cli.options import (
    DEFAULT_STORAGE,
    Data,
    DeviceName,
    Files,
    ImageSize,
    Json,
    MaxUnreadable,
    Ray,
    Storage,
    Study,
    Timeout,
    Wandb,
    WorkerCpus,
    WorkerGpus,
    Workers,
    print_json,
)
from mc1opt.cli.signals import Signals, resume_command
from mc1opt.errors import SearchStoppedError


def run(
    study: Study,
    trials: Annotated[int, typer.Option(help="Total number of trials in the study.")] = 100,
    name: Annotated[
        str | None, typer.Option(help="Name of the stored study [default: the definition's].")
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    files: Files = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs per trial [default: the study's].")] = None,
    train_images: Annotated[
        int | None, typer.Option(help="Training images per trial [default: the study's].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The study's seed [default: 0].")] = None,
    timeout: Timeout = None,
    patience: Annotated[
        int | None, typer.Option(help="End when so many trials in a row have not improved the best.")
    ] = None,
    until: Annotated[
        float | None,
        typer.Option(help="End when the best has this value, with two seeds where the sampler is local."),
    ] = None,
    workers: Workers = "auto",
    worker_cpus: WorkerCpus = 1,
    worker_gpus: WorkerGpus = None,
    device: DeviceName = "auto",
    ray: Ray = None,
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

    It ends when the study has --trials trials, or earlier by --patience or --until. If it was stopped, the
    same command continues it.

    \b
    Examples:
      mc1opt run --study cnn --trials 100
      mc1opt run --study cnn --trials 100 --timeout 8m     the same command without --timeout continues
      mc1opt run --study path/to/mine.py --name mine-2
      mc1opt run --study path/to/mine.py --name wider --from mine-2     after widening the search space
    """
    from mc1opt.workers.stop import StopFlag

    command = search_command(
        study,
        trials,
        name=name,
        storage=storage,
        files=files,
        epochs=epochs,
        train_images=train_images,
        seed=seed,
        timeout=timeout,
        patience=patience,
        until=until,
        workers=workers,
        worker_cpus=worker_cpus,
        worker_gpus=worker_gpus,
        device=device,
        ray=ray,
        sampler=sampler,
        pruner=pruner,
        max_macs=max_macs,
        max_trial_time=max_trial_time,
        max_failures=max_failures,
        confirm=confirm,
        keep=keep,
        starting_points=starting_points,
        begin_from=begin_from,
        data=data,
        image_size=image_size,
        max_unreadable=max_unreadable,
    )
    output = sys.stderr if as_json else sys.stdout
    stop = StopFlag()
    signals = Signals(stop)
    with signals.ending_early("the search"):
        ended = shown_search(
            command, stop=stop, output=output, wandb=wandb, on_start=signals.leave_to_the_work
        )
    if as_json:
        print_json(ended.record.to_json())
    if ended.reason == "failures":
        raise SearchStoppedError(ended.message)
    if ended.reason in ("timeout", "signal"):
        typer.echo(f"Go on with:               {resume_command()}", err=as_json)
    raise typer.Exit(signals.exit_code)
