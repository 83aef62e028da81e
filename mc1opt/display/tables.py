"""Studies and trials as lines of text, for `show` and for the end of a search."""

import json
import shlex
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from mc1opt.database.location import storage_option
from mc1opt.database.ranking import by_expected_accuracy, confirmed_values, distinguishable, gain
from mc1opt.database.records import Outcome, StudyRecord, TrialRecord, by_value
from mc1opt.describe import describe_fidelity
from mc1opt.display.progress import (
    begun_from_lines,
    ending,
    outcome_count,
    passed_over_lines,
    record_summary,
    study_name,
)
from mc1opt.metric import ACCURACY
from mc1opt.program import program
from mc1opt.search.observers import SearchEnded
from mc1opt.text import duration, plural

BEST = 5
"""Most trials or importances to list."""
WATCH = "Watch in a browser"
"""What the last of the `commands` does."""


def study_lines(record: StudyRecord) -> list[str]:
    """A study: fidelity, data, counts, and best trials."""
    fidelity = record.fidelity
    lines = [f"Study {study_name(record.study, record.definition)}"]
    if fidelity is not None:
        lines.append(f"  fidelity   {describe_fidelity(fidelity)}")
    if record.data is not None:
        lines.append(f"  data       {record.data['name']}")
    if not record.metric.is_accuracy:
        lines.append(f"  metric     {record.metric.label} ({record.metric.direction})")
    if record.aim.class_weights:
        lines.append(f"  weights    of classes: {record.aim.class_weights}")
    if limits := [f"{most:,} {name}" for name, most in record.aim.constraints.items()]:
        lines.append(f"  at most    {', '.join(limits)}")
    lines += [f"  trials     {counts_line(record.trials)}", *begun_from_lines(record)]
    lines += passed_over_lines(record.trials)
    if record.best is None:
        return [*lines, "No trial is complete yet."]
    confirmed = confirmation_lines(record)
    return [*lines, "", *best_lines(record), *(["", *confirmed] if confirmed else [])]


def counts_line(trials: Sequence[TrialRecord]) -> str:
    """Number of trials by outcome, in words."""
    order: tuple[Outcome, ...] = (
        "complete", "pruned", "too_large", "infeasible", "duplicate", "failed",
        "running", "waiting", "foreign",
    )  # fmt: skip
    counts = Counter(trial.outcome for trial in trials)
    shown = [outcome_count(counts[outcome], outcome) for outcome in order if counts[outcome]]
    return ", ".join(shown) if shown else "none yet"


def best_lines(record: StudyRecord) -> list[str]:
    """The table of the best trials: value, accuracy, size and time, and the config below each row."""
    metric = record.metric
    width = max(8, len(metric.label))
    beside = "" if metric.is_accuracy else f"  {'accuracy':>8}"
    lines = [f"trial   {metric.label:>{width}}{beside}  parameters  million MACs  seconds"]
    for trial in by_value(record.trials)[:BEST]:
        start = f"  starting point {trial.starting_point}" if trial.starting_point else ""
        lines.append(
            f"#{trial.number:<6} {trial.value:>{width}.4f}{_beside(trial)}  {trial.parameters or 0:>10,}  "
            f"{(trial.macs or 0) / 1e6:>12.1f}  {trial.seconds or 0.0:>7.0f}{start}"
        )
        # On separate lines, so that a terminal of usual width does not wrap them.
        lines += [f"        {part}" for part in record_summary(trial).split(" | ") if part]
    return lines


def _beside(trial: TrialRecord) -> str:
    """The cell of the accuracy beside another metric."""
    if trial.metric == ACCURACY.name:
        return ""
    return f"  {'-' if trial.accuracy is None else f'{trial.accuracy:.4f}':>8}"


