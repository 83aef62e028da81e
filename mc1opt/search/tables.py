"""Studies and trials as lines of text, for `show` and for the end of a search."""

import json
from collections import Counter
from collections.abc import Sequence

from mc1opt.search.observers import SearchEnded
from mc1opt.search.progress import duration, ending, record_summary
from mc1opt.search.records import Outcome, StudyRecord, TrialRecord

BEST = 5
"""Trials in a table of the best."""


def study_lines(record: StudyRecord) -> list[str]:
    """A study: what it is, its counts, its best trials."""
    fidelity = record.fidelity
    lines = [f"Study {record.study}" + (f" ({record.definition})" if record.definition else "")]
    if fidelity is not None:
        lines.append(f"  fidelity   {fidelity.epochs} epochs of {fidelity.train_images:,} training images")
    if record.data is not None:
        lines.append(f"  data       {record.data['name']}")
    lines.append(f"  trials     {counts_line(record.trials)}")
    if record.best is None:
        return [*lines, "No trial is complete yet."]
    return [*lines, "", *best_lines(record)]


def counts_line(trials: Sequence[TrialRecord]) -> str:
    """How many trials there are of each outcome."""
    words: dict[Outcome, str] = {
        "complete": "complete",
        "pruned": "pruned",
        "too_large": "too large",
        "duplicate": "duplicates",
        "failed": "failed",
        "running": "running",
        "waiting": "waiting",
    }
    counts = Counter(trial.outcome for trial in trials)
    shown = [f"{counts[key]} {word}" for key, word in words.items() if counts[key]]
    return ", ".join(shown) if shown else "none yet"


def best_lines(record: StudyRecord) -> list[str]:
    """The table of the best trials: validation accuracy, size, time, config."""
    complete = [trial for trial in record.trials if trial.value is not None]
    complete.sort(key=lambda trial: (-(trial.value or 0.0), trial.number))
    lines = ["trial   accuracy  parameters  million MACs  minutes  config"]
    for trial in complete[:BEST]:
        start = f" [{trial.starting_point}]" if trial.starting_point else ""
        lines.append(
            f"#{trial.number:<6} {trial.value:<9.4f} {trial.parameters or 0:<11,} "
            f"{(trial.macs or 0) / 1e6:<13.1f} {(trial.seconds or 0.0) / 60:<8.1f} "
            f"{record_summary(trial)}{start}"
        )
    return lines


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
        "interrupted": trial.interrupted or None,
        "accuracy by epoch": " ".join(f"{value:.3f}" for value in trial.values_by_epoch) or None,
    }
    lines += [f"  {name:<18} {value}" for name, value in facts.items() if value is not None]
    if trial.params:
        lines.append("  parameters drawn")
        lines += [f"    {name:<24} {value}" for name, value in sorted(trial.params.items())]
    if trial.config is not None:
        lines += ["  config", *("    " + line for line in json.dumps(trial.config, indent=2).split("\n"))]
    return lines


def end_lines(ended: SearchEnded) -> list[str]:
    """What a search says when it ends."""
    record = ended.record
    why = {
        "finished": "Done",
        "timeout": "Stopped, because the time is up",
        "signal": f"Stopped by {ended.message}",
        "exhausted": f"Stopped: {ended.message}",
        "failures": "Stopped, because too many trials failed",
    }[ended.reason]
    lines = ["", f"{why}, after {duration(ended.seconds)}. {counts_line(record.trials)}."]
    if record.best is not None:
        lines += ["", *best_lines(record)]
        lines += [
            "",
            "Accuracy is that of one training on the validation images; the test images stay closed.",
        ]
    lines += ["", f"See a trial with: mc1opt show --study {record.study} --trial N"]
    return lines
