"""`LADDER.md` and its plot, from the files of results alone: where nothing is measured, it says so.

Not here: measuring (`ladder.py`).
"""

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure

from benchmarks.common import markdown_table
from benchmarks.ladder_arms import BASE, DEEP, Arm, arms
from mc1opt.config import config_id
from mc1opt.data.cache import CIFAR10
from mc1opt.models.cost import cost
from mc1opt.presets import OPEN_VALUES, PRESETS, RECIPES, SOURCE, Preset
from mc1opt.results.json_lines import read_lines
from mc1opt.results.statistics import Spread, spread
from mc1opt.search.noise import not_told_apart

GRID_RESULTS = "ladder_grid.jsonl"
REPORT, PLOT = "LADDER.md", "LADDER.svg"
MARGIN = 0.01
"""What a row's mean with the recipe of the source may be below the published accuracy: a single number."""
NO_GAIN = 0.01
"""A gain that still counts as none: where more than it is possible, "does not help" is not shown."""
KEPT = 0.02
"""A loss of accuracy that still counts as keeping it: the source's own is 0.009."""
LOSS = 0.8
"""The training loss that the arms of batch norm are timed to."""

Key = tuple[str, str]
"""Name of an arm, and recipe."""
Line = dict[str, Any]
Results = Mapping[Key, Sequence[Line]]
"""Lines by arm, in the order of their seeds."""


# ---- Reading ---------------------------------------------------------------------------------------------


def read_results(path: Path) -> dict[Key, list[Line]]:
    """CIFAR-10's lines of today's arms: their config and epochs. Of one seed, the last line counts."""
    current = {(arm.name, arm.recipe): (config_id(arm.config), arm.epochs) for arm in arms()}
    by_seed: dict[Key, dict[int, Line]] = defaultdict(dict)
    for line in read_lines(path):
        key = (line["arm"], line["recipe"])
        if line["data"] == CIFAR10 and current.get(key) == (line["config_id"], line["epochs"]):
            by_seed[key][line["seed"]] = line
    return {key: [line for _, line in sorted(lines.items())] for key, lines in by_seed.items()}


def accuracies(results: Results, key: Key) -> dict[int, float]:
    """Test accuracy by seed, of the trainings that did not fail."""
    return {line["seed"]: line["test_accuracy"] for line in results.get(key, ()) if line["failure"] is None}


def failures(results: Results, key: Key) -> str:
    """How many trainings failed, and how; empty if none did."""
    lines = results.get(key, ())
    kinds = sorted({line["failure"] for line in lines if line["failure"] is not None})
    count = sum(line["failure"] is not None for line in lines)
    return f"{count} of {len(lines)} {' or '.join(kinds)}" if count else ""


def accuracy_spread(results: Results, key: Key) -> Spread | None:
    """Mean, standard deviation and interval over the seeds; None where nothing is measured."""
    values = list(accuracies(results, key).values())
    return spread(values) if values else None


# ---- Rows ------------------------------------------------------------------------------------------------


def rows_section(results: Results) -> str:
    """Each published model: theirs, and ours with both recipes."""
    header = [
        "model",
        "parameters",
        "published",
        "recipe `published`",
        "n",
        "recipe `mc1opt`",
        "n",
        "verdict",
    ]
    rows = []
    for preset in PRESETS.values():
        cells = [
            f"{preset.row} `{preset.name}`",
            f"{preset.parameters:,}",
            f"{preset.published_accuracy:.4f}",
        ]
        for recipe in RECIPES:
            numbers = accuracy_spread(results, (preset.name, recipe))
            failed = failures(results, (preset.name, recipe))
            cells += [_cell(numbers, failed), "" if numbers is None else str(numbers.n)]
        rows.append([*cells, row_verdict(preset, results)])
    return markdown_table(header, rows)


