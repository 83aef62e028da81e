"""`mc1opt presets`: lists the published models, shows the layers of one, measures them."""

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
    Timeout,
    WorkerCpus,
    WorkerGpus,
    Workers,
    given_engine,
    given_storage,
    located,
    print_json,
    print_result,
)
from mc1opt.cli.signals import Signals, resume_command
from mc1opt.cli.values import at_least, parse_duration

app = typer.Typer(name="presets", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def presets(
    context: typer.Context, storage: Storage = DEFAULT_STORAGE, files: Files = None, as_json: Json = False
) -> None:
    """List the published models; show one's layers; measure them.

    \b
    Examples:
      mc1opt presets
      mc1opt presets --json
      mc1opt presets show cnn-deep
      mc1opt presets run mlp-128-64
    """
    if context.invoked_subcommand is not None:
        return
    from mc1opt.presets import PRESETS
    from mc1opt.published.report import list_lines, preset_json
    from mc1opt.published.results import presets_folder, stored_results

    every = list(PRESETS.values())
    results = stored_results(presets_folder(located(storage, files)), every)
    content = [preset_json(preset, results[preset.name]) for preset in every]
    print_result(content, list_lines(results), as_json)


@app.command("show")
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of a preset.")],
    storage: Storage = DEFAULT_STORAGE,
    files: Files = None,
    as_json: Json = False,
) -> None:
    """Show a preset: its layers, with outputs and parameters, and its recipes.

    \b
    Examples:
      mc1opt presets show cnn-deep
      mc1opt presets show mlp-128-64 --json
    """
    from mc1opt.presets import get_preset
    from mc1opt.published.report import preset_json, show_lines
    from mc1opt.published.results import presets_folder, stored_results

    preset = get_preset(name)
    results = stored_results(presets_folder(given_storage(context, storage, files)), [preset])[preset.name]
    print_result(preset_json(preset, results), show_lines(preset, results), _json(context, as_json))


@app.command("run")
def run(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="Names of presets.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All presets.")] = False,
    recipe: Annotated[str, typer.Option(help="Recipe of the trainings: published or mc1opt.")] = "published",
    seeds: Seeds = 3,
    folds: Annotated[
        int | None, typer.Option(help="Stratified folds of a cross-validation of each [default: none].")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of each training [default: the preset's].")
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
    as_json: Json = False,
) -> None:
    """Train presets with several seeds, and compare their test accuracy with the published one.

    Each is trained on all training images, and tested; each opening of the test images is recorded. The
    recipe "published" is that of the source, "mc1opt" is ours. The same command resumes where it stopped:
    trainings are stored beside the study database, in storage/presets.

    \b
    Examples:
      mc1opt presets run mlp-128-64
      mc1opt presets run cnn-32-128-pool --recipe mc1opt --seeds 5 --folds 10
      mc1opt presets run --all --timeout 1h
    """
    at_least(seeds, 1, "--seeds")
    at_least(folds, 2, "--folds")
    at_least(epochs, 1, "--epochs")
    seconds = parse_duration(timeout, "--timeout")

    from mc1opt.presets import PRESETS, get_recipe
    from mc1opt.published.measure import PresetsOptions, run_presets
    from mc1opt.published.report import preset_json, result_lines
    from mc1opt.workers.stop import StopFlag

    chosen = get_recipe(recipe)
    storage = given_storage(context, storage, files)
    as_json = _json(context, as_json)
    output = sys.stderr if as_json else sys.stdout
    stop = StopFlag()
    signals = Signals(stop)
    with signals.ending_early("the trainings"):
        results = run_presets(
            PresetsOptions(
                names=tuple(names or ()),
                storage=storage,
                everything=everything,
                recipe=chosen,
                seeds=seeds,
                folds=folds,
                epochs=epochs,
                timeout=seconds,
                engine=given_engine(storage, workers, device, worker_cpus, worker_gpus, ray),
                data=data,
            ),
            stop=stop,
            on_start=signals.leave_to_the_work,
            output=output,
        )
    for line in result_lines(results):
        typer.echo(line, file=output)
    if as_json:
        print_json(
            [preset_json(PRESETS[arm.name], {chosen: found} if found else {}) for arm, found in results]
        )
    if stop.is_set():
        typer.echo(f"Go on with:   {resume_command()}", file=output)
        raise typer.Exit(signals.exit_code)


def _json(context: typer.Context, as_json: bool) -> bool:
    """Whether JSON is wanted; its option may stand before the subcommand."""
    return as_json or (context.parent is not None and bool(context.parent.params["as_json"]))
