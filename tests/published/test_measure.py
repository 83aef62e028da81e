"""Presets trained, tested and stored: what is finished is neither trained nor tested again."""

import fcntl
import io
import json
import statistics
import threading
from typing import Any

import pytest

from mc1opt.data import images as images_module
from mc1opt.dataset import CIFAR10_SHAPE, DataSet
from mc1opt.errors import DataError, Mc1optError, UsageError, WorkerError
from mc1opt.machine.memory import evaluation_memory, training_memory
from mc1opt.measurement.plan import Plan
from mc1opt.measurement.store import TrainingKey
from mc1opt.presets import PRESETS
from mc1opt.published import measure
from mc1opt.published.measure import (
    Entry,
    chosen_presets,
    entry_jobs,
    make_plan,
    measure_entries,
    preset_entry,
)
from mc1opt.published.results import seed_value
from mc1opt.spec import Fold
from mc1opt.workers import engine
from mc1opt.workers.engine import Engine
from mc1opt.workers.stop import StopFlag
from tests.support.curves import CurvePool, Switches, curve
from tests.support.measuring import (
    FOLDER,
    ROW_1,
    ROW_2,
    curve_decisions,
    expected_accuracies,
    measured,
    preset_images,
    run,
    training_of,
)

DEEP = "cnn-deep"
GIGABYTE = 10**9


@pytest.fixture
def data() -> DataSet:
    return preset_images()


def openings() -> list[dict[str, str]]:
    path = FOLDER / ROW_1 / "test_openings.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def trainings() -> list[dict[str, Any]]:
    path = FOLDER / "trainings.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def begun(switches: Switches) -> list[tuple[int, int]]:
    """Index of the seed and epoch of all epochs that were begun."""
    numbers = {seed_value(seed): seed for seed in range(10)}
    return [(numbers[epoch["seed"]], epoch["epoch"]) for epoch in switches.epochs()]


# ---- The plan --------------------------------------------------------------------------------------------


def entry(name: str = ROW_1, recipe: Any = "published", epochs: int | None = 3) -> Entry:
    return preset_entry(PRESETS[name], recipe, seeds=2, epochs=epochs)


def plan(data: DataSet, *entries: Entry, **changes: Any) -> Plan:
    fields: dict[str, Any] = {"folds": 0, "data": data, "device": "cpu", "workers": "1", "folder": FOLDER}
    fields |= changes
    return make_plan(entries or [entry()], engine=Engine(fields.pop("workers")), **fields)


def test_entries_are_trained_on_all_images_with_the_same_seeds_and_no_file_or_key_twice(
    data: DataSet,
) -> None:
    entries = [entry(), entry(recipe="mc1opt"), entry(epochs=4), entry(ROW_2)]
    made = plan(data, *entries, folds=2)
    for one in entries:
        jobs = entry_jobs(made, one)
        assert [job.label for job in jobs] == [
            f"{one.name} ({one.recipe}) {part}" for part in ("seed 1", "seed 2", "fold 1", "fold 2")
        ]
        assert [job.training.seed for job in jobs] == [seed_value(seed) for seed in (0, 1, 0, 0)]
        assert [job.training.data.validation_images for job in jobs] == [0, 0, 20, 20]
    trained = [job.training for one in entries for job in entry_jobs(made, one)]
    assert len({TrainingKey.of(training) for training in trained}) == len(trained)
    assert len({training.weights for training in trained if training.weights}) == len(trained) // 2
    assert seed_value(0) != seed_value(1)


@pytest.mark.parametrize("recipe", ["published", "mc1opt"])
def test_epochs_are_the_recipes_default_or_those_that_are_given(recipe: Any) -> None:
    assert entry(recipe=recipe, epochs=None).epochs == PRESETS[ROW_1].epochs[recipe]
    assert entry(recipe=recipe, epochs=7).epochs == 7


def test_presets_are_named_once_each_or_all() -> None:
    chosen = chosen_presets([ROW_2, ROW_1, ROW_2], everything=False)
    assert [preset.name for preset in chosen] == [ROW_2, ROW_1]
    assert [preset.row for preset in chosen_presets([], everything=True)] == list(range(1, 12))


# ---- Memory ----------------------------------------------------------------------------------------------


def with_free_memory(patch: pytest.MonkeyPatch, data: DataSet, trainings: float, name: str = DEEP) -> None:
    """So much is free that so many trainings of a preset fit, and its test."""
    config = PRESETS[name].config
    each = training_memory(
        config,
        CIFAR10_SHAPE,
        train_images=data.train_images,
        validation_images=0,
        device="cpu",
        precision="float32",
    )
    once = evaluation_memory(config, CIFAR10_SHAPE, 10_000, "cpu").host
    patch.setattr(measure, "available_memory", lambda: int(once + trainings * each.host))
    patch.setattr(measure, "resolve_precision", lambda _device: "float32")