def row_verdict(preset: Preset, results: Results) -> str:
    """Whether the row's two marks are reached; where seeds failed or are missing, that comes with it."""
    wanted = {arm.recipe: arm.seeds for arm in arms() if arm.name == preset.name}
    said = []
    for recipe in RECIPES:
        numbers = accuracy_spread(results, (preset.name, recipe))
        if numbers is None:
            continue
        ahead = numbers.mean - preset.published_accuracy
        if recipe == "mc1opt":
            text = f"{ahead:+.4f}" if ahead > 0 else f"not above it ({ahead:+.4f})"
        else:
            text = "reproduced" if ahead >= -MARGIN else f"short by {-MARGIN - ahead:.4f}"
        if numbers.n < wanted[recipe]:
            text += f" over {numbers.n} of {wanted[recipe]} seeds"
        said.append(text)
    return ", ".join(said)


def _cell(numbers: Spread | None, failed: str) -> str:
    behind = f"; {failed}" if failed else ""
    if numbers is None:
        return failed or "not measured"
    if numbers.std is None or numbers.interval is None:
        return f"{numbers.mean:.4f}{behind}"
    low, high = numbers.interval
    return f"{numbers.mean:.4f} ± {numbers.std:.4f} [{low:.4f}, {high:.4f}]{behind}"


# ---- Claims ----------------------------------------------------------------------------------------------

Expected = Literal["higher", "not higher", "kept"]


@dataclass(frozen=True)
class Comparison:
    """Two arms that differ in what is claimed, both with the recipe of the source."""

    before: str
    after: str
    expected: Expected
    """Of the accuracy: what the claim says."""


@dataclass(frozen=True)
class Claim:
    """What the source says, and the arms that test it."""

    title: str
    said: str
    comparisons: tuple[Comparison, ...]


CLAIMS = (
    Claim(
        "A third linear layer adds a little",
        "Twice the parameters, 0.5214 to 0.5320.",
        (Comparison("mlp-128-64", "mlp-256-128-64", "higher"),),
    ),
    Claim(
        "Wider convolutions add much",
        "0.5607 to 0.6529.",
        (Comparison("cnn-6-16-fc", "cnn-32-128-fc", "higher"),),
    ),
    Claim(
        "Removing the linear layers keeps the accuracy at a tenth of the parameters",
        "0.6529 to 0.6438.",
        (Comparison("cnn-32-128-fc", "cnn-32-128", "kept"),),
    ),
    Claim(
        "Max pooling adds, with a fifth of the parameters",
        "0.6438 to 0.6972.",
        (Comparison("cnn-32-128", "cnn-32-128-pool", "higher"),),
    ),
    Claim(
        "Dropout after the first convolution adds",
        "0.6972 to 0.7142.",
        (Comparison("cnn-32-128-pool", "cnn-32-128-pool-dropout", "higher"),),
    ),
    Claim(
        "Deeper adds",
        "0.7142 to 0.7621.",
        (Comparison("cnn-32-128-pool-dropout", DEEP, "higher"),),
    ),
    Claim(
        "A smaller kernel doesn't help",
        "In words only.",
        (Comparison(BASE, f"{BASE}-kernel-3", "not higher"),),
    ),
    Claim(
        "Stride, padding and kernel size, adjusted together, add a little",
        "0.7621 to 0.7653.",
        (Comparison(DEEP, "cnn-deep-adjusted", "higher"),),
    ),
    Claim(
        "Adam is not better than SGD",
        "0.7621 with SGD, 0.7366 with Adam.",
        (Comparison(BASE, f"{BASE}-adam", "not higher"), Comparison(DEEP, "cnn-deep-adam", "not higher")),
    ),
)


def claims_section(results: Results) -> str:
    """Each claim with a table of its comparisons."""
    parts = []
    for claim in CLAIMS:
        rows = [_comparison_row(comparison, results) for comparison in claim.comparisons]
        header = ["from -> to", "parameters", "ours", "difference [95 %]", "n", "verdict"]
        parts.append(f"### {claim.title}\n\nThe source: {claim.said}\n\n{markdown_table(header, rows)}")
    return "\n\n".join(parts)


