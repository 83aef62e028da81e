"""`mc1opt mirror`: the best trials in Weights & Biases."""

import os
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from mc1opt.cli.options import (
    DEFAULT_STORAGE,
    Files,
    Json,
    Storage,
    StoredStudy,
    located,
    print_json,
    wandb_mode,
)
from mc1opt.cli.values import at_least, parse_duration
from mc1opt.errors import UsageError


def mirror(
    study: StoredStudy,
    top: Annotated[int, typer.Option(help="Number of best trials.")] = 5,
    everything: Annotated[
        bool, typer.Option("--all", help="All trained trials, including pruned and failed ones.")
    ] = False,
    wandb: Annotated[
        str | None, typer.Option(help="offline or online [default: WANDB_MODE, else online].")
    ] = None,
    artifacts: Annotated[
        bool, typer.Option("--artifacts", help="Also upload curves, and models whose weights are kept.")
    ] = False,
    project: Annotated[
        str | None, typer.Option(help="W&B project [default: that of the study's runs, or mc1opt].")
    ] = None,
    timeout: Annotated[str, typer.Option(help="Time limit of writing or uploading a run: 90s, 5m.")] = "60s",
    storage: Storage = DEFAULT_STORAGE,
    files: Files = None,
    as_json: Json = False,
    parent: Annotated[
        int | None, typer.Option(hidden=True, help="The parent process, with which it ends.")
    ] = None,
) -> None:
    """Mirror a stored study's best trials to Weights & Biases.

    Creates a W&B run for each of the best trials, for each retraining and for the study. Mirroring again
    updates them, and tags trials that have left the best. Runs are first written to storage/wandb; without a
    login they stay there, and the command that uploads them is printed.

    \b
    Examples:
      mc1opt mirror --study cnn
      mc1opt mirror --study cnn --top 10 --artifacts
      mc1opt mirror --study cnn --wandb offline
    """
    storage = located(storage, files)
    at_least(top, 1, "--top")
    seconds = parse_duration(timeout, "--timeout")
    assert seconds is not None
    if project is not None and (not 1 <= len(project) <= 128 or set(project) & set("/\\#?%:")):
        raise UsageError(
            f"--project {project!r} is not a W&B project name: at most 128 characters, none of / \\ # ? % :"
        )
    mode = wandb_mode(wandb, default="online")
    if mode is None:
        raise UsageError("nothing is mirrored with --wandb off or WANDB_MODE=disabled. Give --wandb offline.")

    from mc1opt.mirror.command import MirrorCommand, mirror_study
    from mc1opt.mirror.writer import kill_children

    report = mirror_study(
        MirrorCommand(
            study=study,
            storage=storage,
            mode=mode,
            project=project,
            top=top,
            everything=everything,
            artifacts=artifacts,
            step_seconds=seconds,
            parent=parent,
        )
    )
    if as_json:
        print_json(asdict(report))
    if not as_json or report.error is not None:
        for line in report.lines(storage):
            typer.echo(line, err=report.error is not None)
    sys.stdout.flush()
    kill_children(os.getpid())  # wandb's own end may hang
    os._exit(1 if report.error is not None else 0)