def test_the_largest_preset_must_fit_into_memory(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free_memory(monkeypatch, data, 1.1, ROW_1)
    assert plan(data).workers == 1
    with pytest.raises(Mc1optError, match=r"cnn-deep \(54,093,194 parameters\)") as caught:
        plan(data, entry(), entry(DEEP))
    assert caught.value.exit_code == 1


def test_as_many_workers_as_fit_and_there_are_cpus(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free_memory(monkeypatch, data, 2.5)
    assert plan(data, entry(DEEP), workers="2").workers == 2
    with pytest.raises(UsageError, match=r"--workers 3 .*--workers 2\b"):
        plan(data, entry(DEEP), workers="3")
    monkeypatch.setattr(engine, "default_workers", lambda *_, **__: 4)
    for free, workers in ((1.5, 1), (3.5, 3), (100, 4)):
        with_free_memory(monkeypatch, data, free)
        assert plan(data, entry(DEEP), workers="auto").workers == workers


def test_on_a_gpu_its_own_memory_counts_too(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def auto(*names: str) -> int:
        return plan(data, *map(entry, names), device="cuda", workers="auto").workers

    with_free_memory(monkeypatch, data, 100)
    monkeypatch.setattr(measure, "free_device_memory", lambda: 8 * GIGABYTE)
    assert plan(data, entry(DEEP), device="cuda", workers="2").workers == 2
    with pytest.raises(UsageError, match=r"--workers 32 .* GPU memory"):
        plan(data, entry(DEEP), device="cuda", workers="32")
    monkeypatch.setattr(measure, "free_device_memory", lambda: 3 * GIGABYTE)
    # What takes the most of the GPU's memory need not be what takes the most of the host's.
    names = ("cnn-6-16-fc", "cnn-32-128")
    assert auto(*names) == min(map(auto, names))
    monkeypatch.setattr(measure, "free_device_memory", lambda: GIGABYTE)
    with pytest.raises(Mc1optError, match="GPU memory"):
        auto(DEEP)


# ---- To the end ------------------------------------------------------------------------------------------


def test_each_seed_trains_on_all_images_and_is_tested_once(data: DataSet) -> None:
    (found,) = measured(ROW_1, seeds=4)
    assert list(found.accuracies) == expected_accuracies(ROW_1, 4, data)
    assert found.spread.mean == pytest.approx(statistics.fmean(found.accuracies))
    assert found.spread.std == pytest.approx(statistics.stdev(found.accuracies))
    assert len(set(found.accuracies)) > 1
    assert sorted(opening["reason"] for opening in openings()) == [
        f"presets: {ROW_1} (published) seed {seed}, 3 epochs" for seed in (1, 2, 3, 4)
    ]
    assert all(line["weights_sha256"] for line in trainings())
    assert list(FOLDER.rglob("*.safetensors")) == []  # they are tested


def test_recipes_and_epochs_are_measured_apart(data: DataSet) -> None:
    (published,) = measured(ROW_1)
    (better,) = measured(ROW_1, recipe="mc1opt")
    (longer,) = measured(ROW_1, epochs=5)
    assert list(better.accuracies) == expected_accuracies(ROW_1, 3, data, recipe="mc1opt")
    assert len({found.accuracies for found in (published, better, longer)}) == 3
    assert (published.epochs, longer.epochs) == (3, 5)


def test_folds_tell_the_spread_over_images_apart_from_that_over_seeds(data: DataSet) -> None:
    (found,) = measured(ROW_1, folds=4)
    assert found.fold_accuracies == [
        curve(training_of(ROW_1, 0, data, fold=Fold(index=index, count=4)))[-1].accuracy for index in range(4)
    ]
    mean = statistics.fmean(found.fold_accuracies)
    assert found.std_by_chance == pytest.approx((mean * (1 - mean) / 50) ** 0.5)
    assert len(openings()) == 3


def test_progress_names_each_training_and_its_test(data: DataSet) -> None:
    output = io.StringIO()
    run(ROW_1, output=output, workers="1")
    plan_line, trained, tested, *_ = output.getvalue().splitlines()
    for part in (f"{ROW_1} (published)", "3 trainings", "200 images", "1 worker on cpu"):
        assert part in plan_line
    assert trained.startswith(f"1/3  {ROW_1} (published) seed 1: ")
    assert tested.startswith(f"{ROW_1} (published) seed 1: ")
    assert tested.endswith(f"{expected_accuracies(ROW_1, 1, data)[0]:.4f}")


# ---- Again -----------------------------------------------------------------------------------------------


def test_what_is_tested_is_neither_trained_nor_tested_again(data: DataSet, switches: Switches) -> None:
    first = measured(ROW_1, folds=3)
    count = len(switches.epochs())

    def no_pool(size: int) -> CurvePool:
        raise AssertionError("a pool was made")

    output = io.StringIO()
    assert measured(ROW_1, folds=3, new_pool=no_pool, output=output) == first
    assert (len(switches.epochs()), len(openings())) == (count, 3)
    assert "stored already: 6." in output.getvalue()


def test_more_seeds_later_train_only_what_is_missing(data: DataSet, switches: Switches) -> None:
    measured(ROW_1, seeds=2)
    (found,) = measured(ROW_1, seeds=4)
    assert list(found.accuracies) == expected_accuracies(ROW_1, 4, data)
    assert sorted(begun(switches)) == [(seed, epoch) for seed in range(4) for epoch in range(3)]


def test_a_stopped_run_goes_on_to_the_same_numbers(data: DataSet, switches: Switches) -> None:
    whole = [*measured(ROW_1, workers="3"), *measured(ROW_2)]
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
    output = io.StringIO()
    (_, first), (_, second) = run(ROW_1, ROW_2, stop=stop, workers="1", output=output)
    thread.join()
    assert "Stopped by SIGINT" in output.getvalue()
    assert first is not None
    assert len(first.tested) == 1
    assert second is None
    switches.clear()
    resumed = measured(ROW_1, ROW_2, workers="1")  # other workers than before, which changes nothing
    assert [found.accuracies for found in resumed] == [found.accuracies for found in whole]
    assert [pair for pair in begun(switches) if pair[0] == 0] == [(0, epoch) for epoch in range(3)] * 2


def test_training_does_without_the_test_images_and_is_tested_when_they_can_be_opened(
    data: DataSet, switches: Switches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise DataError("the test images are damaged")

    with monkeypatch.context() as patch:
        patch.setattr(images_module, "open_test_images", refuse)
        with pytest.raises(DataError, match="test images"):
            run(ROW_1, seeds=1)
    (found,) = measured(ROW_1, seeds=1)
    assert list(found.accuracies) == expected_accuracies(ROW_1, 1, data)
    assert begun(switches) == [(0, epoch) for epoch in range(3)]


def test_a_test_result_that_was_lost_is_found_again(data: DataSet, switches: Switches) -> None:
    (first,) = measured(ROW_1, seeds=1)
    (FOLDER / ROW_1 / "test_results.jsonl").unlink()
    (second,) = measured(ROW_1, seeds=1)
    assert second.accuracies == first.accuracies
    assert len(begun(switches)) == 6  # its weights were deleted


# ---- Failures --------------------------------------------------------------------------------------------


def test_a_seed_that_diverges_is_counted_and_the_others_stand(data: DataSet, switches: Switches) -> None:
    switches.add("diverge", seed=seed_value(1), epoch=1)
    (found,) = measured(ROW_1)
    expected = expected_accuracies(ROW_1, 3, data)
    assert list(found.accuracies) == [expected[0], expected[2]]
    assert [each.failure.kind for each in found.failures] == ["diverged"]
    assert len(openings()) == 2
    switches.clear()
    assert measured(ROW_1) == [found]


def test_results_are_passed_on_also_where_they_were_stored(data: DataSet, switches: Switches) -> None:
    switches.add("diverge", seed=seed_value(1), epoch=1)
    found: list[tuple[str, int, float | None]] = []
    for _ in range(2):
        measure_entries(
            [entry()],
            plan(data, entry()),
            stop=StopFlag(),
            write=lambda _line: None,
            new_pool=CurvePool,
            measure=curve_decisions,
            on_result=lambda entry, seed, _stored, accuracy: found.append((entry.name, seed, accuracy)),
        )
    (accuracy,) = expected_accuracies(ROW_1, 1, data)
    assert found == [(ROW_1, 0, accuracy), (ROW_1, 1, None)] * 2


def test_a_failure_of_the_world_keeps_the_others_and_is_tried_again(
    data: DataSet, switches: Switches
) -> None:
    switches.add("kill", seed=seed_value(1), epoch=1, times=1)
    with pytest.raises(WorkerError, match=r"seed 2 \(killed\)"):
        run(ROW_1)
    assert len(trainings()) == 2
    (found,) = measured(ROW_1)
    assert list(found.accuracies) == expected_accuracies(ROW_1, 3, data)


def test_a_failure_of_the_world_is_named_also_where_the_time_is_up_before_the_end(
    data: DataSet, switches: Switches
) -> None:
    switches.add("kill", seed=seed_value(0), epoch=1, times=1)
    switches.add("hang", seed=seed_value(1))
    output, stop = io.StringIO(), StopFlag()
    run(ROW_1, timeout=3.0, output=output, stop=stop)
    assert stop.reason == "timeout"
    assert "seed 1 (killed)" in output.getvalue()


def test_two_processes_at_once_are_refused(data: DataSet) -> None:
    FOLDER.mkdir(parents=True)
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another process, in storage/presets"):
            run(ROW_1)
    run(ROW_1, seeds=1)
