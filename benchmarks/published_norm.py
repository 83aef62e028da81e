"""Batch norm's three expectations: a faster fall of the loss, larger batches, faster training."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from benchmarks.common import markdown_table
from benchmarks.published_arms import BASE, DEEP
from benchmarks.published_lines import Line, Results, Seconds, arithmetic
from mc1opt.uncertainty import spread

LOSS = 0.8
"""The training loss that the arms of batch norm are timed to."""

NORM_ARMS = {
    BASE: {
        (False, 200): BASE,
        (True, 200): f"{BASE}-batchnorm",
        (False, 50): f"{BASE}-batch-50",
        (True, 50): f"{BASE}-batchnorm-batch-50",
    },
    DEEP: {
        (False, 200): DEEP,
        (True, 200): "cnn-deep-batchnorm",
        (False, 50): f"{DEEP}-batch-50",
        (True, 50): f"{DEEP}-batchnorm-batch-50",
    },
}
"""By base: arms by batch norm and batch size."""


def epochs_to_loss(line: Line) -> float | None:
    """Epochs until the mean training loss is at most `LOSS`; None if it never was.

    Interpolated linearly between the last epoch above it and the first below: whole epochs hide how much
    seeds differ.
    """
    losses = line["losses"]
    first = next((index for index, loss in enumerate(losses) if loss <= LOSS), None)
    if first is None:
        return None
    if first == 0:
        return 1.0
    above, below = losses[first - 1], losses[first]
    return float(first + (above - LOSS) / (above - below))


def seconds_to_loss(line: Line, seconds: Seconds) -> float | None:
    """Seconds until the mean training loss is at most `LOSS`; None if it never was.

    Args:
        line: a training.
        seconds: of an epoch, by arm and device; not those of the training, which other work may have slowed.
    """
    epochs = epochs_to_loss(line)
    return None if epochs is None else epochs * seconds[line["arm"], line["device"]]


def norm_section(results: Results, seconds: Seconds) -> str:
    """Batch norm's three expectations, at batch 50 and 200, with and without; see `seconds_to_loss`."""
    parts = [
        "The source expected three things of batch norm: a faster fall of the loss, larger batches, faster "
        "training; it saw 0.7621 fall to 0.7302, and supposed that the network was too small to show them. "
        f"Here: epochs and seconds until the mean training loss of an epoch is at most {LOSS}. The seconds "
        "are those epochs times the median of epochs that were timed in turn in one run "
        "(`python -m benchmarks.published_seconds`), whose own spread no interval includes. Between epochs, "
        "the loss is interpolated linearly. Batch 50 has the learning rate and the epochs of batch 200, and "
        "so four times its steps: the cost of batch 200 includes that of fewer steps."
    ]
    for base, by_arm in NORM_ARMS.items():
        header = ["arm", "loss after 1 epoch", f"epochs to {LOSS}", f"seconds to {LOSS}", "accuracy", "n"]
        rows = [
            _norm_row(norm, batch, results.get((name, "published"), ()), seconds)
            for (norm, batch), name in by_arm.items()
        ]
        parts.append(f"#### On `{base}`\n\n{markdown_table(header, rows)}")
        parts.append("\n".join(f"- {line}" for line in norm_verdicts(results, by_arm, seconds)))
    return "\n\n".join(parts)


def _norm_row(norm: bool, batch: int, lines: Sequence[Line], seconds: Seconds) -> list[str]:
    name = f"batch {batch}, {'with' if norm else 'without'} batch norm"
    if not lines:
        return [name, "not measured", "", "", "", ""]
    return [
        name,
        _mean_or_never(lines, lambda line: next(iter(line["losses"]), None), digits=3),
        _mean_or_never(lines, epochs_to_loss),
        _mean_or_never(lines, lambda line: seconds_to_loss(line, seconds))
        if _is_timed(lines, seconds)
        else "not timed",
        _mean_accuracy(lines),
        str(len(lines)),
    ]


def _is_timed(lines: Iterable[Line], seconds: Seconds) -> bool:
    return all((line["arm"], line["device"]) in seconds for line in lines)