def trial_lines(trial: TrialRecord) -> list[str]:
    """One trial in full."""
    lines = [f"Trial #{trial.number}: {ending(trial)}"]
    facts = {
        "config id": trial.config_id,
        "seed": trial.seed,
        "parameters": None if trial.parameters is None else f"{trial.parameters:,}",
        "MACs": None if trial.macs is None else f"{trial.macs:,}",
        "seconds": None if trial.seconds is None else f"{trial.seconds:.1f}",
        "starting point": trial.starting_point,
        "drawn": trial.drawn,
        "interrupted": trial.interrupted or None,
        f"{trial.metric} by epoch": " ".join(f"{value:.3f}" for value in trial.values_by_epoch) or None,
        "with new seeds": " ".join(_again(trial)) or None,
    }
    if trial.accuracies:
        facts["accuracy by epoch"] = " ".join(f"{value:.3f}" for value in trial.accuracies)
    lines += [f"  {name:<18} {value}" for name, value in facts.items() if value is not None]
    if trial.failure is not None:
        lines += ["  failure", *(f"    {line}" for line in trial.failure["message"].strip().split("\n"))]
    if trial.params:
        lines.append("  parameters drawn")
        lines += [f"    {name:<24} {value}" for name, value in sorted(trial.params.items())]
    if trial.config is not None:
        lines += ["  config", *("    " + line for line in json.dumps(trial.config, indent=2).split("\n"))]
    return lines


def _again(trial: TrialRecord) -> list[str]:
    said = []
    for entry in trial.confirmations:
        text = f"failed ({entry['failure']['kind']})" if entry["value"] is None else f"{entry['value']:.4f}"
        steps = entry.get("accumulation", trial.accumulation)
        said.append(text + (f" (each batch in {steps} steps)" if steps != trial.accumulation else ""))
    return said


def confirmation_lines(record: StudyRecord) -> list[str]:
    """The confirmed trials, and which of them are indistinguishable."""
    values = confirmed_values(record.trials)
    if not values:
        return []
    metric = record.metric
    in_search = {trial.number: trial.value or 0.0 for trial in record.trials}
    ranked = sorted(values, key=lambda number: -metric.score(statistics.mean(values[number])))
    lines = ["Trained again with new seeds:", "trial   in the search  again            mean"]
    for number in ranked:
        again = " ".join(f"{value:.4f}" for value in values[number])
        mean = statistics.mean(values[number])
        lines.append(f"#{number:<6} {in_search[number]:<14.4f} {again:<16} {mean:.4f}")
    found = distinguishable(record)
    if found is not None:
        points = f"{metric.difference(found.noise)} {metric.unit}"
        if len(found.equal) > 1:
            numbers = ", ".join(f"#{number}" for number in found.equal)
            lines.append(f"{numbers}: within seed noise ({points}).")
        elif found.is_ahead:
            lines.append(f"#{found.equal[0]} is ahead by more than seed noise ({points}).")
    return lines


def starting_point_line(record: StudyRecord) -> str:
    """The best starting point beside the best sampled trial; empty without a complete starting point."""
    complete = by_value(record.trials)
    given = next((trial for trial in complete if trial.starting_point), None)
    sampled = next((trial for trial in complete if not trial.starting_point), None)
    if given is None:
        return ""
    other = "none yet" if sampled is None else f"{sampled.value:.4f} (#{sampled.number})"
    line = (
        f"Best starting point {given.value:.4f} (#{given.number}, {given.starting_point}); "
        f"best sampled trial {other}."
    )
    if (added := gain(record)) is None:
        return line
    metric = record.metric
    low, high = (metric.difference(each, "+") for each in added.interval)
    better = "from" if metric.direction == "maximize" else "better than"
    return (
        f"{line}\nWith new seeds, #{added.sampled} is {metric.difference(added.points, '+')} {metric.unit} "
        f"{better} #{added.given} (95 % interval {low} to {high})."
    )


