"""The page: from facts to HTML, and to a file.

`page.html` is the template; Jinja escapes whatever it is given, so that names stay text.
"""

import contextlib
import csv
import gzip
import io
import json
import os
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mc1opt import __version__
from mc1opt.calibration import Bin, calibration_error
from mc1opt.config import config_to_json
from mc1opt.database.location import files_folder, storage_option
from mc1opt.database.ranking import by_expected_accuracy, confirmed_values, gain
from mc1opt.database.records import StudyRecord, TrialRecord
from mc1opt.dataset import CIFAR10_DATA
from mc1opt.describe import describe_fidelity
from mc1opt.display import figures
from mc1opt.display.progress import passed_over_lines, record_summary
from mc1opt.display.svg import figure_svg
from mc1opt.display.tables import commands, counts_line, pruning_line, starting_point_line
from mc1opt.errors import StorageError
from mc1opt.inference.evaluate import MOST_COLUMNS, confusion_lines
from mc1opt.inference.retrained import RetrainedModel
from mc1opt.measurement.final_test import misclassified_path
from mc1opt.models.cost import cost
from mc1opt.presets import PRESETS
from mc1opt.program import program
from mc1opt.report.facts import Facts, gather
from mc1opt.report.pictures import address, mistakes, sample
from mc1opt.report.trust import checks, early_ranks
from mc1opt.text import duration, plural

BEST = 10
"""Trials in words."""
SEARCH = (figures.learning_curves, figures.best_over_time, figures.epochs_before_pruning)
SIZES = (figures.accuracy_and_parameters, figures.accuracy_and_macs)
IMPORTANT = 8
"""Parameters whose importance is told."""
PLAIN_BYTES = 200_000
"""Of the trials as CSV; a larger file is compressed, so that a page of 1,000 trials stays below 2 MB."""


def report_path(storage: str, record: StudyRecord) -> Path:
    """Where the report of a study is written by default."""
    return files_folder(storage) / "reports" / f"{record.folder}.html"


def write_report(storage: str, name: str, output: Path | None = None) -> Path:
    """Writes the report of a stored study; one that is there is replaced.

    Args:
        storage: the study database.
        name: the study.
        output: the file; None for `report_path`.

    Returns:
        The file.

    Raises:
        StorageError: there is no such study, or the file cannot be written.
    """
    facts = gather(storage, name)
    path = output or report_path(storage, facts.record)
    new = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(page(facts), encoding="utf-8")
        new.replace(path)
    except OSError as error:
        raise StorageError(f"the report {path} cannot be written: {error.strerror}.") from error
    finally:
        with contextlib.suppress(OSError):  # such as a folder that is a file
            new.unlink(missing_ok=True)
    return path


def write_or_warn(storage: str, name: str, write: Callable[[str], None], warn: Callable[[str], None]) -> None:
    """Writes the report and tells where it is; errors become warnings, for what came before has succeeded."""
    try:
        write(f"{'Read its story:':<25} {write_report(storage, name)}")
    except Exception as error:
        warn(f"Warning: the report of study {name!r} is not written: {error}")


def page(facts: Facts) -> str:
    """The whole page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mc1opt.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html").render(_content(facts))


# ---- What the template is given --------------------------------------------------------------------------


def _content(facts: Facts) -> dict[str, Any]:
    record = facts.record
    return {
        "facts": facts,
        "record": record,
        "metric": record.metric,
        "version": __version__,
        "written": datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        "own_images": (record.data or {}).get("name", "").startswith("own"),
        "answer": _answer(facts) if record.best else [],
        "counts": counts_line(record.trials),
        "passed_over": passed_over_lines(record.trials),
        "fidelity": describe_fidelity(record.fidelity) if record.fidelity else "",
        "commands": commands(record, facts.storage, facts.model.found.model if facts.model else None),
        "checks": checks(facts) if record.best else [],
        "explain": f"{program()} explain{_of(facts)}",
        "importances": list(facts.importances.items())[:IMPORTANT],
        "search": [_svg(make(record)) for make in SEARCH],
        "ranks": early_ranks(record),
        "pruning": pruning_line(record),
        "sizes": [_svg(make(record)) for make in SIZES],
        "best": [_row(record, trial) for trial in by_expected_accuracy(record.trials)[:BEST]],
        "test": _test(facts.model) if facts.model else None,
        "sample": sample(facts.data) if facts.data else {},
        "repeat": _repeat(facts),
        "files": _files(facts),
    }


def _of(facts: Facts) -> str:
    """The options of a command for the study."""
    return f" --study {shlex.quote(facts.record.study)}{storage_option(facts.storage)}"


def _svg(figure: figures.Figure) -> dict[str, Any]:
    return {"title": figure["layout"]["title"]["text"], "svg": Markup(figure_svg(figure))}


def _answer(facts: Facts) -> list[str]:
    """What the reader has: the best network, in sentences."""
    record, metric = facts.record, facts.record.metric
    best = by_expected_accuracy(record.trials)[0]
    if facts.model is None:
        new = _again(record, best.number)
        said = [
            f"Trial #{best.number} is the best network so far: validation {metric.label} {best.value:.4f} in "
            f"the search{f', {new} with new seeds' if new else ''}; {best.parameters or 0:,} parameters. "
            "It was not tested yet."
        ]
    else:
        said = [_tested(facts.model)]
    if facts.latency is not None:
        format_, milliseconds = facts.latency
        said.append(
            f"Exported as {format_}, it takes {milliseconds:.2f} ms for one image where it was exported."
        )
    if gain(record) is not None:  # whose line is the second one
        said.append(starting_point_line(record).partition("\n")[2])
    if (record.data or {}).get("name") == CIFAR10_DATA.name and metric.is_accuracy:
        known = max(PRESETS.values(), key=lambda preset: preset.published_accuracy)
        said.append(
            f"The best published model of the hand-tuned series, {known.name}, has "
            f"{known.published_accuracy} with {known.parameters:,} parameters."
        )
    return said


def _tested(model: RetrainedModel) -> str:
    found, size = model.found, cost(model.folder.config.architecture, model.folder.task.shape)
    over = f" over {plural(found.seeds, 'seed')}"
    if found.interval is not None:
        over += ", 95 % interval {:.4f} to {:.4f}".format(*found.interval)
    return (
        f"The network of trial #{found.trial}, retrained for {plural(found.epochs, 'epoch')}, has test "
        f"accuracy {found.test:.4f}{over}: {size.parameters:,} parameters, {size.macs / 1e6:.1f} million "
        f"multiply-accumulates an image. The model is in {found.model}."
    )


def _again(record: StudyRecord, number: int) -> str:
    """A trial's values with new seeds, in words; empty without any."""
    values = confirmed_values(record.trials).get(number, [])
    return ", ".join(f"{value:.4f}" for value in values)


