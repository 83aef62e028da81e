"""Learning curves for the search: which configs are trained, and a run on small images."""

import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.curves import (
    BEST_START,
    DEFINITION,
    EPOCHS,
    FAMILIES,
    choices,
    key_of,
    of_search,
    parse_part,
    points,
    trainings,
)
from mc1opt.config import config_id
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.errors import UsageError
from mc1opt.files import read_lines
from mc1opt.models.cost import cost
from mc1opt.spec import Fidelity
from tests.support.command import SECONDS
from tests.support.display import study, trial
from tests.support.image_sets import write_binary_folder

ROOT = Path(__file__).parents[2]


def test_a_third_of_the_configs_is_of_each_family_with_its_number_of_changes() -> None:
    found = list(islice(points(), 60))
    assert Counter(point.family for point in found) == dict.fromkeys(FAMILIES, 20)
    base = DEFINITION.starting_points[BEST_START]
    for point in found:
        different = {name for name in base.keys() | point.params if base.get(name) != point.params.get(name)}
        assert point.changes == len(different)
        low, high = FAMILIES[point.family] or (1, 99)
        assert low <= point.changes <= high


def test_configs_are_affordable_all_different_and_the_same_in_every_process() -> None:
    found = list(islice(points(), 60))
    assert all(cost(point.config.architecture, CIFAR10_SHAPE).macs <= DEFINITION.max_macs for point in found)
    assert len({config_id(point.config) for point in found}) == len(found)
    assert [point.params for point in islice(points(), 60)] == [point.params for point in found]


def test_each_config_has_every_schedule_and_a_tenth_of_them_three_seeds() -> None:
    count = Counter(key_of(training) for training in islice(trainings(), 400))
    assert set(count.values()) == {1}
    configs = Counter((key[0], key[2]) for key in count)
    assert list(configs.values())[:-1] == [len(EPOCHS)] * (len(configs) - 1)
    seeds = Counter(config for config, _ in configs)
    assert Counter(seeds.values()) == {3: 12, 1: 98}


def test_each_other_choice_is_trained_once_with_what_comes_with_it_drawn() -> None:
    base = DEFINITION.starting_points[BEST_START]
    found = list(choices())
    assert found == list(choices())
    assert len({config_id(point.config) for point in found}) == len(found)
    changed = [
        {name for name in base.keys() & point.params.keys() if base[name] != point.params[name]}
        for point in found
    ]
    assert {len(names) for names in changed} == {1}
    tried = {(name, point.params[name]) for point, (name,) in zip(found, changed, strict=True)}
    assert {("optimizer", "muon"), ("optimizer", "adam"), ("activation", "relu"), ("kernel_size", 5)} <= tried
    muon = [point.params for point in found if point.params["optimizer"] == "muon"]
    assert len({params["muon_learning_rate"] for params in muon}) == len(muon) == 2
    assert all(cost(p.config.architecture, CIFAR10_SHAPE).macs <= DEFINITION.max_macs for p in found)


def test_a_part_is_counted_from_one() -> None:
    assert parse_part("2/3") == (2, 3)
    with pytest.raises(ValueError, match="3/2"):
        parse_part("3/2")


@pytest.mark.slow
def test_trainings_are_appended_once_and_those_of_another_part_left_out(tmp_path: Path) -> None:
    write_binary_folder(tmp_path / "images", train_images=200, test_images=50)
    results = tmp_path / "curves.jsonl"

    def run(*options: str) -> str:
        command = [sys.executable, "-m", "benchmarks.curves", "--data", tmp_path / "images"]
        done = subprocess.run(
            [*command, "--results", results, *options],
            cwd=ROOT,
            env={"MC1OPT_DATA": str(tmp_path / "cache"), "PATH": ""},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        return done.stdout

    run("--trainings", "4", "--part", "1/2")
    first = read_lines(results)
    assert [(line["epochs"], line["seed"]) for line in first] == [(5, 0), (1, 0)]
    run("--trainings", "4")
    lines = read_lines(results)
    assert lines[:2] == first
    assert [(line["epochs"], line["seed"]) for line in lines[2:]] == [(2, 0), (5, 1)]
    for line in lines:
        assert line["failure"] is None
        assert len(line["values_by_epoch"]) == line["epochs"]
        assert 0 <= line["unused_accuracy"] <= 1
    assert "4 of 400" in run("--count")


def test_the_trainings_of_a_search_are_lines_of_their_schedules() -> None:
    fidelity = Fidelity(train_images=18_000, epochs=5, short_epochs=1, validation="unused")
    record = study(
        trial(
            0,
            value=0.8,
            values_by_epoch=[0.5, 0.4, 0.5, 0.6, 0.7, 0.8],
            losses=[3, 2, 1.9, 1.8, 1.7, 1.6],
        ),
        trial(1, "pruned", values_by_epoch=[0.3], losses=[2.5]),
        trial(2, "too_large"),
        fidelity=fidelity,
        data={"name": "cifar10"},
    )
    lines = list(of_search(record))
    assert [(line["index"], line["epochs"], line["values_by_epoch"]) for line in lines] == [
        (0, 1, [0.5]),
        (0, 5, [0.4, 0.5, 0.6, 0.7, 0.8]),
        (1, 1, [0.3]),
    ]
    assert [line["losses"] for line in lines] == [[3.0], [2.0, 1.9, 1.8, 1.7, 1.6], [2.5]]
    assert [line["unused_accuracy"] for line in lines] == [None, 0.8, None]
    with pytest.raises(UsageError):
        list(of_search(study(trial(0), fidelity=fidelity.model_copy(update={"epochs": 4}))))
