"""Presets trained, tested and stored: what is finished is neither trained nor tested again."""

import fcntl
import io
import json
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mc1opt.data import images as images_module
from mc1opt.errors import DataError, UsageError, WorkerError
from mc1opt.measurement.store import StoredTraining, TrainingKey, TrainingStore
from mc1opt.presets import PRESETS
from mc1opt.published.measure import _LadderTrainings, chosen_presets, stopped_line
from mc1opt.published.plan import LadderPlan, preset_entry, seed_value
from mc1opt.published.results import Measurement
from mc1opt.spec import DataSet, Fold
from mc1opt.workers.stop import StopFlag
from tests.support.curves import CurvePool, Switches, curve
from tests.support.image_sets import change_without_a_trace
from tests.support.measuring import (
    FOLDER,
    ROW_1,
    ROW_2,
    expected_accuracies,
    ladder,
    ladder_images,
    measured,
    training_of,
)


@pytest.fixture
def data() -> DataSet:
    return ladder_images()


def accuracies(found: Measurement) -> list[float]:
    return [each.accuracy for each in found.tested]


def openings(name: str = ROW_1) -> list[dict[str, str]]:
    path = FOLDER / name / "test_openings.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def trainings() -> list[dict[str, Any]]:
    path = FOLDER / "trainings.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def begun(switches: Switches) -> list[tuple[int, int]]:
    """Seed (counted from 0) and epoch of all epochs that were begun."""
    numbers = {seed_value(seed): seed for seed in range(10)}
    return [(numbers[epoch["seed"]], epoch["epoch"]) for epoch in switches.epochs()]


# ---- To the end ------------------------------------------------------------------------------------------


def test_each_seed_trains_on_all_images_and_is_tested(data: DataSet) -> None:
    (found,) = measured(ROW_1, seeds=4)
    assert accuracies(found) == expected_accuracies(ROW_1, 4, data)
    assert found.spread.mean == pytest.approx(statistics.fmean(accuracies(found)))
    assert found.spread.std == pytest.approx(statistics.stdev(accuracies(found)))
    keys = [line["key"] for line in trainings()]
    assert {(key["validation_images"], key["fidelity"]["train_images"]) for key in keys} == {(0, 200)}
    assert {key["seed"] for key in keys} == {seed_value(seed) for seed in range(4)}
    assert len(set(accuracies(found))) > 1


def test_every_opening_of_the_test_images_is_recorded_with_its_reason(data: DataSet) -> None:
    ladder(ROW_1, seeds=2, recipe="mc1opt")
    assert sorted(opening["reason"] for opening in openings()) == [
        f"presets: {ROW_1} (mc1opt) seed {seed}, 3 epochs" for seed in (1, 2)
    ]


def test_weights_are_deleted_when_they_are_tested(data: DataSet) -> None:
    ladder(ROW_1, seeds=2)
    assert list(FOLDER.rglob("*.safetensors")) == []
    assert all(line["weights_sha256"] for line in trainings())


def test_recipes_and_epochs_are_measured_apart(data: DataSet) -> None:
    (published,) = measured(ROW_1)
    (better,) = measured(ROW_1, recipe="mc1opt")
    (longer,) = measured(ROW_1, epochs=5)
    assert accuracies(better) == expected_accuracies(ROW_1, 3, data, recipe="mc1opt")
    assert len({tuple(accuracies(found)) for found in (published, better, longer)}) == 3
    assert (published.epochs, longer.epochs) == (3, 5)


def test_the_number_of_workers_and_the_company_of_others_change_nothing(data: DataSet) -> None:
    alone = [*measured(ROW_1, workers="1"), *measured(ROW_2, workers="1")]
    for path in FOLDER.rglob("*.jsonl"):
        path.unlink()
    together = measured(ROW_1, ROW_2, workers="3")
    assert [accuracies(found) for found in together] == [accuracies(found) for found in alone]


def test_without_a_number_of_epochs_it_is_the_presets(data: DataSet) -> None:
    found = measured(ROW_1, ROW_2, seeds=1, epochs=None)
    assert [each.epochs for each in found] == [PRESETS[n].epochs["published"] for n in (ROW_1, ROW_2)]


def test_folds_tell_the_spread_over_images_apart_from_that_over_seeds(data: DataSet) -> None:
    (found,) = measured(ROW_1, folds=4)
    assert found.folds is not None
    assert found.folds.accuracies == [
        curve(training_of(ROW_1, 0, data, fold=Fold(index=index, count=4)))[-1].accuracy for index in range(4)
    ]
    mean = statistics.fmean(found.folds.accuracies)
    assert found.folds.std_by_chance == pytest.approx((mean * (1 - mean) / 50) ** 0.5)
    assert len(openings()) == 3


