"""`mc1opt explain`: what brings the best trial its lead, a group of changes at a time."""

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
    WorkerCpus,
    WorkerGpus,
    Workers,
    given_engine,
    leave_report,
    located,
    print_json,
)
from mc1opt.cli.signals import Signals, resume_command
from mc1opt.cli.values import at_least, parse_duration


def explain(
    study: StoredStudy,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Where to begin: a preset, or the number of a trial [default: the best starting point, else "
            "the trial that completed first].",
            metavar="<preset or trial>",
        ),
    ] = None,
    target: Annotated[
        int | None, typer.Option("--to", help="The trial that is explained [default: the best].")
    ] = None,
    seeds: Seeds = 3,
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
    """Explain what each change up to the best trial brings.

    Depth, widths, pooling, optimizer and so on are groups of changes. At each step every group that is left
    is tried on the config so far, over several seeds, and the one that gains most is taken; groups that are
    clearly not the best stop early. Then each group alone is left out of the trial. Trainings are those of
    the search, validation included; the test images stay closed. The same command resumes where it stopped.

    \b
    Examples:
      mc1opt explain --study cnn
      mc1opt explain --study cnn --from cnn-32-128-pool --seeds 5
      mc1opt explain --study cnn --from 3 --to 41 --timeout 1h
    """
    storage = located(storage, files)
    at_least(target, 0, "--to")
    at_least(seeds, 1, "--seeds")
    seconds = parse_duration(timeout, "--timeout")

    from mc1opt.explanation.explain import explain as run_explanation
    from mc1opt.explanation.explain import stopped_json
    from mc1opt.explanation.plan import ExplainOptions
    from mc1opt.workers.stop import StopFlag

    stop = StopFlag()
    signals = Signals(stop)
    with signals.ending_early("the explanation"):
        result = run_explanation(
            ExplainOptions(
                study=study,
                storage=storage,
                source=source,
                target=target,
                seeds=seeds,
                timeout=seconds,
                engine=given_engine(storage, workers, device, worker_cpus, worker_gpus, ray),
                data=data,
            ),
            stop=stop,
            on_start=signals.leave_to_the_work,
            output=sys.stderr if as_json else sys.stdout,
        )
    if result is None:
        typer.echo(f"Go on with:   {resume_command()}", err=as_json)
        if as_json:
            print_json(stopped_json(study, stop.reason))
        raise typer.Exit(signals.exit_code)
    leave_report(storage, study, as_json)
    if as_json:
        print_json(result.to_json() | {"stopped": None})