def _comparison_row(comparison: Comparison, results: Results) -> list[str]:
    parameters = {arm.name: cost(arm.config.architecture).parameters for arm in arms()}
    names = (comparison.before, comparison.after)
    by_seed = [accuracies(results, (name, "published")) for name in names]
    common = by_seed[0].keys() & by_seed[1].keys()  # so that means and difference fit together
    shown = " -> ".join(
        f"{statistics.mean(values[seed] for seed in (common or values)):.4f}" if values else "not measured"
        for values in by_seed
    )
    paired = difference(comparison, results)
    return [
        f"`{comparison.before}` -> `{comparison.after}`",
        " -> ".join(f"{parameters[name]:,}" for name in names),
        shown,
        "" if paired is None else _difference_cell(paired),
        "" if paired is None else str(paired.n),
        verdict(comparison.expected, paired),
    ]


def difference(comparison: Comparison, results: Results) -> Spread | None:
    """The gain in accuracy over the seeds that both arms have; None without any."""
    before, after = (
        accuracies(results, (name, "published")) for name in (comparison.before, comparison.after)
    )
    common = sorted(before.keys() & after.keys())
    return spread([after[seed] - before[seed] for seed in common]) if common else None


def verdict(expected: Expected, gain: Spread | None) -> str:
    """What a paired difference says of a claim, at the level of its 95 % interval."""
    if gain is None:
        return "not measured"
    if gain.interval is None:
        return "one seed: no verdict"
    low, high = gain.interval
    if expected == "not higher":
        if low > 0.0:
            return "disagrees: it helps"
        return f"agrees: no gain above {NO_GAIN}" if high < NO_GAIN else "not told apart"
    least = -KEPT if expected == "kept" else 0.0
    if low > least:
        return "agrees"
    return f"disagrees: below {least:+.2f}" if high < least else "not told apart"


def _difference_cell(numbers: Spread) -> str:
    if numbers.interval is None:
        return f"{numbers.mean:+.4f}"
    low, high = numbers.interval
    return f"{numbers.mean:+.4f} [{low:+.4f}, {high:+.4f}]"


# ---- Batch norm ------------------------------------------------------------------------------------------

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


def epochs_to_loss(line: Line) -> int | None:
    """How many epochs until the mean training loss of one is at most `LOSS`; None if it never was."""
    return next((i for i, loss in enumerate(line["losses"], start=1) if loss <= LOSS), None)


def seconds_to_loss(line: Line) -> float | None:
    """The seconds of those epochs; None if the loss was never reached."""
    epochs = epochs_to_loss(line)
    return None if epochs is None else sum(line["epoch_seconds"][:epochs])


def norm_section(results: Results) -> str:
    """Batch norm's three expectations, at batch 50 and 200, with and without."""
    parts = [
        "The source expected three things of batch norm: a faster fall of the loss, larger batches, faster "
        "training; it saw 0.7621 fall to 0.7302, and supposed that the network was too small to show them. "
        f"Timed here: epochs and seconds until the mean training loss of an epoch is at most {LOSS}."
    ]
    for base, by_arm in NORM_ARMS.items():
        header = ["arm", "loss after 1 epoch", f"epochs to {LOSS}", f"seconds to {LOSS}", "accuracy", "n"]
        rows = [
            _norm_row(norm, batch, results.get((name, "published"), ()))
            for (norm, batch), name in by_arm.items()
        ]
        parts.append(f"#### On `{base}`\n\n{markdown_table(header, rows)}")
        parts.append("\n".join(f"- {line}" for line in norm_verdicts(results, by_arm)))
    return "\n\n".join(parts)


def _norm_row(norm: bool, batch: int, lines: Sequence[Line]) -> list[str]:
    name = f"batch {batch}, {'with' if norm else 'without'} batch norm"
    if not lines:
        return [name, "not measured", "", "", "", ""]
    return [
        name,
        _mean_or_never(lines, lambda line: next(iter(line["losses"]), None), digits=3),
        _mean_or_never(lines, epochs_to_loss),
        _mean_or_never(lines, seconds_to_loss),
        _mean_accuracy(lines),
        str(len(lines)),
    ]


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


