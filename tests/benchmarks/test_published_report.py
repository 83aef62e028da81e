"""`PUBLISHED.md`: from results alone, with what is not measured said so."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.common import RESULTS
from benchmarks.published_arms import BASE, arms
from benchmarks.published_claims import CLAIMS, Comparison, claims_section, difference, verdict
from benchmarks.published_grid import grid_section
from benchmarks.published_lines import (
    GRID_RESULTS,
    SECONDS_RESULTS,
    Results,
    read_results,
    read_seconds,
    replaced_lines,
)
from benchmarks.published_norm import NORM_ARMS, epochs_to_loss, norm_section, norm_verdicts, seconds_to_loss
from benchmarks.published_report import (
    REPORT,
    not_measured_section,
    plot,
    replaced_section,
    report,
    rows_section,
)
from mc1opt.config import config_id
from mc1opt.files import append_line
from mc1opt.presets import PRESETS
from mc1opt.uncertainty import Spread, spread

PATH = Path("published.jsonl")
SECONDS = {(BASE, "cpu"): 11.0, (f"{BASE}-batchnorm", "cpu"): 40.0}
"""Of an epoch, timed in turn."""
MACHINE = {"cpu_model": "A CPU", "cores": 2, "versions": {"torch": "2.0"}}


def line(
    name: str, accuracy: float | None, *, recipe: str = "published", seed: int = 0, **fields: Any
) -> dict[str, Any]:
    (arm,) = [each for each in arms() if (each.name, each.recipe) == (name, recipe)]
    made = {
        "date": f"2026-01-0{seed + 1}",
        "arm": name,
        "recipe": recipe,
        "config_id": config_id(arm.config),
        "epochs": arm.epochs,
        "seed": seed,
        "device": "cpu",
        "precision": "float32",
        "machine": MACHINE,
        "data": "cifar10",
        "workers": 2,
        "test_accuracy": accuracy,
        "failure": None,
        "losses": [1.5, 0.9, 0.7],
        "epoch_seconds": [10.0, 11.0, 12.0],
    }
    return made | fields


def results_of(*lines: dict[str, Any]) -> Results:
    for each in lines:
        append_line(PATH, each)
    return read_results(PATH)


# ---- Reading ---------------------------------------------------------------------------------------------


def test_only_lines_of_todays_arms_count_and_of_a_seed_the_last() -> None:
    found = results_of(
        line("mlp-128-64", 0.1),
        line("mlp-128-64", 0.6, seed=1),
        line("mlp-128-64", 0.9, config_id="other"),
        line("mlp-128-64", 0.9, epochs=999),
        line("mlp-128-64", 0.9, data="own-123"),
        line("mlp-128-64", 0.5),
    )
    assert {key: [each["test_accuracy"] for each in lines] for key, lines in found.items()} == {
        ("mlp-128-64", "published"): [0.5, 0.6]
    }


# ---- Nothing measured ------------------------------------------------------------------------------------


def test_what_is_not_measured_is_said_with_its_command() -> None:
    text = report({}, [], Path("grid.jsonl"), {})
    for preset in PRESETS.values():
        assert f"| {preset.row} `{preset.name}` |" in text
        assert f"`python -m benchmarks.published --only {preset.name}" in text
    assert text.count("not measured") >= 2 * len(PRESETS)
    assert "`mc1opt run --study published_grid`" in text
    assert "agrees" not in text
    half = not_measured_section(results_of(line("cnn-deep", 0.8, recipe="mc1opt")))
    command = "python -m benchmarks.published --only cnn-deep --device cuda"
    assert f"- `{command}`: published 0 of 3 seeds, mc1opt 1 of 3 seeds" in half


# ---- Rows ------------------------------------------------------------------------------------------------


def row(found: Results, name: str) -> list[str]:
    (text,) = [each for each in rows_section(found).split("\n") if f"`{name}`" in each]
    return [cell.strip() for cell in text.strip("|").split("|")]


def test_a_row_has_theirs_and_ours_and_whether_it_is_reproduced() -> None:
    found = results_of(
        *(line("mlp-128-64", 0.51 + 0.01 * seed, seed=seed) for seed in range(3)),
        line("mlp-128-64", 0.6, recipe="mc1opt"),
        line("cnn-6-16-fc", 0.50),
        line("cnn-6-16-fc", 0.51, recipe="mc1opt"),
    )
    cells = row(found, "mlp-128-64")
    assert cells[:4] == ["1 `mlp-128-64`", "402,250", "0.5214", "0.5200 ± 0.0100 [0.4952, 0.5448]"]
    assert cells[4:6] == [str(PRESETS["mlp-128-64"].epochs["published"]), "3"]
    epochs = str(PRESETS["mlp-128-64"].epochs["mc1opt"])
    assert cells[6:] == ["0.6000", epochs, "1", "reproduced over 3 of 5 seeds, +0.0786 over 1 of 5 seeds"]
    verdict = "0.0507 short of the mark over 1 of 5 seeds, not above it (-0.0507) over 1 of 5 seeds"
    assert row(found, "cnn-6-16-fc")[-1] == verdict
    assert row(found, "cnn-deep")[3:] == ["not measured", "20", "", "not measured", "8", "", ""]


def test_a_row_whose_trainings_lie_above_the_published_accuracy_says_so() -> None:
    found = results_of(*(line("mlp-128-64", 0.54 + 0.001 * seed, seed=seed) for seed in range(5)))
    assert row(found, "mlp-128-64")[-1] == "reproduced, and above it"
    # The published accuracy is one training's: an interval of the mean alone would exclude it here.
    found = results_of(*(line("mlp-128-64", 0.5264 + 0.004 * seed, seed=seed) for seed in range(5)))
    assert "[0.5265, 0.5" in row(found, "mlp-128-64")[3]
    assert row(found, "mlp-128-64")[-1] == "reproduced"


def test_a_training_that_diverged_is_counted_and_not_averaged() -> None:
    diverged: dict[str, Any] = {"failure": "diverged", "losses": [], "epoch_seconds": []}
    found = results_of(
        *(line("cnn-32-128", 0.65, seed=seed) for seed in (0, 1)),
        line("cnn-32-128", None, seed=2, **diverged),
        line("cnn-32-128-fc", None, **diverged),
    )
    cells = row(found, "cnn-32-128")
    assert cells[3].endswith("; 1 of 3 diverged")
    assert cells[5] == "2"
    assert cells[-1] == "reproduced, and above it over 2 of 3 seeds"
    assert row(found, "cnn-32-128-fc")[3] == "1 of 1 diverged"
    assert "`cnn-32-128`" not in not_measured_section(found)  # it would diverge again


# ---- Claims ----------------------------------------------------------------------------------------------


def gain(low: float, high: float) -> Spread:
    return Spread(3, (low + high) / 2, 0.1, (low, high))


@pytest.mark.parametrize(
    ("expected", "low", "high", "said"),
    [
        ("higher", 0.01, 0.03, "agrees"),
        ("higher", -0.01, 0.03, "not told apart"),
        ("higher", -0.03, -0.01, "disagrees: it costs accuracy"),
        ("not higher", 0.01, 0.03, "disagrees: it helps"),
        ("not higher", -0.01, 0.03, "not told apart"),
        ("not higher", -0.01, 0.005, "agrees: no gain above 0.01"),
        ("not higher", -0.03, -0.01, "agrees: no gain above 0.01"),
        ("kept", -0.01, 0.03, "agrees"),
        ("kept", -0.03, 0.01, "not told apart"),
        ("kept", -0.05, -0.03, "disagrees: it costs more than 0.02"),
    ],
)
def test_a_verdict_rests_on_the_interval(expected: Any, low: float, high: float, said: str) -> None:
    assert verdict(expected, gain(low, high)) == said


def test_without_an_interval_there_is_no_verdict() -> None:
    assert verdict("higher", None) == "not measured"
    assert verdict("higher", spread([0.1])) == "one seed: no verdict"


def test_differences_and_means_are_those_of_the_common_seeds() -> None:
    found = results_of(
        *(line("cnn-32-128", value, seed=seed) for seed, value in enumerate((0.60, 0.62, 0.64))),
        *(line(BASE, value, seed=seed) for seed, value in ((1, 0.70), (2, 0.74), (4, 0.9))),
    )
    paired = difference(Comparison("cnn-32-128", BASE, "higher"), found)
    assert paired is not None
    assert (paired.n, paired.mean) == (2, pytest.approx(0.09))
    (text,) = [each for each in claims_section(found).split("\n") if f"`cnn-32-128` -> `{BASE}`" in each]
    assert "| 0.6300 -> 0.7200 | +0.0900 " in text


def test_claims_compare_arms_that_there_are() -> None:
    names = {arm.name for arm in arms() if arm.recipe == "published"}
    used = {name for claim in CLAIMS for c in claim.comparisons for name in (c.before, c.after)}
    used |= {name for by_arm in NORM_ARMS.values() for name in by_arm.values()}
    assert used == names


# ---- Batch norm ------------------------------------------------------------------------------------------


def test_epochs_and_seconds_until_the_loss_are_read_off_a_line_between_two_epochs() -> None:
    found = line(BASE, 0.7, losses=[1.5, 1.0, 0.75, 0.6])
    assert epochs_to_loss(found) == pytest.approx(2.8)
    assert seconds_to_loss(found, SECONDS) == pytest.approx(2.8 * 11.0)
    at_once = line(BASE, 0.7, losses=[0.7, 0.6])
    assert epochs_to_loss(at_once) == 1.0
    never = line(BASE, 0.7, losses=[2.0, 1.9])
    assert (epochs_to_loss(never), seconds_to_loss(never, SECONDS)) == (None, None)


def test_the_three_expectations_are_judged_by_what_was_measured() -> None:
    by_arm = NORM_ARMS[BASE]
    assert all(text.endswith("not measured.") for text in norm_verdicts({}, by_arm, SECONDS))
    found = norm_lines(0)
    loss, seconds, batches = norm_verdicts(results_of(*found), by_arm, SECONDS)
    assert "one seed" in loss
    assert loss.endswith("1.5 with and 2.5 without.")
    loss, seconds, batches = norm_verdicts(results_of(*norm_lines(1), *norm_lines(2)), by_arm, SECONDS)
    assert loss.endswith(" met, 1.5 with and 2.6 without (3 seeds).")
    assert seconds.endswith("not met: the other way round, 60.0 with and 28.2 without (3 seeds).")
    assert batches.endswith(" met, +0.0100 with and +0.0410 without (3 seeds).")


def norm_lines(seed: int) -> list[dict[str, Any]]:
    """The four arms of one seed."""
    return [
        line(BASE, 0.70 - 0.001 * seed, seed=seed, losses=[1.5, 0.9, 0.7 + 0.02 * seed]),
        line(f"{BASE}-batchnorm", 0.72, seed=seed, losses=[0.9, 0.7]),
        line(f"{BASE}-batch-50", 0.74, seed=seed),
        line(f"{BASE}-batchnorm-batch-50", 0.73, seed=seed),
    ]


@pytest.mark.parametrize(
    ("losses", "said"),
    [([1.0, 0.9, 0.85, 0.7], ": not told apart, "), ([1.0, 0.9, 0.9], "0 without and 1 with batch norm")],
)
def test_differences_that_vary_much_or_never_come_leave_no_verdict(losses: list[float], said: str) -> None:
    other = line(f"{BASE}-batchnorm", 0.72, seed=2, losses=losses)
    found = results_of(*norm_lines(0), *norm_lines(1), *norm_lines(2), other)
    assert said in norm_verdicts(found, NORM_ARMS[BASE], SECONDS)[0]


def test_seconds_of_whole_trainings_are_not_compared() -> None:
    """They are of other hours, beside other work: a run that times the arms in turn is needed."""
    slow = [each | {"epoch_seconds": [99.0, 99.0, 99.0]} for each in norm_lines(0)]
    found = results_of(*slow, *norm_lines(1), *norm_lines(2))
    assert norm_verdicts(found, NORM_ARMS[BASE], {})[1].endswith("not timed.")
    assert norm_verdicts(found, NORM_ARMS[BASE], SECONDS)[1].endswith("60.0 with and 28.2 without (3 seeds).")
    assert "| 28.2 |" in norm_section(found, SECONDS)
    assert "| not timed |" in norm_section(found, {})


def test_seconds_of_an_epoch_are_medians_of_the_newest_run_on_cifar10() -> None:
    path = Path("seconds.jsonl")
    for data, images, device, seconds in (
        ("cifar10", 5000, "cpu", [9.0]),
        ("cifar10", 5000, "cpu", [1.0, 2.0, 9.0]),
        ("own-123", 5000, "cpu", [7.0]),
        ("cifar10", 5000, "cuda", [0.1]),
    ):
        run = {"data": data, "images": images, "device": device, "seconds": {BASE: seconds}}
        append_line(path, run)
    assert read_seconds(path) == {(BASE, "cpu"): 20.0, (BASE, "cuda"): 1.0}


def test_batch_norm_is_not_judged_by_two_devices() -> None:
    gpu = {"device": "cuda", "precision": "bfloat16"}
    found = [each | (gpu if each["arm"].endswith("batchnorm") else {}) for each in norm_lines(0)]
    loss, seconds, batches = norm_verdicts(results_of(*found), NORM_ARMS[BASE], SECONDS)
    arithmetics = "(cpu, float32; cuda, bfloat16)."
    assert loss.endswith(arithmetics)
    assert batches.endswith(arithmetics)
    assert seconds.endswith("not timed.")  # on the GPU


def test_trainings_in_another_arithmetic_are_another_sample() -> None:
    gpu = {"device": "cuda", "precision": "bfloat16"}
    found = results_of(
        line("mlp-128-64", 0.5),
        line("mlp-128-64", 0.6, **gpu),
        line("mlp-128-64", 0.7, seed=1, **gpu),
        *(line("mlp-256-128-64", 0.6, seed=seed) for seed in range(2)),
    )
    assert [each["test_accuracy"] for each in found["mlp-128-64", "published"]] == [0.6, 0.7]
    assert "(cpu, float32 against cuda, bfloat16)" in claims_section(found)


# ---- The grid --------------------------------------------------------------------------------------------


def grid(*points: tuple[int, float, float | None, list[float]]) -> str:
    """The section of these points: batch size, learning rate, accuracy, accuracies with new seeds."""
    for batch, rate, value, again in points:
        point = {"batch_size": batch, "learning_rate": rate, "validation_accuracy": value, "again": again}
        point |= {"data": "cifar10", "fidelity": {"epochs": 9, "train_images": 45_000}}
        failure = {"kind": "diverged"} if value is None else None
        append_line(Path("grid.jsonl"), point | {"failure": failure})
    return grid_section(Path("grid.jsonl"))


def test_the_grid_is_a_table_with_its_winner() -> None:
    text = grid(
        (50, 0.1, 0.52, []),
        (100, 0.1, 0.51, [0.50, 0.51]),
        (100, 0.2, 0.51, [0.52, 0.53]),
        (200, 0.1, 0.51, [0.53, 0.55]),
        (200, 0.2, None, []),
    )
    for part in (
        "| batch 50 | 0.5200 | not trained |",
        "| batch 200 | 0.5100 (0.5400) | failed (diverged) |",
        "9 epochs of 45,000 images of cifar10",
        "number 2 of 4",
        "(2 each)",
        "0.0318",
        "batch 200, learning rate 0.1; batch 100, learning rate 0.2.",
    ):
        assert part in text, part
    assert text.endswith("not told apart from the best.")


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([(100, 0.1, 0.5, [0.50, 0.51]), (200, 0.1, 0.5, [0.40, 0.41])], "another one is better."),
        ([(100, 0.1, 0.5, [0.50, 0.51]), (200, 0.1, 0.5, [0.60, 0.61])], "it is the best."),
        ([(100, 0.1, 0.5, [0.50]), (200, 0.1, 0.5, [0.50])], "nothing can be said beyond that."),
        ([(100, 0.1, 0.5, [])], "no accuracy here."),
    ],
)
def test_the_answer_rests_on_trainings_of_the_sources_point_with_new_seeds(points: Any, said: str) -> None:
    assert grid(*points).endswith(said)


def test_of_a_point_that_failed_and_was_trained_again_the_accuracy_counts() -> None:
    text = grid((200, 0.1, None, []), (200, 0.1, 0.5, []))
    assert "| batch 200 | 0.5000 |" in text
    assert "number 1 of 1" in text


# ---- The whole -------------------------------------------------------------------------------------------


def test_the_committed_report_is_that_of_the_committed_results() -> None:
    lines = RESULTS / "published.jsonl"
    seconds = read_seconds(RESULTS / SECONDS_RESULTS)
    written = report(read_results(lines), replaced_lines(lines), RESULTS / GRID_RESULTS, seconds)
    assert (RESULTS.parent / REPORT).read_text() == written


def test_what_was_tested_and_then_changed_is_said_and_not_counted() -> None:
    results_of(
        line("mlp-128-64", 0.5),
        line("mlp-128-64", 0.1342, config_id="abc", seed=1),
        line("mlp-128-64", None, epochs=999, failure="diverged"),
        line("mlp-128-64", 0.9, data="own-123", epochs=999),
        line("mlp-128-64", 0.9) | {"arm": "gone"},
    )
    text = replaced_section(replaced_lines(PATH))
    assert "- `mlp-128-64` (published), seed 2, 15 epochs, config abc: 0.1342\n" in text
    assert text.endswith(f"999 epochs, config {line('mlp-128-64', None)['config_id']}: failed (diverged)")
    assert text.count("\n- ") == 2
    assert replaced_section([]) == ""


# ---- The plot --------------------------------------------------------------------------------------------


def test_the_same_results_give_the_same_plot() -> None:
    found = results_of(line("mlp-128-64", 0.5), line("mlp-128-64", 0.6, recipe="mc1opt"))
    plot(found, Path("a.svg"))
    plot(found, Path("b.svg"))
    assert Path("a.svg").read_bytes() == Path("b.svg").read_bytes()
    plot({}, Path("c.svg"))
    assert Path("c.svg").read_bytes() != Path("a.svg").read_bytes()
