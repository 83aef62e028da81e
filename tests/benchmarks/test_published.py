"""The published models measured: arms, what is missing, a run on small images into the file of results."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.published import chosen_arms, missing_entries, parse_options, take_grid
from benchmarks.published_arms import BASE, DEEP, SHORT, Arm, arms
from mc1opt.config import Config, ConvBlock, ConvNet, config_id
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.errors import StorageError, UsageError
from mc1opt.files import append_line
from mc1opt.models.cost import cost
from mc1opt.presets import PRESETS
from tests.studies.test_published_grid import DEFINITION
from tests.support.command import benchmark
from tests.support.image_sets import write_binary_folder
from tests.support.studies import run_study

RESULTS = Path("published.jsonl")


def arm(name: str, recipe: str = "published") -> Arm:
    (found,) = [each for each in arms() if (each.name, each.recipe) == (name, recipe)]
    return found


# ---- Arms ------------------------------------------------------------------------------------------------


def test_every_row_is_measured_with_both_recipes_at_its_default_epochs() -> None:
    for preset in PRESETS.values():
        for recipe, epochs in preset.epochs.items():
            found = arm(preset.name, recipe)
            assert (found.config, found.epochs) == (preset.with_recipe(recipe), epochs)
            assert found.deep == (preset.row >= 8)
            assert found.seeds == (5 if preset.row in (1, 2, 3, 6, 7) else 3)


def test_an_arm_differs_from_row_6_in_one_thing() -> None:
    base = arm(BASE).config
    assert isinstance(base.architecture, ConvNet)
    adam = arm(f"{BASE}-adam").config
    assert adam.optimizer.kind == "adam"
    assert adam.model_copy(update={"optimizer": base.optimizer}) == base
    assert arm(f"{BASE}-batch-50").config.model_copy(update={"batch_size": 200}) == base
    small = arm(f"{BASE}-kernel-3").config
    assert [block.kernel_size for block in blocks_of(small)] == [3, 3]
    assert with_blocks(small, kernel_size=5) == base
    norm = arm(f"{BASE}-batchnorm").config
    assert [block.norm for block in blocks_of(norm)] == ["batch", "batch"]
    assert with_blocks(norm, order=base.architecture.order, norm="none") == base
    both = arm(f"{BASE}-batchnorm-batch-50").config
    assert both == norm.model_copy(update={"batch_size": 50})


def blocks_of(config: Config) -> tuple[ConvBlock, ...]:
    assert isinstance(config.architecture, ConvNet)
    return config.architecture.blocks


def with_blocks(config: Config, *, order: str | None = None, **changes: Any) -> Config:
    """The config with other blocks, and another order in them if one is given."""
    blocks = tuple(block.model_copy(update=changes) for block in blocks_of(config))
    update = {"blocks": blocks} | ({} if order is None else {"order": order})
    return config.model_copy(update={"architecture": config.architecture.model_copy(update=update)})


def test_other_arms_differ_from_a_row_in_batch_size_or_epochs_and_no_two_are_equal() -> None:
    for name in (DEEP, "cnn-deep-batchnorm"):
        changed = arm(f"{name}-batch-50").config
        assert changed == PRESETS[name].config.model_copy(update={"batch_size": 50})
    assert arm(SHORT).config == arm(BASE).config
    assert arm(SHORT).epochs == arm("cnn-32-128").epochs < arm(BASE).epochs
    assert len({(each.name, each.recipe) for each in arms()}) == len(arms())
    assert len({(config_id(each.config), each.epochs) for each in arms()}) == len(arms())


# ---- What is missing -------------------------------------------------------------------------------------


def test_the_deep_ones_are_left_out_unless_asked_for_and_the_cheap_ones_come_first() -> None:
    plain = chosen_arms(parse_options([]))
    assert not any(each.deep for each in plain)
    assert [each.price for each in plain] == sorted(each.price for each in plain)
    assert len(chosen_arms(parse_options(["--deep"]))) == len(arms())
    (row_8,) = chosen_arms(parse_options(["--only", "cnn-deep", "--recipe", "mc1opt"]))
    assert row_8 == arm("cnn-deep", "mc1opt")


def test_what_is_in_the_file_of_results_is_not_trained_again() -> None:
    row_1 = arm("mlp-128-64")
    for seed, epochs in ((0, row_1.epochs), (2, row_1.epochs), (3, row_1.epochs + 1)):
        line = {"config_id": config_id(row_1.config), "epochs": epochs, "seed": seed}
        line |= {"data": "cifar10", "device": "cpu", "precision": "float32"}
        append_line(RESULTS, line)
        append_line(RESULTS, line | {"data": "own-123", "seed": 1})
        append_line(RESULTS, line | {"precision": "bfloat16", "seed": 1})
    (entry,) = missing_entries([row_1], None, RESULTS, "cifar10", "cpu", "float32")
    assert (entry.config, entry.epochs, entry.seeds) == (row_1.config, row_1.epochs, (1, 3, 4))
    assert list(missing_entries([row_1], 1, RESULTS, "cifar10", "cpu", "float32")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds 0 .* 1"),
        (["--seeds", "9" * 15], "--seeds .* 1000"),
        (["--only", f"{BASE}-adam", "--recipe", "mc1opt"], f"{BASE}-adam .* mc1opt"),
        (["--only", "nope"], "nope.* mlp-128-64, .*batchnorm-batch-50"),
    ],
)
def test_what_measures_nothing_is_an_error(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        chosen_arms(parse_options(arguments))


# ---- A run -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_adds_a_line_a_seed_goes_on_from_the_file_and_writes_the_report(tmp_path: Path) -> None:
    write_binary_folder(tmp_path / "images")
    results = tmp_path / "published.jsonl"

    def measure(seeds: str, storage: str) -> list[dict[str, Any]]:
        ended = benchmark(
            "published",
            *("--only", "mlp-128-64", "--recipe", "published", "--seeds", seeds, "--workers", "1"),
            *("--data", str(tmp_path / "images"), "--storage", str(tmp_path / storage)),
            *("--results", str(results), "--grid-results", str(tmp_path / "grid.jsonl")),
            *("--output", str(tmp_path / "report"), "--device", "cpu"),
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        return [json.loads(line) for line in results.read_text().splitlines()]

    first = measure("1", "a/s.db")
    both = measure("2", "b/s.db")  # what is in the file need not be stored
    assert both[:1] == first
    assert [line["seed"] for line in both] == [0, 1]
    preset = PRESETS["mlp-128-64"]
    for line in both:
        assert (line["arm"], line["recipe"], line["epochs"]) == (
            preset.name,
            "published",
            preset.epochs["published"],
        )
        assert len(line["losses"]) == len(line["epoch_seconds"]) == line["epochs"]
        assert line["parameters"] == cost(preset.config.architecture, CIFAR10_SHAPE).parameters
        assert 0.0 <= line["test_accuracy"] <= 1.0
        assert str(tmp_path) not in json.dumps(line)
    assert "| 1 `mlp-128-64` |" in (tmp_path / "report/PUBLISHED.md").read_text()
    assert (tmp_path / "report/PUBLISHED.svg").stat().st_size > 1000


# ---- The grid --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_finished_grid_is_taken_over_and_an_unfinished_one_refused() -> None:
    fields: dict[str, Any] = {"sampler": "grid", "pruner": "none", "study": "published_grid"}
    run_study(5, DEFINITION, **fields)
    with pytest.raises(UsageError, match=r"published_grid in s\.db"):
        take_grid("s.db", RESULTS)
    run_study(12, DEFINITION, confirm=1, **fields)
    take_grid("s.db", RESULTS)
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    assert len({(line["batch_size"], line["learning_rate"]) for line in lines}) == 12
    assert all(line["validation_accuracy"] is not None for line in lines)
    assert sorted(len(line["again"]) for line in lines) == [0] * 11 + [2]
    take_grid("s.db", RESULTS)
    assert len(RESULTS.read_text().splitlines()) == 12
    with pytest.raises(StorageError):
        take_grid("other.db", RESULTS)
