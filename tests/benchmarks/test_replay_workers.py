"""Searches of many workers on a simulated clock: who trains when, and what a draw knows."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from benchmarks import replay_workers
from benchmarks.replay import ARMS, HELD_OUT, Searched, Surrogate, Task, begin, new_study, searched
from benchmarks.replay_model import LONG
from benchmarks.replay_workers import counts, main, missing, parse_options, search, table
from tests.benchmarks.test_replay import lines

ARM = ARMS["local, short (default)"]


@pytest.fixture(scope="module")
def surrogate() -> Surrogate:
    return Surrogate(lines(30))


def simulated(surrogate: Surrogate, workers: int, trials: int = 24, seed: int = 0) -> Searched:
    task = Task(trials=trials, seconds=math.inf, workers=workers)
    return searched(ARM, surrogate, np.random.default_rng(seed), task, new_study(ARM, seed))


def outcomes(study: optuna.Study) -> list[Any]:
    return [(trial.params, trial.state, trial.value) for trial in study.get_trials(deepcopy=False)]


def one_after_the_other(surrogate: Surrogate, trials: int) -> tuple[optuna.Study, float]:
    """The search as a plain loop, and the seconds of its epochs."""
    generator, study, seconds = np.random.default_rng(0), new_study(ARM, 0), 0.0
    seen: set[str] = set()
    for _ in range(trials):
        trial, curve, each = begin(study, surrogate, seen, ARM.short, Task())
        noise = generator.normal(0.0, surrogate.seed_noise, 2).repeat((ARM.short, LONG))
        for epoch, mean in enumerate(np.clip(curve + noise, 0.0, 1.0)):
            seconds += each
            last = epoch == len(curve) - 1
            images = ARM.validation if last else HELD_OUT
            value = generator.binomial(images, mean) / images
            trial.report(value, epoch)
            if last:
                study.tell(trial, value)
            elif trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
    return study, seconds


def test_one_worker_makes_the_search_of_a_plain_loop(surrogate: Surrogate) -> None:
    found = simulated(surrogate, workers=1)
    study, seconds = one_after_the_other(surrogate, 24)
    assert outcomes(found.study) == outcomes(study)
    assert max(found.ends.values()) == pytest.approx(seconds)


@pytest.mark.parametrize("workers", [2, 7])
def test_never_more_than_the_workers_train_and_none_waits(surrogate: Surrogate, workers: int) -> None:
    found = simulated(surrogate, workers)
    assert len(found.begins) == len(found.ends) == 24
    busy = [
        sum(found.begins[number] <= begin < found.ends[number] for number in found.begins)
        for begin in found.begins.values()
    ]
    assert max(busy) == workers
    assert sorted(found.begins.values())[workers:] == sorted(found.ends.values())[: 24 - workers]


def test_a_draw_knows_what_has_ended_and_nothing_in_training(
    surrogate: Surrogate, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = new_study(ARM, 0)
    known: list[int] = []
    infer = study.sampler.infer_relative_search_space

    def noted(*arguments: Any) -> Any:
        space = infer(*arguments)
        known.append(study.sampler._view.trained)  # type: ignore[attr-defined]
        return space

    monkeypatch.setattr(study.sampler, "infer_relative_search_space", noted)
    task = Task(trials=12, seconds=math.inf, workers=4)
    searched(ARM, surrogate, np.random.default_rng(0), task, study)
    assert len(known) >= 12
    assert known[:4] == [0] * 4
    assert known == sorted(known)
    assert known[-1] == 12 - 4


def test_with_as_many_workers_as_trials_every_draw_is_random(surrogate: Surrogate) -> None:
    at_once = simulated(surrogate, workers=24)
    assert set(at_once.begins.values()) == {0.0}
    drawn = [trial.params for trial in at_once.study.get_trials()]
    in_turn = [trial.params for trial in simulated(surrogate, workers=1).study.get_trials()]
    assert drawn[:16] == in_turn[:16]  # what the sampler draws at random before it models
    assert drawn[16:24] != in_turn[16:24]


def test_a_simulation_is_the_same_again_and_another_with_another_seed(surrogate: Surrogate) -> None:
    def line(seed: int) -> dict[str, Any]:
        return {**search("local", surrogate, seed, 20, 3), "cpu_seconds": 0.0}

    assert line(1) == line(1)
    assert {**line(2), "seed": 1} != line(1)
    assert (line(1)["trained"], line(1)["workers"]) == (20, 3)
    assert line(1)["minutes"] < line(1)["worker_minutes"] <= 3 * line(1)["minutes"]


def test_workers_beyond_the_trials_are_not_searched_with_again() -> None:
    assert counts((1, 32, 128, 1000), 100) == [1, 32, 100]
    assert counts((128, 1000), 1000) == [128, 1000]


def test_what_is_there_is_not_searched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    curves = tmp_path / "curves.jsonl"
    curves.write_text("".join(json.dumps(line) + "\n" for line in lines(30)))
    results = tmp_path / "scale.jsonl"
    results.write_text(json.dumps({"what": "growth", "trials": 100}) + "\n")
    given = ["--curves", str(curves), "--results", str(results), "--trials", "4", "--sampler", "random"]
    main([*given, "--workers", "1", "2", "--repetitions", "1"])
    monkeypatch.setattr(replay_workers, "search", lambda *_: pytest.fail("searched again"))
    main([*given, "--workers", "1", "2", "--repetitions", "1"])
    assert capsys.readouterr().out.count("| 4 | 2 | - | 0 |") == 2
    stored = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line.get("workers") for line in stored] == [None, 1, 2]
    options = parse_options([*given, "--workers", "1", "2", "--repetitions", "2"])
    assert list(missing(options, stored[1:])) == [("random", 4, 1, 1), ("random", 4, 2, 1)]


def test_the_table_has_means_with_their_standard_errors() -> None:
    def line(sampler: str, truth: float, seed: int) -> dict[str, Any]:
        searched = {"sampler": sampler, "trials": 1_000, "workers": 8, "seed": seed}
        return {**searched, "truth": truth, "minutes": 30.0}

    said = table([line("local", 0.7, 0), line("local", 0.8, 1), line("random", 0.6, 0)])
    assert "| 1,000 | 8 | 0.7500 ± 0.0500 | 2 | 0.6000 | 1 | 30 |" in said
