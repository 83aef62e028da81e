"""What pruning costs: pruned trials of a study trained to their end, and how many of them it needed.

At the top of the repository:

    python -m benchmarks.audit --study cnn --storage storage/mc1opt.db [--sample 20] [--seed 0]

A random sample of the trials that the pruner ended is trained to the end, at the study's fidelity and with
each trial's own seed, so that a curve goes on where pruning cut it. A pruning was false where the trial would
have entered the top tenth: its value is at least that of the complete trial whose rank is a tenth of the
number of trials that count, complete and pruned, rounded up. The share of false ones is printed beside the
epochs that pruning saved. A finished training adds a line to `benchmarks/results/audit.jsonl`, and is not
trained again; a larger sample of the same seed has the smaller one in it. The study is only read, and the
test images stay closed.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.common import add_results_option, append_result, machine_facts, machine_line, markdown_table
from mc1opt.cli.values import at_least, parse_duration
from mc1opt.data.model_images import study_data
from mc1opt.database.location import DEFAULT_STORAGE, user_storage
from mc1opt.database.records import StudyRecord, TrialRecord, by_value
from mc1opt.database.studies import read_study
from mc1opt.display.tables import pruning_line
from mc1opt.errors import Mc1optError, UsageError
from mc1opt.files import read_lines
from mc1opt.inference.evaluate import wilson_interval
from mc1opt.machine.devices import resolve_device
from mc1opt.measurement.store import REPEATABLE
from mc1opt.paths import user_path
from mc1opt.retraining.replay import incomparable, training_again
from mc1opt.seeds import derive_seed
from mc1opt.spec import Training, TrainingFailed
from mc1opt.text import first_line
from mc1opt.workers.engine import Engine
from mc1opt.workers.pool import Pool
from mc1opt.workers.stop import StopFlag
from mc1opt.workers.threads import run_crew
from mc1opt.workers.train import train

Line = dict[str, Any]


def sampled(record: StudyRecord, size: int, seed: int) -> list[TrialRecord]:
    """So many of the trials that the pruner ended after an epoch or more, in the order of the draw.

    Raises:
        UsageError: there is none.
    """
    pruned = [trial for trial in record.trials if trial.outcome == "pruned" and trial.values_by_epoch]
    if not pruned:
        raise UsageError(f"study {record.study!r} has no pruned trial to train to its end.")
    return sorted(pruned, key=lambda trial: derive_seed("audit", seed, trial.number))[:size]


def top_tenth(record: StudyRecord) -> TrialRecord:
    """The last trial of the top tenth of those that count; where fewer are complete, the last of these.

    Raises:
        UsageError: no trial is complete.
    """
    complete = by_value(record.trials)
    if not complete:
        raise UsageError(f"study {record.study!r} has no complete trial to compare with.")
    counted = sum(trial.outcome in ("complete", "pruned") for trial in record.trials)
    return complete[min(math.ceil(counted / 10), len(complete)) - 1]


def about(record: StudyRecord, trial: TrialRecord) -> Line:
    """What tells a trial's training from those of other trials and studies, for the file of results."""
    assert record.fidelity is not None
    return {
        "study": record.study,
        "trial": trial.number,
        "config_id": trial.config_id,
        "seed": trial.seed,
        "fidelity": record.fidelity.model_dump(),
        "data": record.data,
    }


def found_line(record: StudyRecord, trial: TrialRecord, lines: Iterable[Line]) -> Line | None:
    """The line of a trial's training; None if there is none."""
    wanted = about(record, trial)
    return next((line for line in lines if wanted == {key: line.get(key) for key in wanted}), None)


def measure(trial: TrialRecord, training: Training, pool: Pool) -> Line:
    """Trains a trial to its end: its curve, its value, and whether the curve begins as the stored one.

    Raises:
        TrainingFailed: in a way that is no result.
    """
    failure = None
    try:
        results = train(pool, training).results
    except TrainingFailed as failed:
        if failed.kind not in REPEATABLE:
            raise
        results, failure = failed.results, failed.kind
    values = [result.value for result in results]
    pruned_after = len(trial.values_by_epoch)
    return {
        "metric": trial.metric,
        "pruned_after": pruned_after,
        "values_by_epoch": values,
        "value": values[-1] if failure is None else None,
        "failure": failure,
        "continues": values[:pruned_after] == trial.values_by_epoch,
        "seconds": round(sum(result.seconds for result in results), 2),
    }


