"""The presets as text and JSON: the list, the table of layers, what was measured."""

import re

import pytest

from mc1opt.config import config_from_json
from mc1opt.measurement.store import Failure
from mc1opt.models.cost import cost
from mc1opt.presets import PRESETS, get_preset
from mc1opt.published.plan import Entry, preset_entry
from mc1opt.published.report import (
    folds_line,
    layer_lines,
    layer_rows,
    list_lines,
    preset_json,
    result_lines,
    show_lines,
)
from mc1opt.published.results import Measurement, SeedResult, measurement
from mc1opt.spec import Fold
from tests.published.test_results import stored, three_seeds
from tests.support.measuring import ROW_1

DEEP_TABLE = [
    ("Conv2d-1", (64, 30, 30), 4_864),
    ("Dropout-2", (64, 15, 15), 0),
    ("Conv2d-3", (128, 13, 13), 204_928),
    ("Conv2d-4", (256, 10, 10), 819_456),
    ("Conv2d-5", (256, 8, 8), 1_638_656),
    ("Linear-6", (4096,), 51_384_320),
    ("Dropout-7", (4096,), 0),
    ("Linear-8", (10,), 40_970),
]
"""As the source prints it."""


def found(*results: SeedResult, others: tuple = ()) -> Measurement:
    result = measurement(results, others)
    assert result is not None
    return result


def entry(name: str = ROW_1) -> Entry:
    return preset_entry(PRESETS[name], "published", seeds=3)


# ---- Layers ----------------------------------------------------------------------------------------------


def test_the_table_of_row_8_is_the_published_one_with_its_numbers() -> None:
    rows = layer_rows(get_preset("cnn-deep"))
    assert [row for row in rows if row[2] is not None] == DEEP_TABLE
    poolings = [(name.strip(), output) for name, output, parameters in rows if parameters is None]
    assert poolings == [
        ("max pooling 2x2, stride 2", (64, 15, 15)),
        ("max pooling 2x2, stride 1", (128, 12, 12)),
        ("max pooling 2x2, stride 1", (256, 7, 7)),
    ]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_every_table_adds_up_to_the_parameters(preset) -> None:
    rows = layer_rows(preset)
    assert sum(parameters or 0 for _, _, parameters in rows) == preset.parameters
    lines = layer_lines(preset)
    assert len(lines) == len(rows) + 2
    assert lines[-1].split() == ["all", f"{preset.parameters:,}"]


def test_a_line_of_the_table_has_layer_output_and_parameters() -> None:
    lines = layer_lines(get_preset("cnn-deep"))
    assert "Conv2d-3                     128, 13, 13       204,928" in lines
    assert "Linear-6                     4096           51,384,320" in lines


def test_show_says_what_is_open_the_recipes_and_what_was_measured() -> None:
    preset = get_preset("cnn-deep-adam")
    text = "\n".join(show_lines(preset, {"mc1opt": found(*three_seeds())}))
    assert text.startswith("cnn-deep-adam: published model 11, test accuracy 0.7366 there")
    assert "our choice" in text
    assert re.search(rf"published +{preset.epochs['published']} epochs, adam", text)
    assert re.search(rf"mc1opt +{preset.epochs['mc1opt']} epochs, adamw", text)
    assert "277.1 million multiply-accumulates" in text
    assert "Measured with recipe mc1opt, 2 epochs: 0.5200, standard deviation 0.0200" in text
    assert "Source: slides of MC1" in text
    others = "\n".join(show_lines(preset, {"mc1opt": found(*on_other_images())}))
    assert "Measured with recipe mc1opt, 2 epochs on other images than CIFAR-10: 0.5000" in others


def on_other_images() -> list[SeedResult]:
    return [SeedResult(stored(data="0" * 64), 0.5)]


# ---- The list --------------------------------------------------------------------------------------------


def test_the_list_has_a_line_for_each_row_with_what_was_measured() -> None:
    lines = list_lines({ROW_1: {"published": found(*three_seeds())}})
    rows = [line for line in lines if re.match(r" *\d+  ", line)]
    assert [int(line.split()[0]) for line in rows] == list(range(1, 12))
    assert rows[0].split() == [
        "1",
        ROW_1,
        "402,250",
        "0.4",
        "0.5214",
        "0.5200",
        "±",
        "0.0200",
        "(3,",
        "2",
        "epochs)",
        "-",
    ]
    (first,) = [
        line for line in list_lines({ROW_1: {"published": found(*on_other_images())}}) if ROW_1 in line
    ]
    assert first.rstrip("- ").endswith("0.5000 (1, 2 epochs, own images)")
    assert rows[7].split() == ["8", "cnn-deep", "54,093,194", "277.1", "0.7621", "-", "-"]