def test_progress_says_each_training_and_its_test(data: DataSet) -> None:
    output = io.StringIO()
    ladder(ROW_1, output=output, workers="1")
    lines = output.getvalue().splitlines()
    assert lines[0].startswith(f"{ROW_1} (published): 3 trainings on all 200 images; 1 worker on cpu")
    assert "The test images are opened after each training" in lines[0]
    assert lines[1].startswith(f"1/3  {ROW_1} (published) seed 1: trained in ")
    assert (
        lines[2] == f"{ROW_1} (published) seed 1: test accuracy {expected_accuracies(ROW_1, 1, data)[0]:.4f}"
    )


# ---- Again -----------------------------------------------------------------------------------------------


def test_what_is_tested_is_neither_trained_nor_tested_again(data: DataSet, switches: Switches) -> None:
    first = measured(ROW_1, folds=3)
    count = len(switches.epochs())
    pools: list[CurvePool] = []
    output = io.StringIO()

    def new_pool(size: int) -> CurvePool:
        pools.append(CurvePool(size))
        return pools[-1]

    assert measured(ROW_1, folds=3, new_pool=new_pool, output=output) == first
    assert (len(switches.epochs()), len(openings()), pools) == (count, 3, [])
    assert "Of them stored already: 6." in output.getvalue()


def test_more_seeds_later_train_only_what_is_missing(data: DataSet, switches: Switches) -> None:
    measured(ROW_1, seeds=2)
    (found,) = measured(ROW_1, seeds=4)
    assert accuracies(found) == expected_accuracies(ROW_1, 4, data)
    assert sorted(begun(switches)) == [(seed, epoch) for seed in range(4) for epoch in range(3)]


def test_a_stopped_ladder_goes_on_to_the_same_numbers(data: DataSet, switches: Switches) -> None:
    whole = measured(ROW_1, ROW_2)
    for path in FOLDER.rglob("*.jsonl"):
        path.unlink()
    (switches.folder / "epochs.jsonl").unlink()
    switches.add("hang", seed=seed_value(1), epoch=2)
    stop = StopFlag()

    def stop_soon() -> None:
        switches.wait_for_epochs(6)
        stop.set("signal", "SIGINT")

    thread = threading.Thread(target=stop_soon)
    thread.start()
    ended = ladder(ROW_1, ROW_2, stop=stop, workers="1")
    thread.join()
    assert ended.reason == "signal"
    assert stopped_line(ended).startswith("Stopped by SIGINT, after ")
    (_, first), (_, second) = ended.results
    assert first is not None
    assert len(first.tested) == 1
    assert second is None
    switches.clear()
    resumed = measured(ROW_1, ROW_2, workers="1")
    assert [accuracies(found) for found in resumed] == [accuracies(found) for found in whole]
    assert [pair for pair in begun(switches) if pair[0] == 0] == [(0, epoch) for epoch in range(3)] * 2


def test_the_time_limit_stops_in_good_order(data: DataSet, switches: Switches) -> None:
    switches.add("hang", seed=seed_value(1), epoch=2)
    ended = ladder(ROW_1, timeout=1.0, workers="1")
    assert ended.reason == "timeout"
    assert stopped_line(ended).startswith("Stopped because the time is up, after ")