def pruning_line(record: StudyRecord) -> str:
    """The epochs that pruning saved; empty if nothing is trained."""
    trained = [trial for trial in record.trials if trial.outcome in ("complete", "pruned")]
    if not trained or record.fidelity is None:
        return ""
    whole = len(trained) * record.fidelity.all_epochs
    saved = whole - sum(len(trial.values_by_epoch) for trial in trained)
    return f"Pruning saved {saved} of {whole} epochs ({saved / whole:.0%})."


def forecast_line(ended: SearchEnded) -> str:
    """What another half hour would probably bring; empty where nothing tells it."""
    if ended.forecast is None:
        return ""
    metric, forecast = ended.record.metric, ended.forecast
    gain, low, high = (metric.difference(each) for each in (forecast.gain, *forecast.interval))
    return (
        f"Another half hour (about {plural(forecast.trials, 'trial')}) would probably improve the best by "
        f"{gain} {metric.unit} (90 % interval {low} to {high})."
    )


def end_lines(ended: SearchEnded, storage: str) -> list[str]:
    """The summary at the end of a search.

    Args:
        ended: the outcome of the search.
        storage: the study database, for the commands to copy, without passwords.
    """
    record = ended.record
    why = {
        "finished": "Done",
        "timeout": "Stopped, because the time is up",
        "signal": f"Stopped by {ended.message}",
        "enough": f"Stopped, because {ended.message}",
        "exhausted": "Stopped, because nothing new is left",
        "failures": "Stopped, because too many trials failed",
    }[ended.reason]
    planned = ""
    if ended.expected_seconds and ended.reason in ("finished", "exhausted"):
        planned = f" (planned: {duration(ended.expected_seconds)})"
    lines = ["", f"{why}, after {duration(ended.seconds)}{planned}. Trials: {counts_line(record.trials)}."]
    if ended.reason == "exhausted":
        lines.append(ended.message)
    said = (pruning_line(record), starting_point_line(record), forecast_line(ended))
    lines += [line for line in said if line]
    if record.best is not None:
        lines += ["", *best_lines(record)]
        confirmed = confirmation_lines(record)
        lines += ["", *confirmed] if confirmed else []
        if ended.importances:
            shown = [f"{name} {share:.0%}" for name, share in list(ended.importances.items())[:BEST]]
            lines += ["", "What matters most: " + ", ".join(shown)]
        values = "accuracies" if record.metric.is_accuracy else "values"
        lines += ["", f"All {values} are on the validation images; the test images stay closed."]
    found = commands(record, storage)
    failed = [trial.number for trial in record.trials if trial.outcome == "failed"]
    if ended.reason == "failures" and failed:
        study = shlex.quote(record.study)
        command = f"{program()} show --study {study} --trial {failed[-1]}{storage_option(storage)}"
        found = {"Look at a failed one": command} | found
    return [*lines, "", *command_lines(found)]


def commands(record: StudyRecord, storage: str, model: str | None = None) -> dict[str, str]:
    """Commands to copy, by what they do: for the best trial by expected accuracy, and for its model.

    Args:
        record: the study.
        storage: its database; a password in it is not shown.
        model: the folder of its retrained model, if there is one: another retraining would be refused, or
            replace it.
    """
    study, place, called = shlex.quote(record.study), storage_option(storage), program()

    def command(name: str, rest: str = "") -> str:
        return f"{called} {name} --study {study}{rest}{place}"

    if record.best is None:
        found = {"Look at the study": command("show")}
    else:
        best = by_expected_accuracy(record.trials)[0].number
        found = {"Look at the best trial": command("show", f" --trial {best}")}
        if model is None:
            found["Train the best again"] = command("retrain")
        found["Export the best trial"] = command("export", f" --trial {best} --format onnx")
        if model is not None:
            folder = shlex.quote(model)
            found["Export the model"] = command("export", f" --model {folder} --format onnx")
            found["Use the model"] = f"{called} predict {folder} IMAGE{place}"
    return found | {WATCH: command("dashboard")}


def command_lines(commands: Mapping[str, str]) -> list[str]:
    """The same as lines of text."""
    return [f"{title + ':':<25} {command}" for title, command in commands.items()]
