"""The presets as text and JSON: the list, the table of layers, what was measured."""

import re
from typing import Any

import pytest

from mc1opt.config import config_from_json
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.models.cost import cost
from mc1opt.presets import OPEN_VALUES, PRESETS, SOURCE, get_preset
from mc1opt.published.measure import Entry, preset_entry
from mc1opt.published.report import (
    folds_line,
    layer_lines,
    layer_rows,
    list_lines,
    preset_json,
    result_lines,
    show_lines,
)
from tests.published.test_results import FAILED, FAILED_FOLD, found, stored, ten_folds, three_seeds
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


def test_show_has_the_recipes_and_what_was_measured() -> None:
    preset = get_preset("cnn-deep-adam")
    text = "\n".join(show_lines(preset, {"mc1opt": found(*three_seeds())}))
    for part in ("0.7366", "277.1 million", "2 epochs: 0.5200", OPEN_VALUES, SOURCE):
        assert part in text, part
    assert re.search(rf"published +{preset.epochs['published']} epochs, adam", text)
    assert re.search(rf"mc1opt +{preset.epochs['mc1opt']} epochs, adamw", text)
    others = "\n".join(show_lines(preset, {"mc1opt": found(OTHER_IMAGES)}))
    assert re.search("other images.*: 0.5000", others)


OTHER_IMAGES = (stored(data="0" * 64), 0.5)


# ---- The list --------------------------------------------------------------------------------------------


def test_the_list_has_a_line_for_each_row_with_what_was_measured() -> None:
    lines = list_lines({ROW_1: {"published": found(*three_seeds())}})
    rows = [line for line in lines if re.match(r" *\d+  ", line)]
    assert [int(line.split()[0]) for line in rows] == list(range(1, 12))
    assert rows[0].split()[:-1] == f"1 {ROW_1} 402,250 0.4 0.5214 0.5200 ± 0.0200 (3, 2 epochs)".split()
    assert rows[7].split() == ["8", "cnn-deep", "54,093,194", "277.1", "0.7621", "-", "-"]


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"epochs": 15}, "(1)"),
        ({"epochs": 14}, "(1, 14 epochs)"),
        ({"epochs": 1}, "(1, 1 epoch)"),
        ({"epochs": 2, "data": "0" * 64}, "(1, 2 epochs, own images)"),
    ],
    ids=str,
)
def test_the_list_has_epochs_and_images_that_are_not_the_recipes(changes: dict[str, Any], shown: str) -> None:
    assert PRESETS[ROW_1].epochs["published"] == 15
    (line,) = [
        line for line in list_lines({ROW_1: {"published": found((stored(**changes), 0.5))}}) if ROW_1 in line
    ]
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
        "macs": cost(preset.config.architecture, CIFAR10_SHAPE).macs,
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
    (row,) = [line for line in result_lines([(entry(), found(OTHER_IMAGES))]) if ROW_1 in line]
    assert re.search(r" 1         -     402,250 ", row)  # of other images nothing was published


def test_failures_and_split_batches_stand_behind_the_numbers() -> None:
    split = three_seeds(accumulation=4)[0]
    for results, remarks in (
        ((split, FAILED_FOLD), "1 failed in folds (diverged), 1 with split batches"),
        ((three_seeds()[0], FAILED), "1 failed (diverged)"),
        ((FAILED,), "1 failed (diverged)"),
    ):
        assert result_lines([(entry(), found(*results))])[2].endswith(f"  {remarks}")


def test_the_spread_over_folds_is_told_apart_from_seeds_and_chance() -> None:
    result = found(*three_seeds(), *ten_folds(0.4, 0.5, 0.6))
    line = folds_line(ROW_1, result)
    assert re.findall(r"\d+ of \d+|\d\.\d{4}", line) == ["3 of 10", "0.5000", "0.1000", "0.0500", "0.0200"]
    assert line in result_lines([(entry(), result)])
