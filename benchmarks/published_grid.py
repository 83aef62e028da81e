"""The source's own search on row 1, as a table and an answer. Not here: running it (`mc1opt run`)."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.common import markdown_table
from benchmarks.published_lines import Line
from mc1opt.files import read_lines
from mc1opt.uncertainty import indistinguishable, seed_noise

SOURCES_WINNER = (200, 0.1)
"""Batch size and learning rate."""


def grid_section(path: Path) -> str:
    """The source's own search on row 1: validation accuracy by batch size and learning rate."""
    lines = _one_a_point(read_lines(path))
    if not lines:
        return (
            "Not measured. `mc1opt run --study published_grid`, then "
            "`python -m benchmarks.published --grid storage/mc1opt.db`."
        )
    batches = sorted({line["batch_size"] for line in lines})
    rates = sorted({line["learning_rate"] for line in lines})
    value = {(line["batch_size"], line["learning_rate"]): line for line in lines}
    rows = [
        [f"batch {batch}", *(_grid_cell(value.get((batch, rate))) for rate in rates)] for batch in batches
    ]
    table = markdown_table(["validation accuracy", *(f"learning rate {rate}" for rate in rates)], rows)
    again = {
        number: [value for value in line["again"] if value is not None] for number, line in enumerate(lines)
    }
    again = {number: values for number, values in again.items() if values}
    fidelity = lines[0]["fidelity"]
    trained = f"{fidelity['epochs']} epochs of {fidelity['train_images']:,} images of {lines[0]['data']}"
    return f"Each point: {trained}.\n\n{table}\n\n{_winner(lines, again)}"


def _one_a_point(lines: Sequence[Line]) -> list[Line]:
    """Of a point that was trained again because its training failed, the one that came to its end."""
    found: dict[tuple[int, float], Line] = {}
    for line in lines:
        before = found.get(_point(line))
        if before is None or before["validation_accuracy"] is None:
            found[_point(line)] = line
    return list(found.values())


def _winner(lines: Sequence[Line], again: Mapping[int, Sequence[float]]) -> str:
    """Whether the source's point is the best one, as far as seeds let it be told."""
    source = next((line for line in lines if _point(line) == SOURCES_WINNER), None)
    said = "The source's winner is batch {}, learning rate {}: ".format(*SOURCES_WINNER)
    trained = [line for line in lines if line["validation_accuracy"] is not None]
    if source is None or source not in trained:
        return f"{said}it has no accuracy here."
    rank = sum(line["validation_accuracy"] > source["validation_accuracy"] for line in trained) + 1
    said += f"of single trainings it is number {rank} of {len(trained)} here."
    noise = seed_noise(again)
    if noise is None:
        return f"{said} None was trained again with new seeds, so that nothing can be said beyond that."
    within = [lines[number] for number in indistinguishable(again)]
    points = "; ".join("batch {}, learning rate {}".format(*_point(line)) for line in within)
    verdict = "it is not told apart from the best" if source in within else "another one is better"
    if within == [source]:
        verdict = "it is the best"
    counts = sorted({len(values) for values in again.values()})
    who = "all points have" if len(again) == len(lines) else "the best of them have"
    return (
        f"{said} In brackets: the mean of trainings with new seeds, which {who} "
        f"({' or '.join(map(str, counts))} each). Means that differ by no more than {noise:.4f} are not told "
        f"apart: the best, and within that of it, from the highest mean on, are {points}. So {verdict}."
    )


def _point(line: Line) -> tuple[int, float]:
    return line["batch_size"], line["learning_rate"]


def _grid_cell(line: Line | None) -> str:
    if line is None:
        return "not trained"
    if line["validation_accuracy"] is None:
        return f"failed ({line['failure']['kind']})" if line["failure"] else "not trained"
    again = [value for value in line["again"] if value is not None]
    return f"{line['validation_accuracy']:.4f}" + (f" ({statistics.mean(again):.4f})" if again else "")