def _mean_accuracy(lines: Sequence[Line]) -> str:
    values = [line["test_accuracy"] for line in lines if line["failure"] is None]
    if not values:
        return "failed"
    failed = f" ({len(lines) - len(values)} failed)" if len(values) < len(lines) else ""
    return f"{statistics.mean(values):.4f}{failed}"


def _mean_or_never(lines: Sequence[Line], measure: Callable[[Line], float | None], digits: int = 1) -> str:
    values = [value for line in lines if (value := measure(line)) is not None]
    if not values:
        return "never"
    never = f" ({len(lines) - len(values)} never)" if len(values) < len(lines) else ""
    return f"{statistics.mean(values):.{digits}f}{never}"


def norm_verdicts(results: Results, by_arm: Mapping[tuple[bool, int], str], seconds: Seconds) -> list[str]:
    """The three expectations: each by its differences, paired by seed, and their 95 % interval."""
    lines = {
        key: {line["seed"]: line for line in results.get((name, "published"), ())}
        for key, name in by_arm.items()
    }
    return [
        "**Faster fall of the loss** (epochs, batch 200): " + _faster(lines, epochs_to_loss),
        "**Faster training** (seconds, batch 200): "
        + (
            _faster(lines, lambda line: seconds_to_loss(line, seconds))
            if all(_is_timed(lines[norm, 200].values(), seconds) for norm in (False, True))
            else "not timed."
        ),
        "**Larger batches** (what batch 200 costs in accuracy against batch 50): " + _larger(lines),
    ]


BySeed = Mapping[tuple[bool, int], Mapping[int, Line]]
"""Lines by batch norm and batch size, and by seed."""


def _faster(lines: BySeed, measure: Callable[[Line], float | None]) -> str:
    without, with_norm = lines[False, 200], lines[True, 200]
    seeds = sorted(without.keys() & with_norm.keys())
    if not seeds:
        return "not measured."
    if mixed := _mixed([without, with_norm]):
        return mixed
    pairs = [(measure(without[seed]), measure(with_norm[seed])) for seed in seeds]
    never = [sum(value is None for value in values) for values in zip(*pairs, strict=True)]
    if any(never):
        return (
            f"no verdict: of {len(seeds)} trainings each, {never[0]} without and {never[1]} with batch norm "
            "never reached the loss."
        )
    values = [(before, after) for before, after in pairs if before is not None and after is not None]
    return _expectation(values, ".1f")


def _larger(lines: BySeed) -> str:
    seeds = sorted(set.intersection(*(set(found) for found in lines.values())))
    if seeds and (mixed := _mixed(lines.values())):
        return mixed
    costs = [
        tuple(
            lines[norm, 50][seed]["test_accuracy"] - lines[norm, 200][seed]["test_accuracy"]
            for norm in (False, True)
        )
        for seed in seeds
        if all(found[seed]["failure"] is None for found in lines.values())
    ]
    return _expectation([(without, with_norm) for without, with_norm in costs], "+.4f")


def _mixed(arms: Iterable[Mapping[int, Line]]) -> str:
    """Why these cannot be compared; empty where they were all trained in one arithmetic."""
    found = sorted({arithmetic(list(lines.values())) for lines in arms})
    return f"no verdict: trained in different arithmetics ({'; '.join(found)})." if len(found) > 1 else ""


def _expectation(pairs: Sequence[tuple[float, float]], shown: str) -> str:
    """Whether the second of each pair is less, as was expected of batch norm."""
    if not pairs:
        return "not measured."
    without, with_norm = (statistics.mean(values) for values in zip(*pairs, strict=True))
    means = f"{with_norm:{shown}} with and {without:{shown}} without"
    gain = spread([before - after for before, after in pairs])
    if gain.interval is None:
        return f"one seed: no verdict; {means}."
    low, high = gain.interval
    word = "met" if low > 0.0 else "not met: the other way round" if high < 0.0 else "not told apart"
    return f"{word}, {means} ({gain.n} seeds)."
