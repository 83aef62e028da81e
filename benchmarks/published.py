"""The published models measured, and what their source claims of them: each claim by arms that differ in it.

At the top of the repository:

    python -m benchmarks.published                           rows 1 to 7 and their arms: what a CPU can do
    python -m benchmarks.published --deep --device cuda      rows 8 to 11 and their arms as well
    python -m benchmarks.published --only cnn-deep --recipe mc1opt --seeds 1
    python -m benchmarks.published --grid storage/mc1opt.db  copies the finished study `published_grid`
    python -m benchmarks.published --report                  only writes PUBLISHED.md
    python -m benchmarks.published --no-report               only trains, such as where matplotlib is missing

Every tested training adds a line to `benchmarks/results/published.jsonl`, and is not trained again, so that
the same command resumes after a stop or a kill. At the end `benchmarks/PUBLISHED.md` and its plot are written
from that file alone. The test images, which are opened here, choose nothing: epochs and recipes are fixed
before (`PUBLISHED.md` says how, and names the exception). Not here: training (`mc1opt.published.measure`),
and the text of the report.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, add_results_option, machine_facts, machine_line
from benchmarks.published_arms import Arm, arms
from benchmarks.published_lines import GRID_RESULTS, SECONDS_RESULTS
from mc1opt.cli.signals import Signals
from mc1opt.cli.values import at_least, parse_duration
from mc1opt.config import config_id
from mc1opt.data.sources import find_data
from mc1opt.database.location import DEFAULT_STORAGE, user_storage
from mc1opt.database.studies import read_study
from mc1opt.dataset import CIFAR10_SHAPE, DataSet
from mc1opt.errors import Mc1optError, UsageError, WorkerError
from mc1opt.files import append_line, read_lines
from mc1opt.machine.devices import resolve_device, resolve_precision
from mc1opt.measurement.plan import Plan
from mc1opt.measurement.store import StoredTraining
from mc1opt.models.cost import cost
from mc1opt.paths import user_path
from mc1opt.presets import RECIPES
from mc1opt.published.measure import Entry, first_seeds, make_plan, measure_entries
from mc1opt.published.results import presets_folder
from mc1opt.search.definition import load_definition
from mc1opt.search.sampling import grid_size
from mc1opt.spec import CAUSED_BY_CONFIG, Device, Precision
from mc1opt.workers.engine import Engine
from mc1opt.workers.stop import StopFlag

# ---- What is missing -------------------------------------------------------------------------------------


def chosen_arms(options: argparse.Namespace) -> list[Arm]:
    """The arms that the options name, the cheapest first.

    Raises:
        UsageError: a name is unknown, or its arms have another recipe; or --seeds is below 1, or too many.
    """
    at_least(options.seeds, 1, "--seeds")
    first_seeds(options.seeds or 1)
    every = arms()
    unknown = set(options.only or ()) - {arm.name for arm in every}
    if unknown:
        known = ", ".join(dict.fromkeys(arm.name for arm in every))
        raise UsageError(f"unknown arm {', '.join(sorted(unknown))}. There are: {known}.")
    found = [
        arm
        for arm in every
        if (arm.name in options.only if options.only else options.deep or not arm.deep)
        and options.recipe in (None, arm.recipe)
    ]
    if not found:
        raise UsageError(f"{', '.join(options.only)} is not measured with the recipe {options.recipe}.")
    return sorted(found, key=lambda arm: arm.price)


def missing_entries(
    chosen: Sequence[Arm], seeds: int | None, path: Path, data: str, device: Device, precision: Precision
) -> Iterator[Entry]:
    """What the file of results lacks, arm by arm, of those images (a data set's name) in that arithmetic."""
    there = {
        (line["config_id"], line["epochs"], line["seed"])
        for line in read_lines(path)
        if (line["data"], line["device"], line["precision"]) == (data, device, precision)
    }
    for arm in chosen:
        identity = config_id(arm.config)
        wanted = first_seeds(arm.seeds if seeds is None else seeds)
        left = tuple(seed for seed in wanted if (identity, arm.epochs, seed) not in there)
        if left:
            yield Entry(arm.name, arm.recipe, arm.config, arm.epochs, left)


def result_line(
    entry: Entry,
    seed: int,
    stored: StoredTraining,
    accuracy: float | None,
    plan: Plan,
    machine: dict[str, Any],
) -> dict[str, Any]:
    """A training as a line of the file of results: with its test accuracy, or why it has none."""
    return {
        "date": stored.ended,
        "machine": machine | {"versions": stored.versions, "commit": stored.commit},
        "arm": entry.name,
        "recipe": entry.recipe,
        "config_id": config_id(entry.config),
        "parameters": cost(entry.config.architecture, CIFAR10_SHAPE).parameters,
        "epochs": entry.epochs,
        "seed": seed,
        "data": plan.data.name,
        "train_images": stored.key.fidelity.train_images,
        "device": plan.device,
        "precision": plan.precision,
        "workers": plan.workers,
        "test_accuracy": accuracy,
        "failure": None if stored.failure is None else stored.failure.kind,
        "accumulation": stored.accumulation,
        "losses": [epoch.loss for epoch in stored.curve],
        "epoch_seconds": [epoch.seconds for epoch in stored.curve],
    }


def measure(entries: Sequence[Entry], data: DataSet, options: argparse.Namespace) -> int:
    """Trains and tests entries, each into the file of results; the exit code."""
    device = resolve_device(options.device)
    machine = machine_facts(device)
    plan = make_plan(
        entries,
        folds=0,
        data=data,
        device=device,
        engine=Engine(options.workers),
        folder=presets_folder(options.storage),
    )

    def on_result(entry: Entry, seed: int, stored: StoredTraining, accuracy: float | None) -> None:
        append_line(options.results, result_line(entry, seed, stored, accuracy, plan, machine))

    stop = StopFlag()
    signals = Signals(stop)
    signals.leave_to_the_work()
    stop.limit(parse_duration(options.timeout, "--timeout"))
    measure_entries(
        entries,
        plan,
        stop=stop,
        write=lambda line: print(line, flush=True),
        on_result=on_result,
    )
    return signals.exit_code


def measure_missing(options: argparse.Namespace) -> int:
    """Measures what the options name and the file of results lacks; the exit code."""
    chosen = chosen_arms(options)
    device = resolve_device(options.device)
    print(machine_line(machine_facts(device)), flush=True)
    data = find_data(options.data, output=sys.stdout)
    arithmetic = device, resolve_precision(device)
    entries = list(missing_entries(chosen, options.seeds, options.results, data.name, *arithmetic))
    if not entries:
        print("All of it is measured already.")
        return 0
    try:
        return measure(entries, data, options)
    except WorkerError as error:  # some trainings failed; the others are measured, and reported
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code


def take_grid(storage: str, path: Path) -> None:
    """Writes the trials of the finished study `published_grid` to the file of the grid's results.

    Raises:
        StorageError: there is no such database or study.
        UsageError: the study has not ended.
    """
    record = read_study(storage, "published_grid")
    trained = [
        trial
        for trial in record.trials
        if trial.outcome == "complete"
        or (trial.failure is not None and trial.failure["kind"] in CAUSED_BY_CONFIG)
    ]
    points = {tuple(sorted(trial.params.items())) for trial in trained}
    if len(points) < grid_size(load_definition("published_grid").grid):
        raise UsageError(
            f"study published_grid in {storage} is not finished; go on with: "
            "mc1opt run --study published_grid"
        )
    temporary = path.with_name(f".{path.name}.new")  # what is there stays until all of it can take its place
    temporary.unlink(missing_ok=True)
    for trial in trained:
        line = {
            **trial.params,
            "data": None if record.data is None else record.data["name"],
            "fidelity": None if record.fidelity is None else record.fidelity.model_dump(),
            "validation_accuracy": trial.value,
            "failure": trial.failure,
            "again": [entry["value"] for entry in trial.confirmations],
        }
        append_line(temporary, line)
    temporary.replace(path)


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; see the top of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these rows or arms")
    parser.add_argument("--deep", action="store_true", help="rows 8 to 11 and their arms besides: for a GPU")
    parser.add_argument("--recipe", choices=RECIPES, help="one of the two recipes [default: both]")
    parser.add_argument("--seeds", type=int, help="[default: 5, or 3 for rows 4, 5, 8 to 11 and arms]")
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--timeout", help="stop in good order after this time: 90s, 8m, 1h30m")
    parser.add_argument(
        "--storage", type=user_storage, default=DEFAULT_STORAGE, help="beside it, trainings are stored"
    )
    parser.add_argument("--data", type=user_path, help="other images than CIFAR-10, to try this out")
    parser.add_argument(
        "--grid",
        type=user_storage,
        metavar="STORAGE",
        help="take the finished study published_grid from there",
    )
    parser.add_argument("--grid-results", type=user_path, default=RESULTS / GRID_RESULTS)
    parser.add_argument(
        "--report", action=argparse.BooleanOptionalAction, help="only write PUBLISHED.md, or do not write it"
    )
    parser.add_argument("--output", type=user_path, default=RESULTS.parent, help="the folder of PUBLISHED.md")
    add_results_option(parser, "published")
    return parser.parse_args(arguments)


def main() -> None:
    """Trains what is missing, and writes the report."""
    options = parse_options()
    code = 0
    try:
        if options.grid:
            take_grid(options.grid, options.grid_results)
        elif not options.report:
            code = measure_missing(options)
        if options.report is not False:
            from benchmarks.published_report import write_report  # noqa: PLC0415  (it draws with matplotlib)

            write_report(options.results, options.grid_results, RESULTS / SECONDS_RESULTS, options.output)
    except Mc1optError as error:
        print(f"Error: {error}", file=sys.stderr)
        code = error.exit_code
    sys.exit(code)


if __name__ == "__main__":
    main()
