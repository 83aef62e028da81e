"""The race: what counts of a search, the report on lines made by hand, and all arms on small images."""

import csv
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import FixedTrial

from benchmarks.race import ARMS, Ended, has_ray_tune, missing, parse_options, search_figures
from benchmarks.race_peers import DEFINITION, race_fidelity, race_training
from benchmarks.race_report import (
    MARKS,
    PUBLISHED,
    TITLES,
    marks_table,
    median_trace,
    minutes_until,
    race_table,
    read_race,
    targets,
    write_report,
)
from benchmarks.tutorial import make_optimizer, make_scheduler, train
from mc1opt.config import SGD, Constant, Cosine, OneCycle, config_id
from mc1opt.dataset import DataSet
from mc1opt.files import append_line, read_lines
from mc1opt.training.optim import learning_rate_factor
from tests.support.image_sets import write_binary_folder
from tests.support.images import write_images

ROOT = Path(__file__).parents[2]
POINT = dict(DEFINITION.starting_points["whitened-16-32-64"])
MACHINE = {"cpu_model": "CPU", "cores": 2, "load": 0.1, "versions": {"torch": "2.14"}}


def line(arm: str, repetition: int, trace: list[list[float]], **changes: Any) -> dict[str, Any]:
    return {
        "machine": MACHINE,
        "arm": arm,
        "repetition": repetition,
        "minutes": 30.0,
        "workers": 2,
        "data": "cifar10",
        "fidelity": {"train_images": 18_000, "epochs": 5},
        "trials": {"complete": len(trace), "pruned": 7, "too_large": 3},
        "trace": trace,
        "best": None,
        "confirmed": [0.5, 0.7],
    } | changes


def write(path: Path, *lines: dict[str, Any]) -> None:
    for each in lines:
        append_line(path, each)


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]


# ---- What counts of a search -------------------------------------------------------------------------------


def test_the_trace_rises_with_completed_trials_that_ended_in_time() -> None:
    worse = POINT | {"batch_size": 100}
    figures = search_figures(
        [
            Ended(50.0, "complete", 0.6, POINT),
            Ended(20.0, "complete", 0.5, worse),
            Ended(30.0, "pruned", None, worse),
            Ended(55.0, "complete", 0.6, worse),
            Ended(40.0, "complete", 0.4, worse),
            Ended(60.1, "complete", 0.9, worse),
        ],
        60.0,
    )
    assert figures["trace"] == [[20.0, 0.5], [50.0, 0.6]]
    assert figures["trials"] == {"complete": 4, "pruned": 1}
    assert figures["best"]["params"] == POINT
    assert figures["best"]["config_id"] == config_id(DEFINITION.config(FixedTrial(POINT)))


def test_a_search_without_a_completed_trial_has_no_best() -> None:
    figures = search_figures([Ended(5.0, "too_large", None, POINT)], 60.0)
    assert figures == {"trials": {"too_large": 1}, "trace": [], "best": None}


def test_only_what_the_file_lacks_is_missing_the_first_repetitions_first(tmp_path: Path) -> None:
    results = tmp_path / "race.jsonl"
    write(results, line("a", 1, []), line("e", 2, []), line("a", 2, [], minutes=1.0))
    write(results, line("e", 1, [], data="own-1"))
    data = DataSet(name="cifar10", folder="", sha256="", train_images=50_000, validation_images=5_000)
    options = parse_options(["--results", str(results), "--arm", "a", "e", "--repetitions", "2"])
    assert list(missing(options, data)) == [("e", 1), ("a", 2)]
    options = parse_options(["--results", str(results)])
    assert len(list(missing(options, data))) == 3 * len(ARMS) - 2


def test_every_arm_has_a_title_and_only_those_with_our_training_have_starting_points() -> None:
    assert ARMS.keys() == TITLES.keys()
    assert {name for name, arm in ARMS.items() if arm.starting_points} == {"c+", "d+", "e+"}


# ---- The report --------------------------------------------------------------------------------------------


