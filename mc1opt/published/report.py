"""The presets as text and JSON: their list, the layers of one, and results."""

from collections.abc import Mapping, Sequence
from typing import Any

from mc1opt.config import ConvNet, config_to_json
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.describe import describe_config
from mc1opt.models.cost import cost, layers
from mc1opt.models.layers import Layer
from mc1opt.presets import OPEN_VALUES, PRESETS, RECIPES, SOURCE, Preset, Recipe
from mc1opt.program import program
from mc1opt.published.measure import Entry
from mc1opt.published.results import Measurement
from mc1opt.text import duration, plural

NUMBERED = ("Conv2d", "Linear", "Dropout", "BatchNorm1d", "BatchNorm2d")
"""Kinds of layers that the source numbers in its tables; poolings have no number there."""

Results = Mapping[str, Measurement]
"""By recipe."""


# ---- JSON ------------------------------------------------------------------------------------------------


def preset_json(preset: Preset, results: Results) -> dict[str, Any]:
    """A preset as `presets --json` lists it."""
    return {
        "name": preset.name,
        "row": preset.row,
        "parameters": preset.parameters,
        "macs": cost(preset.config.architecture, CIFAR10_SHAPE).macs,
        "published_accuracy": preset.published_accuracy,
        "source": SOURCE,
        "description": preset.description,
        "epochs": dict(preset.epochs),
        "configs": {recipe: config_to_json(preset.with_recipe(recipe)) for recipe in RECIPES},
        "layers": [_layer_json(layer) for layer in layers(preset.config.architecture, CIFAR10_SHAPE)],
        "results": {recipe: results[recipe].to_json() for recipe in RECIPES if recipe in results},
    }


def _layer_json(layer: Layer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "output": list(layer.output),
        "parameters": layer.parameters,
        "macs": layer.macs,
    }


# ---- The list --------------------------------------------------------------------------------------------


def list_lines(results: Mapping[str, Results]) -> list[str]:
    """All presets, a line each: size, published accuracy, and our stored results by recipe."""
    width = max(len(name) for name in PRESETS)
    shown = {
        name: [_short(preset, recipe, results.get(name, {}).get(recipe)) for recipe in RECIPES]
        for name, preset in PRESETS.items()
    }
    headers = [f"recipe {recipe}" for recipe in RECIPES]
    widths = [max(map(len, column)) for column in zip(headers, *shown.values(), strict=True)]

    def ours(texts: Sequence[str]) -> str:
        return "".join(f"  {text:<{size}}" for text, size in zip(texts, widths, strict=True))

    lines = [f"row  {'preset':<{width}}  parameters  million MACs  published{ours(headers)}".rstrip()]
    for name, preset in PRESETS.items():
        macs = cost(preset.config.architecture, CIFAR10_SHAPE).macs / 1e6
        lines.append(
            f"{preset.row:>3}  {name:<{width}}  {preset.parameters:>10,}  {macs:>12.1f}  "
            f"{preset.published_accuracy:>9.4f}{ours(shown[name])}".rstrip()
        )
    return [
        *lines,
        "",
        f"Published: {SOURCE}.",
        "Ours: mean test accuracy ± standard deviation (seeds; epochs, where they are not the recipe's).",
        f"Look at one:   {program()} presets show NAME",
        f"Measure them:  {program()} presets run NAME...",
    ]


def _short(preset: Preset, recipe: Recipe, entry: Measurement | None) -> str:
    if entry is None or (numbers := entry.spread) is None:
        return "-"
    std = "" if numbers.std is None else f" ± {numbers.std:.4f}"
    notes = [str(numbers.n)]
    if entry.epochs != preset.epochs[recipe]:
        notes.append(plural(entry.epochs, "epoch"))
    if not entry.is_cifar10:
        notes.append("own images")
    return f"{numbers.mean:.4f}{std} ({', '.join(notes)})"


# ---- One preset ------------------------------------------------------------------------------------------


def show_lines(preset: Preset, results: Results) -> list[str]:
    """A preset in full: description, layers as the source prints them, recipes, stored results."""
    macs = cost(preset.config.architecture, CIFAR10_SHAPE).macs
    lines = [
        f"{preset.name}: published model {preset.row}, test accuracy {preset.published_accuracy:.4f} there",
        "",
        *preset.description.split("\n"),
        "",
        *layer_lines(preset),
        "",
        f"{macs / 1e6:.1f} million multiply-accumulates an image.",
        "",
        "Recipes:",
    ]
    for recipe in RECIPES:
        summary = describe_config(preset.with_recipe(recipe)).split(" | ")[-1]
        lines.append(f"  {recipe:<10} {preset.epochs[recipe]} epochs, {summary}")
    lines += ["", f"Source: {SOURCE}.", OPEN_VALUES]
    for name, entry in results.items():
        if entry.spread is not None:
            images = "" if entry.is_cifar10 else " on other images than CIFAR-10"
            lines += [
                "",
                f"Measured with recipe {name}, {entry.epochs} epochs{images}: {entry.spread.line()}",
            ]
    return lines