def train_missing(
    trainings: Sequence[tuple[TrialRecord, Training]],
    pool: Pool,
    stop: StopFlag,
    on_line: Callable[[TrialRecord, Line], None],
) -> bool:
    """Trains trials to their end, in one thread a worker, until the time is up; whether all have a result."""
    left = iter(trainings)
    without: list[TrialRecord] = []

    def work() -> None:
        while (each := next(left, None)) is not None:  # until the pool is interrupted
            try:
                on_line(each[0], measure(*each, pool))
            except TrainingFailed as failed:
                without.append(each[0])
                reason = first_line(failed.message)
                print(f"#{each[0].number} failed ({failed.kind}): {reason}", file=sys.stderr, flush=True)

    run_crew(work, pool, stop, time.sleep, len(trainings))
    return not without and not stop.is_set()


def report(record: StudyRecord, trials: Sequence[TrialRecord], lines: Sequence[Line]) -> str:
    """The trials of the sample that are trained, and their share in the top tenth beside the epochs saved."""
    last = top_tenth(record)
    rows, entered, other = [], 0, 0
    for trial in trials:
        if (line := found_line(record, trial, lines)) is None:
            continue
        enters = line["value"] is not None and trial.scored(line["value"]) >= last.score
        entered += enters
        other += not line["continues"]
        value = f"({line['failure']})" if line["value"] is None else f"{line['value']:.4f}"
        reached = f"{trial.values_by_epoch[-1]:.4f} after {line['pruned_after']}"
        rows.append([f"#{trial.number}", reached, value, "yes" if enters else "no"])
    if not rows:
        return "Nothing is trained yet."
    low, high = wilson_interval(entered, len(rows))
    pruned = sum(trial.outcome == "pruned" for trial in record.trials)
    said = [
        markdown_table(["trial", f"{record.metric.label} when pruned", "at the end", "top tenth"], rows),
        "",
        f"False prunes: {entered} of {len(rows)} ({entered / len(rows):.0%}, 95 % Wilson interval "
        f"{low:.0%} to {high:.0%}), a random sample of {pruned} pruned trials.",
        f"The top tenth ends with #{last.number}, {last.value:.4f}. {pruning_line(record)}",
    ]
    if other:
        said.append(f"{other} of these curves do not begin as the stored ones.")
    return "\n".join(said)


def audit(options: argparse.Namespace, new_pool: Callable[[int], Pool] | None = None) -> int:
    """Trains what the file of results lacks of the sample, and prints the report; the exit code.

    Args:
        options: see `parse_options`.
        new_pool: makes a pool of so many workers; None for processes.

    Raises:
        Mc1optError: the study cannot be audited, or a worker failed.
    """
    at_least(options.sample, 1, "--sample")
    stop = StopFlag()
    stop.limit(parse_duration(options.timeout, "--timeout"))
    record = read_study(options.storage, options.study)
    trials = sampled(record, options.sample, options.seed)
    top_tenth(record)
    lines = read_lines(options.results)
    missing = [trial for trial in trials if found_line(record, trial, lines) is None]
    whole = True
    if missing:
        data = study_data(record.study, record.data, options.data, sys.stdout)
        trainings = [(trial, training_again(record, trial, data)) for trial in missing]
        device = resolve_device(trainings[0][1].device)
        machine = machine_facts(device)
        print(machine_line(machine))
        for reason in sorted({reason for trial in missing if (reason := incomparable(trial)) is not None}):
            print(f"The curves cannot go on where they were cut: {reason}.")

        def on_line(trial: TrialRecord, line: Line) -> None:
            append_result(options.results, machine, about(record, trial) | line)
            print(f"#{trial.number}: {line['failure'] or line['value']}", flush=True)

        engine = Engine(options.workers, device, max(training.threads for _, training in trainings))
        make = new_pool or (lambda workers: engine.pool(workers, device))
        pool = make(min(engine.count(device), len(missing)))
        try:
            whole = train_missing(trainings, pool, stop, on_line)
        finally:
            pool.close()
    print(f"\n{report(record, trials, read_lines(options.results))}")
    return 0 if whole or stop.is_set() else 1


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; see the top of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--study", required=True)
    parser.add_argument("--storage", type=user_storage, default=DEFAULT_STORAGE, help="where it is stored")
    parser.add_argument("--sample", type=int, default=20, help="pruned trials at most [default: 20]")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--data", type=user_path, help="files of the study's images")
    parser.add_argument("--workers", default="auto", help="trainings at once")
    parser.add_argument("--timeout", help="stop after this time, and go on later: 90s, 8m, 1h30m")
    add_results_option(parser, "audit")
    return parser.parse_args(arguments)


def main() -> None:
    """Trains what is missing, and prints the share of false prunes beside the epochs saved."""
    try:
        code = audit(parse_options())
    except Mc1optError as error:
        print(f"Error: {error}", file=sys.stderr)
        code = error.exit_code
    sys.exit(code)


if __name__ == "__main__":
    main()