def norm_verdicts(results: Results, by_arm: Mapping[tuple[bool, int], str]) -> list[str]:
    """The three expectations: each by its differences, paired by seed, and their 95 % interval."""
    lines = {
        key: {line["seed"]: line for line in results.get((name, "published"), ())}
        for key, name in by_arm.items()
    }
    return [
        "**Faster fall of the loss** (epochs, batch 200): " + _faster(lines, epochs_to_loss),
        "**Faster training** (seconds, batch 200): " + _faster(lines, seconds_to_loss, timed=True),
        "**Larger batches** (what batch 200 costs in accuracy against batch 50): " + _larger(lines),
    ]


BySeed = Mapping[tuple[bool, int], Mapping[int, Line]]
"""Lines by batch norm and batch size, and by seed."""


def _faster(lines: BySeed, measure: Callable[[Line], float | None], *, timed: bool = False) -> str:
    without, with_norm = lines[False, 200], lines[True, 200]
    seeds = sorted(without.keys() & with_norm.keys())
    if not seeds:
        return "not measured."
    pairs = [(measure(without[seed]), measure(with_norm[seed])) for seed in seeds]
    never = [sum(value is None for value in values) for values in zip(*pairs, strict=True)]
    if any(never):
        return (
            f"no verdict: of {len(seeds)} trainings each, {never[0]} without and {never[1]} with batch norm "
            "never reached the loss."
        )
    if timed and len({_circumstances(arm[seed]) for arm in (without, with_norm) for seed in seeds}) > 1:
        return "no verdict: timed on different machines, or beside different work."
    values = [(before, after) for before, after in pairs if before is not None and after is not None]
    return _expectation(values, ".1f")


def _circumstances(line: Line) -> tuple[Any, ...]:
    return line["device"], line["precision"], line["workers"], line["machine"]["cpu_model"]


def _larger(lines: BySeed) -> str:
    seeds = sorted(set.intersection(*(set(found) for found in lines.values())))
    costs = [
        tuple(
            lines[norm, 50][seed]["test_accuracy"] - lines[norm, 200][seed]["test_accuracy"]
            for norm in (False, True)
        )
        for seed in seeds
        if all(found[seed]["failure"] is None for found in lines.values())
    ]
    return _expectation([(without, with_norm) for without, with_norm in costs], "+.4f")


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


# ---- The grid --------------------------------------------------------------------------------------------