@pytest.mark.parametrize(("epochs", "shown"), [(15, "(1)"), (14, "(1, 14 epochs)"), (1, "(1, 1 epoch)")])
def test_the_list_says_epochs_that_are_not_the_recipes(epochs: int, shown: str) -> None:
    assert PRESETS[ROW_1].epochs["published"] == 15
    measured = found(SeedResult(stored(epochs=epochs), 0.5))
    (line,) = [line for line in list_lines({ROW_1: {"published": measured}}) if ROW_1 in line]
    assert f" 0.5000 {shown}  " in line


def test_json_has_the_configs_of_both_recipes() -> None:
    preset = get_preset("cnn-deep-adam")
    configs = preset_json(preset, {})["configs"]
    assert [config_from_json(configs[recipe]) for recipe in ("published", "mc1opt")] == [
        preset.with_recipe("published"),
        preset.with_recipe("mc1opt"),
    ]


def test_json_has_what_programs_need() -> None:
    preset = get_preset("cnn-deep")
    result = found(*three_seeds())
    printed = preset_json(preset, {"published": result})
    assert {key: printed[key] for key in ("name", "row", "parameters", "macs", "published_accuracy")} == {
        "name": "cnn-deep",
        "row": 8,
        "parameters": 54_093_194,
        "macs": cost(preset.config.architecture).macs,
        "published_accuracy": 0.7621,
    }
    assert printed["results"] == {"published": result.to_json()}
    shown = [row for row in printed["layers"] if row["kind"] in ("Conv2d", "Linear", "Dropout")]
    assert [(row["kind"], tuple(row["output"]), row["parameters"]) for row in shown] == [
        (name.split("-")[0], output, parameters) for name, output, parameters in DEEP_TABLE
    ]
    assert sum(row["macs"] for row in printed["layers"]) == printed["macs"]


# ---- After a run -----------------------------------------------------------------------------------------


def test_the_published_accuracy_stands_beside_ours() -> None:
    lines = result_lines([(entry(), found(*three_seeds())), (entry("cnn-deep"), None)])
    row = lines[2].split()
    epochs = str(PRESETS[ROW_1].epochs["published"])
    assert row[:7] == ["1", ROW_1, "published", epochs, "0.5214", "0.5200", "0.0200"]
    assert "0.4703 to 0.5697" in lines[2]
    assert "-0.0014" in lines[2]
    assert lines[3].endswith("not trained yet")
    (row,) = [line for line in result_lines([(entry(), found(*on_other_images()))]) if ROW_1 in line]
    assert re.search(r" 1         -     402,250 ", row)  # of other images nothing was published


def test_one_seed_and_failures_are_said() -> None:
    failed = stored(5, failure=Failure(kind="diverged", message="nan"))
    lines = result_lines(
        [(entry(), found(three_seeds()[0], others=(failed,))), (entry(), found(others=(failed,)))]
    )
    assert lines[2].endswith("1 failed (diverged)")
    assert "  -  " in lines[2]
    assert lines[3].endswith("1 failed (diverged)")


def test_failed_folds_and_split_batches_are_said() -> None:
    fold = stored(fold=Fold(index=1, count=10), failure=Failure(kind="diverged", message="nan"))
    first = three_seeds()[0]
    split = SeedResult(first.stored.model_copy(update={"accumulation": 4}), first.accuracy)
    lines = result_lines([(entry(), found(split, others=(fold,)))])
    assert lines[2].endswith("1 failed in folds (diverged), 1 with split batches")


def test_the_spread_over_folds_is_told_apart_from_seeds_and_chance() -> None:
    folds = tuple(stored(fold=Fold(index=i, count=10), value=v) for i, v in enumerate((0.4, 0.5, 0.6)))
    result = found(*three_seeds(), others=folds)
    assert folds_line(ROW_1, result) == (
        f"{ROW_1}, 3 of 10 stratified folds with one seed: mean validation accuracy 0.5000, standard "
        "deviation 0.1000 (the choice of validation images alone makes 0.0500); over seeds, on the same "
        "images, it is 0.0200."
    )
    assert folds_line(ROW_1, result) in result_lines([(entry(), result)])