def test_with_damaged_test_images_it_is_trained_and_tested_when_they_are_whole(
    data: DataSet, switches: Switches, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = Path("cache").glob("own-*/test_images.npy")
    content = path.read_bytes()
    change_without_a_trace(path, bytes(len(content)), monkeypatch)
    with pytest.raises(DataError, match=r"test_images\.npy cannot be read"):
        ladder(ROW_1, seeds=1)
    path.write_bytes(content)
    (found,) = measured(ROW_1, seeds=1)
    assert accuracies(found) == expected_accuracies(ROW_1, 1, data)
    assert begun(switches) == [(0, epoch) for epoch in range(3)]


def test_a_result_of_a_test_that_was_lost_is_found_again(data: DataSet, switches: Switches) -> None:
    (first,) = measured(ROW_1, seeds=1)
    (FOLDER / ROW_1 / "test_results.jsonl").unlink()
    (second,) = measured(ROW_1, seeds=1)
    assert accuracies(second) == accuracies(first)
    assert len(begun(switches)) == 6  # its weights were deleted


def test_training_does_without_the_test_images(
    data: DataSet, switches: Switches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the test images were opened")

    monkeypatch.setattr(images_module, "open_test_images", refuse)
    with pytest.raises(AssertionError, match="the test images were opened"):
        ladder(ROW_1, workers="1")
    assert trainings()


# ---- Failures --------------------------------------------------------------------------------------------


def test_a_seed_that_diverges_is_counted_and_the_others_stand(data: DataSet, switches: Switches) -> None:
    switches.add("diverge", seed=seed_value(1), epoch=1)
    (found,) = measured(ROW_1)
    expected = expected_accuracies(ROW_1, 3, data)
    assert accuracies(found) == [expected[0], expected[2]]
    assert [each.failure.kind for each in found.failures] == ["diverged"]
    assert len(openings()) == 2
    switches.clear()
    assert measured(ROW_1) == [found]


def test_a_failure_of_the_world_keeps_the_others_and_is_tried_again(
    data: DataSet, switches: Switches
) -> None:
    switches.add("kill", seed=seed_value(1), epoch=1, times=1)
    with pytest.raises(WorkerError, match=r"1 of the trainings failed.*seed 2 \(killed\)"):
        ladder(ROW_1)
    assert len(trainings()) == 2
    (found,) = measured(ROW_1)
    assert accuracies(found) == expected_accuracies(ROW_1, 3, data)


def test_a_failure_of_the_world_is_said_also_where_the_time_is_up_before_the_end(
    data: DataSet, switches: Switches
) -> None:
    switches.add("kill", seed=seed_value(0), epoch=1, times=1)
    switches.add("hang", seed=seed_value(1))
    output = io.StringIO()
    ended = ladder(ROW_1, timeout=3.0, output=output)
    assert ended.reason == "timeout"
    (line,) = [line for line in output.getvalue().splitlines() if line.startswith("failed: ")]
    assert "seed 1 (killed)" in line
    assert line.endswith("; the same command tries it again")


def test_two_processes_at_once_are_refused(data: DataSet) -> None:
    FOLDER.mkdir(parents=True)
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="being trained by another process, in storage/presets"):
            ladder(ROW_1)
    ladder(ROW_1, seeds=1)


# ---- Which presets ---------------------------------------------------------------------------------------


def test_presets_are_named_once_each_or_all() -> None:
    chosen = chosen_presets([ROW_2, ROW_1, ROW_2], everything=False)
    assert [preset.name for preset in chosen] == [ROW_2, ROW_1]
    assert [preset.row for preset in chosen_presets([], everything=True)] == list(range(1, 12))


@pytest.mark.parametrize(
    ("names", "everything", "message"),
    [
        ([], False, "name presets, or give --all. The presets are: mlp-128-64, "),
        ([ROW_1], True, "names and --all exclude each other"),
        (["mlp-128"], False, r"no preset named 'mlp-128'\. Did you mean mlp-128-64"),
    ],
)
def test_other_choices_are_refused(names: list[str], everything: bool, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        chosen_presets(names, everything=everything)


# ---- The time left ---------------------------------------------------------------------------------------


def test_the_time_left_counts_what_an_epoch_of_each_preset_costs(data: DataSet) -> None:
    entries = tuple(
        preset_entry(PRESETS[name], "published", seeds=1, epochs=3) for name in (ROW_1, "cnn-32-128")
    )
    plan = LadderPlan(entries, 0, data, "cpu", "float32", 1, FOLDER, 0)
    cheap, dear = plan.jobs()
    store = TrainingStore(FOLDER / "trainings.jsonl")
    waiting = _LadderTrainings(
        store, lambda: CurvePool(1), StopFlag(), lambda _line: None, 2, missing=[cheap, dear]
    )
    assert waiting.seconds_left() is None
    store.add(
        StoredTraining(
            key=TrainingKey.of(cheap.training),
            curve=tuple(curve(cheap.training)),
            seconds=1.0,
            weights_sha256="0",
            versions={},
            commit=None,
            ended="",
        )
    )
    waiting._epochs = [time.monotonic() - 10.0]
    left = waiting.seconds_left()
    waiting._restored = {cheap.label: 2}  # of its three epochs only one took these ten seconds
    went_on = waiting.seconds_left()
    assert went_on == pytest.approx(3 * left, rel=0.01)
    assert left is not None
    assert left > 10.0 * 10  # 62 million multiply-accumulates against half a million
