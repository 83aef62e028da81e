"""The dashboard's notes on a study and its best trials, as Markdown. Stores nothing.

Each note ends with a line that says who wrote it. What people write below that line survives an update; a
note without it belongs to a person and is never changed.
"""

import shlex
import statistics
from collections.abc import Sequence

from mc1opt.config import config_from_json
from mc1opt.database.location import storage_option
from mc1opt.database.ranking import confirmed_values, distinguishable
from mc1opt.database.records import StudyRecord, TrialRecord, by_value
from mc1opt.describe import describe_config, describe_fidelity
from mc1opt.display.progress import passed_over_lines, shown_value
from mc1opt.display.tables import WATCH, commands, counts_line, pruning_line, starting_point_line
from mc1opt.errors import ConfigError
from mc1opt.inference.retrained import Retrained
from mc1opt.metric import Metric
from mc1opt.text import duration, plural

BEST = 5
"""Number of trials with notes, files and a line in the study's note."""
END = "\n\n---\n*Written by mc1opt, and kept up to date. What you write below this line stays.*"

OUTCOMES = """\
Optuna's state `Pruned` stands for five outcomes; see the attribute `outcome`: `pruned` (stopped early),
`too_large` (above the limit of multiply-accumulates, not trained), `infeasible` (rejected by the search
space, not trained), `duplicate` (the config was trained already), `failed` (see `failure`). Trials of other
programs are `foreign` and do not count."""


def best_trials(record: StudyRecord) -> list[TrialRecord]:
    """The best complete trials, best first."""
    return by_value(record.trials)[:BEST]


# ---- On a study ------------------------------------------------------------------------------------------


def study_note(record: StudyRecord, *, storage: str, page: str, found: Retrained | None = None) -> str:
    """The note on a study: what it is, its results, and the next commands.

    Args:
        record: the study.
        storage: the study database, for the commands; a password in it is not shown.
        page: the path of the study in the dashboard, for links to trials.
        found: the result of its retraining, if any.
    """
    best = best_trials(record)
    parts = [f"# {_code(record.study)}", _what(record)]
    if not best:
        parts.append("No trial is complete yet. This note will name the best one.")
    else:
        parts += [_best(best[0], page), _table(record, best, page), _distinguishable(record)]
        parts += [starting_point_line(record), pruning_line(record)]
    if found is not None:
        parts.append(_retrained(found, page, record.metric))
    shown = commands(record, storage, found.model if found else None)
    del shown[WATCH]  # the reader does
    parts += [_block("## Commands", list(shown.values())), OUTCOMES]
    return "\n\n".join(part for part in parts if part)


def _what(record: StudyRecord) -> str:
    definition = f", study definition {_code(record.definition)}" if record.definition else ""
    data = f" on {_code(record.data['name'])}" if record.data else ""
    lines = [f"A search for an image classifier{data}: architecture and training together{definition}."]
    if record.fidelity is not None:
        lines.append(
            f"Each trial trains at most {describe_fidelity(record.fidelity)}. Its value "
            f"is the validation {record.metric.label} of its last epoch; the test images stay closed."
        )
    passed_over = passed_over_lines(record.trials)
    return "\n".join([*lines, "", f"Trials: {counts_line(record.trials)}.", *passed_over])


def _best(trial: TrialRecord, page: str) -> str:
    title = f"## Best so far: {shown_value(trial, 4)}, trial {_link(trial.number, page)}"
    return "\n".join([title, "", *(f"- {part}" for part in _parts(trial))])