def _row(record: StudyRecord, trial: TrialRecord) -> dict[str, Any]:
    """A trial in the table of the best."""
    return {
        "number": trial.number,
        "value": f"{trial.value:.4f}",
        "again": _again(record, trial.number) or "-",
        "parameters": "-" if trial.parameters is None else f"{trial.parameters:,}",
        "macs": "-" if trial.macs is None else f"{trial.macs / 1e6:.1f}",
        "seconds": "-" if trial.seconds is None else duration(trial.seconds),
        "words": record_summary(trial),
        "given": trial.starting_point,
    }


def _test(model: RetrainedModel) -> dict[str, Any]:
    """What the test images said of the kept model, as it was stored when they were opened."""
    test, names = model.folder.metrics["test"], list(model.folder.task.class_names)
    bins = [Bin(*each) for each in test.get("calibration", [])]
    wrong = misclassified_path(model.folder.path, model.folder.weights_sha256)
    return {
        "names": names,
        "confusion": test["confusion"] if len(names) <= MOST_COLUMNS else None,
        "lines": confusion_lines(test["confusion"], names),
        "by_class": test.get("by_class", {}),
        "calibration": _svg(figures.reliability(bins)) if bins else None,
        "error": calibration_error(bins) if bins else None,
        "mistakes": mistakes(wrong, names),
    }


def _repeat(facts: Facts) -> dict[str, Any]:
    """How the study was made, for who repeats it."""
    record, model = facts.record, facts.model
    shown: dict[str, Any] = {}
    if record.definition is not None and record.seed is not None:
        counted = sum(trial.outcome in ("complete", "pruned") for trial in record.trials)
        names = f"--study {shlex.quote(record.definition)} --name {shlex.quote(f'{record.study}-again')}"
        shown["search"] = f"{program()} run {names} --seed {record.seed} --trials {counted}"
    shown |= {f"data, {key}": value for key, value in (record.data or {}).items()}
    if (best := record.best) is not None:
        shown |= {"trial": best.number, "its seed": best.seed, "its config": best.config_id}
        shown |= {name: value for name, value in best.versions.items() if value is not None}
        shown["replay"] = f"{program()} replay{_of(facts)} --trial {best.number}"
    if model is not None:
        shown["retraining"] = model.folder.metrics.get("command")
        shown["weights, SHA-256"] = model.folder.weights_sha256
    return {name: value for name, value in shown.items() if value is not None}


def _files(facts: Facts) -> dict[str, str]:
    """Files to save from the page, as `data:` addresses by their names."""
    files = {}
    model, best = facts.model, facts.record.best
    config = config_to_json(model.folder.config) if model else best.config if best else None
    if config is not None:
        files["config.json"] = address(json.dumps(config, indent=2).encode(), "application/json")
    written = io.StringIO()
    rows = facts.record.rows()
    table = csv.DictWriter(written, rows[0] if rows else (), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    content = written.getvalue().encode()
    if len(content) <= PLAIN_BYTES:
        files["trials.csv"] = address(content, "text/csv")
    else:
        files["trials.csv.gz"] = address(gzip.compress(content), "application/gzip")
    return files
