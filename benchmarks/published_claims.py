"""What the source claims of its models, and what the arms say to it.

Not here: what it expected of batch norm (`published_norm.py`).
"""

import statistics
from dataclasses import dataclass
from typing import Literal

from benchmarks.common import markdown_table
from benchmarks.published_arms import BASE, DEEP, SHORT, UNPOOLED, arms
from benchmarks.published_lines import Results, accuracies, arithmetic
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.models.cost import cost
from mc1opt.uncertainty import Spread, spread

NO_GAIN = 0.01
"""A gain that still counts as none: where more than it is possible, "does not help" is not shown."""
KEPT = 0.02
"""A loss of accuracy that still counts as keeping it: the source's own is 0.009."""

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
    ours: str = ""
    """What the comparison rests on that the source does not say: our choice."""


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
        (Comparison(UNPOOLED, BASE, "higher"), Comparison(UNPOOLED, SHORT, "higher")),
        "the epochs; in the second line they are the same.",
    ),
    Claim(
        "Dropout after the first convolution adds",
        "0.6972 to 0.7142.",
        (Comparison("cnn-32-128-pool", "cnn-32-128-pool-dropout", "higher"),),
        "the dropout rate, 0.2.",
    ),
    Claim(
        "Deeper adds",
        "0.7142 to 0.7621.",
        (Comparison("cnn-32-128-pool-dropout", DEEP, "higher"),),
        "the dropout rates, 0.2 and 0.5.",
    ),
    Claim(
        "A smaller kernel doesn't help",
        "In words only.",
        (Comparison(BASE, f"{BASE}-kernel-3", "not higher"),),
        "kernel size 3 in place of 5, without padding, so that the classifier sees more values.",
    ),
    Claim(
        "Stride, padding and kernel size, adjusted together, add a little",
        "0.7621 to 0.7653.",
        (Comparison(DEEP, "cnn-deep-adjusted", "higher"),),
        "all three values: kernel size 3, padding 2, and stride 2 of every pooling.",
    ),
    Claim(
        "Adam is not better than SGD",
        "0.7621 with SGD, 0.7366 with Adam.",
        (Comparison(BASE, f"{BASE}-adam", "not higher"), Comparison(DEEP, "cnn-deep-adam", "not higher")),
        "the learning rate of Adam, 0.001, which was not tuned.",
    ),
)


def claims_section(results: Results) -> str:
    """Each claim with a table of its comparisons."""
    parts = []
    for claim in CLAIMS:
        rows = [_comparison_row(comparison, results) for comparison in claim.comparisons]
        header = ["from -> to", "parameters", "epochs", "ours", "difference [95 %]", "n", "verdict"]
        said = f"The source: {claim.said}" + (f" Our choice: {claim.ours}" if claim.ours else "")
        parts.append(f"### {claim.title}\n\n{said}\n\n{markdown_table(header, rows)}")
    return "\n\n".join(parts)


def _comparison_row(comparison: Comparison, results: Results) -> list[str]:
    measured = {arm.name: arm for arm in arms() if arm.recipe == "published"}
    parameters = {
        name: cost(arm.config.architecture, CIFAR10_SHAPE).parameters for name, arm in measured.items()
    }
    names = (comparison.before, comparison.after)
    by_seed = [accuracies(results, (name, "published")) for name in names]
    common = by_seed[0].keys() & by_seed[1].keys()  # so that means and difference fit together
    shown = " -> ".join(
        f"{statistics.mean(values[seed] for seed in (common or values)):.4f}" if values else "not measured"
        for values in by_seed
    )
    paired = difference(comparison, results)
    said = verdict(comparison.expected, paired)
    trained = {arithmetic(results.get((name, "published"), ())) for name in names} - {""}
    if len(trained) > 1:
        said += f" ({' against '.join(sorted(trained))})"
    return [
        f"`{comparison.before}` -> `{comparison.after}`",
        " -> ".join(f"{parameters[name]:,}" for name in names),
        " -> ".join(str(measured[name].epochs) for name in names),
        shown,
        "" if paired is None else _difference_cell(paired),
        "" if paired is None else str(paired.n),
        said,
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
    agrees, disagrees, said = {
        "higher": (low > 0.0, high < 0.0, "it costs accuracy"),
        "kept": (low > -KEPT, high < -KEPT, f"it costs more than {KEPT}"),
        "not higher": (high < NO_GAIN, low > 0.0, "it helps"),
    }[expected]
    if disagrees:  # a gain that is there, however small, helps
        return f"disagrees: {said}"
    if not agrees:
        return "not told apart"
    return f"agrees: no gain above {NO_GAIN}" if expected == "not higher" else "agrees"


def _difference_cell(numbers: Spread) -> str:
    if numbers.interval is None:
        return f"{numbers.mean:+.4f}"
    low, high = numbers.interval
    return f"{numbers.mean:+.4f} [{low:+.4f}, {high:+.4f}]"