def _table(record: StudyRecord, best: Sequence[TrialRecord], page: str) -> str:
    confirmed = confirmed_values(record.trials)
    columns = ["trial", record.metric.label]
    if not record.metric.is_accuracy:
        columns.append("accuracy")
    columns += ["with new seeds", "parameters", "million MACs", "time", "config"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for trial in best:
        again = ", ".join(f"{value:.4f}" for value in confirmed.get(trial.number, []))
        right = trial.accuracy
        cells = [
            _link(trial.number, page),
            f"{trial.value:.4f}",
            *([] if record.metric.is_accuracy else ["-" if right is None else f"{right:.4f}"]),
            again or "-",
            "-" if trial.parameters is None else f"{trial.parameters:,}",
            "-" if trial.macs is None else f"{trial.macs / 1e6:.1f}",
            "-" if trial.seconds is None else duration(trial.seconds),
            "; ".join(_parts(trial)) or "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _distinguishable(record: StudyRecord) -> str:
    """What the ranking is worth in view of seed noise."""
    told = distinguishable(record)
    if told is None:
        return (
            "Trained again with another seed, a config ends some tenths of a point higher or lower. The best "
            "trials are trained again at the end of the search."
        )
    means = {number: statistics.fmean(group) for number, group in confirmed_values(record.trials).items()}
    points = f"{record.metric.difference(told.noise)} {record.metric.unit}"
    if told.is_ahead:
        best = told.equal[0]
        return (
            f"Trained again with new seeds, #{best} is ahead ({means[best]:.4f}) by more than seed noise "
            f"({points})."
        )
    shown = ", ".join(f"#{number} ({means[number]:.4f})" for number in told.equal)
    if len(told.equal) == 1:
        return f"Trained again with new seeds: {shown}. No other trial was, so there is nothing to compare."
    return f"Trained again with new seeds, these cannot be distinguished: {shown}; seed noise is {points}."


def _retrained(found: Retrained, page: str, metric: Metric) -> str:
    of = "" if metric.is_accuracy else f" {metric.label}"
    low_high = "" if found.interval is None else ", 95 % interval {:.4f} to {:.4f}".format(*found.interval)
    return (
        f"## Retrained: test accuracy {found.test:.4f}\n\n"
        f"Trial {_link(found.trial, page)} won: validation{of} {found.validation:.4f} after {found.epochs} "
        f"epochs. Trained on all images, {plural(found.seeds, 'seed')}: test accuracy "
        f"{found.test:.4f}{low_high}. The model is in {_code(found.model)}."
    )


# ---- On a trial ------------------------------------------------------------------------------------------


def trial_note(
    record: StudyRecord, trial: TrialRecord, *, storage: str, found: Retrained | None = None
) -> str:
    """The note on one of the best trials: its config, results with other seeds, and the next commands.

    Args:
        record: its study.
        trial: a complete trial of it.
        storage: see `study_note`.
        found: the result of the study's retraining, shown on the winner; no command retrains again then.
    """
    ranked = [entry.number for entry in best_trials(record)]
    rank = f", number {ranked.index(trial.number) + 1} of its study" if trial.number in ranked else ""
    parts = [f"# Trial {trial.number}: {shown_value(trial, 4)}{rank}"]
    parts.append("\n".join(f"- {part}" for part in _parts(trial)))
    facts = {
        "parameters": None if trial.parameters is None else f"{trial.parameters:,}",
        "multiply-accumulates an image": None if trial.macs is None else f"{trial.macs:,}",
        "time": None if trial.seconds is None else duration(trial.seconds),
        "starting point": None if trial.starting_point is None else _code(trial.starting_point),
        "seed": trial.seed,
    }
    parts.append("\n".join(f"- {name}: {value}" for name, value in facts.items() if value is not None))
    again = confirmed_values(record.trials).get(trial.number)
    if again:
        values = ", ".join(f"{value:.4f}" for value in again)
        parts.append(f"Trained again with new seeds: {values}; mean {statistics.fmean(again):.4f}.")
    if found is not None and found.trial == trial.number:
        parts.append(
            f"Retrained ({plural(found.epochs, 'epoch')}, {plural(found.seeds, 'seed')}): "
            f"validation {found.validation:.4f}, test {found.test:.4f}. "
            "The files below show what the test images said."
        )
    study, place = shlex.quote(record.study), storage_option(storage)
    lines = [f"mc1opt show --study {study} --trial {trial.number}{place}"]
    for command in ("retrain", "replay") if found is None else ("replay",):
        lines.append(f"mc1opt {command} --study {study} --trial {trial.number}{place}")
    lines.append(f"mc1opt export --study {study} --trial {trial.number} --format onnx{place}")
    return "\n\n".join([*(part for part in parts if part), _block("## Commands", lines)])


# ---- Written over an older note --------------------------------------------------------------------------


def merged_note(stored: str, new: str) -> str:
    """The new note, followed by what a person has written below the stored one.

    Args:
        stored: the present note; empty if there is none.
        new: mc1opt's note; empty to remove it.
    """
    _, line, below = stored.partition(END)
    if stored and not line:
        return stored  # a person's
    if new:
        return new + END + below
    return END + below if below.strip() else ""


# ---- Parts -----------------------------------------------------------------------------------------------


def _parts(trial: TrialRecord) -> list[str]:
    """Architecture and recipe, a line each; empty for a config of a newer mc1opt."""
    try:
        return [] if trial.config is None else describe_config(config_from_json(trial.config)).split(" | ")
    except ConfigError:
        return []


def _link(number: int, page: str) -> str:
    return f"[#{number}]({page}/trials?numbers={number})"


def _code(text: str) -> str:
    """Text as inline code, whatever Markdown it contains."""
    fence = "`"
    while fence in text:
        fence += "`"
    blank = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{blank}{text}{blank}{fence}"


def _block(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, "", "```bash", *lines, "```"])