def grid_section(path: Path) -> str:
    """The source's own search on row 1: validation accuracy by batch size and learning rate."""
    lines = read_lines(path)
    if not lines:
        return (
            "Not measured. `mc1opt run --study published_grid`, then "
            "`python -m benchmarks.ladder --grid storage/mc1opt.db`."
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
    best = [lines[number] for number in not_told_apart(again)]
    winner = (
        "within seed noise of the best: " if len(best) > 1 else "best: " if best else "none was trained again"
    ) + "; ".join(f"batch {line['batch_size']}, learning rate {line['learning_rate']}" for line in best)
    fidelity = lines[0]["fidelity"]
    trained = f"{fidelity['epochs']} epochs of {fidelity['train_images']:,} images of {lines[0]['data']}"
    return (
        f"Each point: {trained}.\n\n{table}\n\nIn brackets: the mean of the trainings with new seeds, which "
        f"the best three have. Of these, {winner}. The source's winner: batch 200, learning rate 0.1."
    )


def _grid_cell(line: Line | None) -> str:
    if line is None:
        return "not trained"
    if line["validation_accuracy"] is None:
        return f"failed ({line['failure']['kind']})" if line["failure"] else "not trained"
    again = [value for value in line["again"] if value is not None]
    return f"{line['validation_accuracy']:.4f}" + (f" ({statistics.mean(again):.4f})" if again else "")


# ---- The whole -------------------------------------------------------------------------------------------


def write_report(results_path: Path, grid_path: Path, folder: Path) -> None:
    """Writes `LADDER.md` and its plot.

    Args:
        results_path: the file of the arms' results.
        grid_path: that of the grid's.
        folder: where to.
    """
    results = read_results(results_path)
    folder.mkdir(parents=True, exist_ok=True)
    plot(results, folder / PLOT)
    (folder / REPORT).write_text(report(results, grid_path))


def report(results: Results, grid_path: Path) -> str:
    """`LADDER.md` as text."""
    parts = [
        "# The published models, measured",
        "Written by `python -m benchmarks.ladder` from `results/ladder.jsonl`, not by hand. "
        f"Source: {SOURCE}. "
        f"{OPEN_VALUES} Epochs and recipes were fixed before. Each training is on all 50,000 images, and is "
        "tested once, after its last epoch: no best of epochs. Means over seeds ± standard deviation, [95 % "
        f"interval]. {machines(results)}",
        f"![Accuracy against parameters: theirs and ours]({PLOT})",
        "## The models",
        "Reproduced: the mean with the recipe of the source is at least the published accuracy minus "
        f"{MARGIN}. Behind it, how far the recipe `mc1opt` is ahead of the published accuracy, with the same "
        "network.",
        rows_section(results),
        not_measured_section(results),
        "## The claims",
        "Both arms with the recipe of the source; differences are paired by seed.",
        claims_section(results),
        "### Batch norm's three expectations",
        norm_section(results),
        "### The source's own search",
        grid_section(grid_path),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def machines(results: Results) -> str:
    """What was measured on, in words."""
    found = {
        f"{line['device']} ({line['precision']}, {line['machine']['cpu_model']}, "
        f"{line['machine']['cores']} cores, torch {line['machine']['versions']['torch']})"
        for lines in results.values()
        for line in lines
    }
    return f"Measured on {'; '.join(sorted(found))}." if found else "Nothing is measured yet."


def not_measured_section(results: Results) -> str:
    """The commands that measure what is missing; empty if nothing is."""
    missing: dict[str, list[Arm]] = defaultdict(list)
    for arm in arms():
        if len(results.get((arm.name, arm.recipe), ())) < arm.seeds:
            missing[arm.name].append(arm)
    lines = [f"- `{_command(found)}`: {_what_is_there(found, results)}" for found in missing.values()]
    return "Not, or not wholly, measured:\n\n" + "\n".join(lines) if lines else ""


def _command(found: Sequence[Arm]) -> str:
    recipe = f" --recipe {found[0].recipe}" if len(found) == 1 and found[0].name in PRESETS else ""
    device = " --device cuda" if found[0].deep else ""
    return f"python -m benchmarks.ladder --only {found[0].name}{recipe}{device}"


def _what_is_there(found: Sequence[Arm], results: Results) -> str:
    return ", ".join(
        f"{arm.recipe} {len(results.get((arm.name, arm.recipe), ()))} of {arm.seeds} seeds" for arm in found
    )


def plot(results: Results, path: Path) -> None:
    """Accuracy against parameters, theirs and ours, as SVG: the same results give the same file."""
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    axes = figure.subplots()
    rows = list(PRESETS.values())
    axes.scatter(
        [p.parameters for p in rows],
        [p.published_accuracy for p in rows],
        label="published",
        facecolors="none",
        edgecolors="#444444",
    )
    for preset in rows:
        axes.annotate(
            str(preset.row),
            (preset.parameters, preset.published_accuracy),
            textcoords="offset points",
            xytext=(6, -4),
        )
    for recipe, marker, colour in (("published", "o", "#0072b2"), ("mc1opt", "s", "#d55e00")):
        found = [(p.parameters, accuracy_spread(results, (p.name, recipe))) for p in rows]
        there = [(parameters, numbers) for parameters, numbers in found if numbers is not None]
        axes.errorbar(
            [parameters for parameters, _ in there],
            [numbers.mean for _, numbers in there],
            yerr=[numbers.std or 0.0 for _, numbers in there],
            label=f"ours, recipe {recipe}",
            fmt=marker,
            color=colour,
            capsize=3,
        )
    axes.set(xscale="log", xlabel="parameters", ylabel="test accuracy")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    with matplotlib.rc_context({"svg.hashsalt": "ladder"}):
        figure.savefig(path, metadata={"Date": None})