def test_minutes_until_a_value_are_those_of_the_first_improvement_that_reaches_it() -> None:
    trace = [[60.0, 0.5], [120.0, 0.7], [600.0, 0.8]]
    assert [minutes_until(trace, value) for value in (0.4, 0.5, 0.6, 0.7, 0.71)] == [1, 1, 2, 2, 10]
    assert math.isinf(minutes_until(trace, 0.81))
    assert math.isinf(minutes_until([], 0.1))


def test_the_median_over_time_begins_when_all_searches_have_a_value() -> None:
    traces = [[[60.0, 0.5], [240.0, 0.9]], [[120.0, 0.6]], [[180.0, 0.1], [300.0, 0.7]]]
    assert median_trace(traces) == [(3.0, 0.5), (4.0, 0.6), (5.0, 0.7)]
    assert median_trace([]) == []


def test_the_table_has_means_medians_and_the_final_values_of_other_arms(tmp_path: Path) -> None:
    results = tmp_path / "race.jsonl"
    write(
        results,
        line("a", 2, [[600.0, 0.62]], confirmed=[0.6, None]),
        line("a", 1, [[300.0, 0.5], [1500.0, 0.58]], confirmed=[0.5, 0.6]),
        line("e", 1, [[90.0, 0.61], [180.0, PUBLISHED]]),
        line("e", 2, [[120.0, 0.70]]),
        line("e", 3, [[150.0, 0.72], [720.0, 0.78]]),
        line("e", 4, [[1.0, 0.99]], minutes=1.0),
    )
    lines = read_race(results, 30.0)
    assert targets(lines) == {"a": pytest.approx(0.60)}
    header, _, *rows = cells(race_table(lines))
    table = {row[0][1]: dict(zip(header, row, strict=True)) for row in rows if "+" not in row[0]}
    assert header[-2:] == ["min until 0.7653", "min until (a)'s 0.6000"]
    assert list(table["a"].values())[1:] == [
        "2",
        "8",
        "2",
        "0.6000 (0.5800 to 0.6200)",
        "0.5750 (0.5500 to 0.6000)",
        "never",
        "never (10.0 to never)",
    ]
    assert list(table["e"].values())[1:5] == ["3", "9", "2", "0.7484 (0.7000 to 0.7800)"]
    assert list(table["e"].values())[6:] == ["12.0 (3.0 to never)", "2.0 (1.5 to 2.5)"]
    assert list(table["b"].values())[2] == "not measured"


def test_the_marks_are_parts_of_the_other_arms_time(tmp_path: Path) -> None:
    results = tmp_path / "race.jsonl"
    write(
        results,
        *(line(arm, 1, [[1700.0, value]]) for arm, value in zip("abcd", (0.5, 0.6, 0.7, 0.8), strict=True)),
    )
    write(results, line("e", 1, [[179.0, 0.5], [181.0, 0.6], [900.0, 0.7]]))
    table = cells(marks_table(read_race(results, 30.0)))[2:]
    assert [row[2:] for row in table] == [
        ["0.1", "0.10", "reached"],
        ["0.1", "0.10", "missed"],
        ["0.5", "0.50", "reached"],
        ["0.5", "never", "missed"],
    ]
    assert list(MARKS.values()) == [0.1, 0.1, 0.5, 0.5]