def layer_lines(preset: Preset) -> list[str]:
    """The table of layers as the source prints it, with the poolings between them."""
    rows = layer_rows(preset)
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{'layer':<{width}}  {'output':<13}  parameters"]
    for name, output, parameters in rows:
        shown = "" if parameters is None else f"{parameters:,}"
        lines.append(f"{name:<{width}}  {', '.join(map(str, output)):<13}  {shown:>10}".rstrip())
    return [*lines, f"{'all':<{width}}  {'':<13}  {preset.parameters:>10,}"]


def layer_rows(preset: Preset) -> list[tuple[str, tuple[int, ...], int | None]]:
    """Layer with its number in the source, output shape without N, parameters; None for poolings."""
    architecture = preset.config.architecture
    rows: list[tuple[str, tuple[int, ...], int | None]] = []
    number = 0
    for layer in layers(architecture, CIFAR10_SHAPE):
        if layer.kind in NUMBERED:
            number += 1
            rows.append((f"{layer.kind}-{number}", layer.output, layer.parameters))
        else:
            assert isinstance(architecture, ConvNet)
            rows.append((_pooling(architecture, layer), layer.output, None))
    return rows


def _pooling(network: ConvNet, layer: Layer) -> str:
    pooling = network.blocks[int(layer.name.split(".")[1])].pooling
    assert pooling is not None
    return f"  {pooling.kind} pooling {pooling.size}x{pooling.size}, stride {pooling.stride}"


# ---- After a run -----------------------------------------------------------------------------------------


def result_lines(results: Sequence[tuple[Entry, Measurement | None]]) -> list[str]:
    """The table at the end of `presets run`: the published accuracy beside ours."""
    width = max(len(entry.name) for entry, _ in results)
    lines = [
        f"row  {'preset':<{width}}  recipe     epochs  published    mean     std  95 % interval      n"
        "  ahead by  parameters  a training"
    ]
    folds: list[str] = []
    for entry, measured in results:
        preset = PRESETS[entry.name]
        begin = f"{preset.row:>3}  {entry.name:<{width}}  {entry.recipe:<9}  {entry.epochs:>6}  "
        begin += f"{preset.published_accuracy:>9.4f}"
        if measured is None or (numbers := measured.spread) is None:
            lines.append(f"{begin}  {_remarks(measured) or 'not trained yet'}")
            continue
        mean, std, interval = numbers.cells()
        # Set beside what was published only where it is of the same images.
        ahead = f"{numbers.mean - preset.published_accuracy:+.4f}" if measured.is_cifar10 else "-"
        took = duration(measured.seconds or 0.0)
        line = (
            f"{begin}  {mean:>6}  {std:>6}  {interval:<16}  {numbers.n:>3}  {ahead:>8}  "
            f"{preset.parameters:>10,}  {took:>10}  {_remarks(measured)}"
        )
        lines.append(line.rstrip())
        if measured.folds:
            folds.append(folds_line(entry.name, measured))
    return ["", *lines, *(["", *folds] if folds else [])]


def folds_line(name: str, measured: Measurement) -> str:
    """The spread over folds, beside those over seeds and by the choice of images alone."""
    numbers, by_chance = measured.fold_spread, measured.std_by_chance
    assert numbers is not None
    count = f"{numbers.n}" if numbers.n == measured.fold_count else f"{numbers.n} of {measured.fold_count}"
    text = f"{name}, {count} stratified folds with one seed: mean validation accuracy {numbers.mean:.4f}"
    if numbers.std is not None:
        text += (
            f", standard deviation {numbers.std:.4f} (the choice of validation images alone gives "
            f"{by_chance:.4f})"
        )
    over_seeds = None if measured.spread is None else measured.spread.std
    if over_seeds is not None:
        text += f"; over seeds, on the same images, it is {over_seeds:.4f}"
    return text + "."


def _remarks(measured: Measurement | None) -> str:
    """What must be known besides the numbers: what failed, and whose batches were split."""
    if measured is None:
        return ""
    remarks = []
    for folds, of in ((False, ""), (True, " in folds")):
        if failures := measured.failed(folds=folds):
            assert failures[0].failure is not None
            remarks.append(f"{len(failures)} failed{of} ({failures[0].failure.kind})")
    if measured.split:
        remarks.append(f"{measured.split} with split batches")
    return ", ".join(remarks)
