"""`mc1opt retrain`: the best configs with several seeds, the winner on all images, then the test images."""

import sys
from typing import Annotated

import typer

from mc1opt.cli.options import (
    DEFAULT_STORAGE,
    Data,
    DeviceName,
    Files,
    Json,
    Ray,
    Seeds,
    Storage,
    StoredStudy,
    Timeout,
    Wandb,
    WorkerCpus,
    WorkerGpus,
    Workers,
    given_engine,
    leave_report,
    located,
    print_json,
    wandb_mode,
)
from mc1opt.cli.signals import Signals, given_command, resume_command
from mc1opt.cli.values import at_least, parse_duration


def retrain(
    study: StoredStudy,
    top: Annotated[int | None, typer.Option(help="Best distinct configs that compete [default: 3].")] = None,
    trial: Annotated[int | None, typer.Option(help="Only this trial's config, instead of --top.")] = None,
    seeds: Seeds = 3,
    folds: Annotated[
        int | None, typer.Option(help="Stratified folds of a cross-validation of the winner [default: none].")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Epochs of each training, of networks as wide as they were found [default: as --budget "
            "allows, of networks as wide as suits it]."
        ),
    ] = None,
    keep_size: Annotated[
        bool, typer.Option("--keep-size", help="Leave networks as wide as they were found.")
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(help="Time that all trainings shall take, without --epochs: 40m, 2h [default: 1h]."),
    ] = None,
    timeout: Timeout = None,
    workers: Workers = "auto",
    worker_cpus: WorkerCpus = 1,
    worker_gpus: WorkerGpus = None,
    device: DeviceName = "auto",
    ray: Ray = None,
    storage: Storage = DEFAULT_STORAGE,
    files: Files = None,
    data: Data = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the model of another retraining.")] = False,
    wandb: Wandb = None,
    as_json: Json = False,
) -> None:
    """Retrain a study's best configs, choose one, and test it.

    They are trained on all images but those of validation, over several seeds; the best mean validation
    accuracy wins. Longer trainings than those of the search can use wider networks: without --epochs, such
    forms compete. The winner is trained on all training images, and tested once. Its model is stored in
    storage/models/STUDY. The same command resumes where it stopped.

    \b
    Examples:
      mc1opt retrain --study cnn
      mc1opt retrain --study cnn --top 5 --seeds 5 --epochs 30
      mc1opt retrain --study cnn --budget 3h
      mc1opt retrain --study cnn --trial 7 --folds 10
    """
    storage = located(storage, files)
    at_least(top, 1, "--top")
    at_least(trial, 0, "--trial")
    at_least(seeds, 1, "--seeds")
    at_least(folds, 2, "--folds")
    at_least(epochs, 1, "--epochs")
    seconds = parse_duration(timeout, "--timeout")
    planned = parse_duration(budget, "--budget")
    mode = wandb_mode(wandb)

    from mc1opt.dashboard.pages import update_or_warn
    from mc1opt.mirror.observer import mirror_retraining
    from mc1opt.retraining.plan import RetrainOptions
    from mc1opt.retraining.report import stopped_json
    from mc1opt.retraining.retrain import retrain as run_retraining
    from mc1opt.workers.stop import StopFlag

    stop = StopFlag()
    signals = Signals(stop)
    with signals.ending_early("the retraining"):
        result = run_retraining(
            RetrainOptions(
                study=study,
                storage=storage,
                top=top,
                trial=trial,
                seeds=seeds,
                folds=folds,
                epochs=epochs,
                keep_size=keep_size,
                budget=planned,
                timeout=seconds,
                engine=given_engine(storage, workers, device, worker_cpus, worker_gpus, ray),
                data=data,
                force=force,
                command=given_command(),
            ),
            stop=stop,
            on_start=signals.leave_to_the_work,
            output=sys.stderr if as_json else sys.stdout,
        )
    mirror_retraining(mode, storage, study, lambda line: typer.echo(line, err=as_json))
    if result is None:
        typer.echo(f"Go on with:   {resume_command()}", err=as_json)
        if as_json:
            print_json(stopped_json(study, stop.reason))
        raise typer.Exit(signals.exit_code)
    update_or_warn(storage, study, lambda line: typer.echo(line, err=True))
    leave_report(storage, study, as_json)
    if as_json:
        print_json(result.to_json())