def test_report_plot_and_csv_are_the_same_again_and_hold_every_improvement(tmp_path: Path) -> None:
    results, folder = tmp_path / "race.jsonl", tmp_path / "out"
    write_report(results, 30.0, folder)
    assert "Nothing is measured" in (folder / "RACE.md").read_text()
    write(
        results, line("a", 1, [[300.0, 0.5], [1500.0, 0.58]]), line("b", 1, []), line("e+", 1, [[9.5, 0.8]])
    )
    write_report(results, 30.0, folder)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert first.keys() == {"RACE.md", "RACE.svg", "RACE.csv"}
    write_report(results, 30.0, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    with (folder / "RACE.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["arm", "repetition", "seconds", "best_value"],
            ["a", "1", "300.0", "0.5"],
            ["a", "1", "1500.0", "0.58"],
            ["e+", "1", "9.5", "0.8"],
        ]


# ---- The tutorial's training -------------------------------------------------------------------------------


FURTHER = {
    "optimizer": "muon",
    "muon_learning_rate": 0.05,
    "muon_sgd_learning_rate": 0.05,
    "muon_momentum": 0.9,
    "use_weight_decay": False,
    "weight_averaging": 0.4,
    "alternating_flip": True,
    "logit_scale": 0.5,
    "identity_initialisation": True,
    "global_pooling": "max",
    "progressive_size": 16,
}
"""Of the search space: what PyTorch's tutorials do without."""


@pytest.mark.parametrize("schedule", [Constant(), Cosine(), OneCycle(), OneCycle(warmup=0.5)])
def test_the_tutorials_schedules_are_the_configs(schedule: Constant | Cosine | OneCycle) -> None:
    optimizer = make_optimizer(torch.nn.Linear(2, 2), SGD(learning_rate=0.2, momentum=0.9, nesterov=True))
    scheduler = make_scheduler(optimizer, schedule, 40)
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    wanted = [0.2 * learning_rate_factor(schedule, step, 40) for step in range(40)]
    assert rates == pytest.approx(wanted)


@pytest.mark.parametrize("further", [{}, FURTHER], ids=["plain", "further methods"])
def test_the_tutorials_training_learns_and_is_the_same_again(further: dict[str, Any], tmp_path: Path) -> None:
    data = write_images(tmp_path)
    config = DEFINITION.config(FixedTrial(POINT | {"batch_size": 20, "cutout": 4} | further))
    training = race_training(config, data, 1)
    assert race_fidelity(data).train_images == 120
    threads = torch.get_num_threads()
    try:
        results = list(train(training))
        again = list(train(training))
    finally:
        torch.set_num_threads(threads)
    assert [result.epoch for result in results] == [0, 1, 2, 3, 4]
    assert [(each.loss, each.accuracy) for each in results] == [(each.loss, each.accuracy) for each in again]
    assert results[-1].accuracy > 0.3
    assert results[-1].accuracy * data.validation_images == pytest.approx(
        round(results[-1].accuracy * data.validation_images)
    )


@pytest.mark.parametrize("without", [{"weight_averaging": 0.0}, {"progressive_size": 32}])
def test_the_tutorials_training_follows_the_further_methods(without: dict[str, Any], tmp_path: Path) -> None:
    data = write_images(tmp_path)
    threads = torch.get_num_threads()
    curves = []
    try:
        base = POINT | FURTHER | {"batch_size": 20}
        for params in (base, base | without):
            config = DEFINITION.config(FixedTrial(params))
            results = list(train(race_training(config, data, 1)))
            curves.append([(each.loss, each.accuracy) for each in results])
    finally:
        torch.set_num_threads(threads)
    assert curves[0] != curves[1]


# ---- All of it ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ARMS)
def test_an_arm_searches_small_images_and_is_confirmed_once(name: str, tmp_path: Path) -> None:
    write_binary_folder(tmp_path / "images", train_images=400, test_images=50)
    results, report = tmp_path / "race.jsonl", tmp_path / "report"

    def run(minutes: float) -> str:
        command = [sys.executable, "-m", "benchmarks.race", "--arm", name, "--repetitions", "1"]
        command += ["--minutes", str(minutes), "--data", str(tmp_path / "images")]
        done = subprocess.run(
            [*command, "--results", results, "--output", report],
            cwd=ROOT,
            env=os.environ | {"MC1OPT_DATA": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    if ARMS[name].search == "ray" and not has_ray_tune():
        assert "left out" in run(0.25)
        assert read_lines(results) == []
        return
    # However busy the machine is: until there is time for a trial.
    for minutes in (0.25, 0.5, 1.0, 2.0, 4.0):
        run(minutes)
        found = read_lines(results)[-1]
        if found["trace"]:
            break
    values = [value for _, value in found["trace"]]
    assert values == sorted(set(values)) != []
    assert all(0 < seconds <= 60 * minutes for seconds, _ in found["trace"])
    assert found["trials"]["complete"] >= len(values)
    assert found["fidelity"] == {"train_images": 144, "epochs": 5, "validation": "unused"}
    assert len(found["confirmed"]) == 2
    assert (report / "RACE.md").is_file()
    run(minutes)
    assert read_lines(results)[-1] == found
