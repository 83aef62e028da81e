"""An explanation from its plan to its file, on learning curves: what it trains, reuses and stores."""

import io
import json
import statistics
import threading
from collections import Counter
from typing import Any

import pytest

from mc1opt.config import Config, config_from_json, config_id
from mc1opt.data import images as images_module
from mc1opt.database.records import StudyRecord
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.errors import StorageError, UsageError
from mc1opt.explanation.explain import stopped_json
from mc1opt.explanation.groups import Differences
from mc1opt.explanation.result import FILE, Explanation, read_explanation
from mc1opt.files import exclusive, read_lines
from mc1opt.measurement.store import TRAININGS
from mc1opt.metric import Aim, known_metric
from mc1opt.presets import get_preset
from mc1opt.seeds import retrain_seed
from mc1opt.spec import Training
from mc1opt.workers.stop import StopFlag
from tests.support.curves import CurvePool, Switches, curve
from tests.support.explaining import FOLDER, PRESET, explain_curves, explainable, explainable_folder
from tests.support.retraining import MODELS, STORAGE, curve_study, small_images
from tests.support.studies import SEED, small_space

__all__ = ["explainable", "explainable_folder"]

SEEDS = [retrain_seed(SEED, index) for index in range(3)]


def explained(**options: Any) -> Explanation:
    result = explain_curves(source=PRESET, **options)
    assert result is not None
    return result


def without_seconds(result: Explanation) -> dict[str, Any]:
    return {name: value for name, value in result.to_json().items() if name != "seconds"}


def values_of(record: StudyRecord, config: Config) -> list[float]:
    """What the trainings of a config end with."""
    assert record.fidelity is not None
    data, fidelity = small_images(), record.fidelity
    trainings = [Training(config=config, fidelity=fidelity, seed=seed, data=data) for seed in SEEDS]
    return [curve(training)[-1].accuracy for training in trainings]


def trained(switches: Switches) -> Counter[tuple[str, int]]:
    """How often each training began, by config and seed."""
    begun = [(epoch["config_id"], epoch["seed"]) for epoch in switches.epochs() if epoch["epoch"] == 0]
    return Counter(begun)


# ---- To the end ------------------------------------------------------------------------------------------


def test_the_path_leads_from_the_preset_to_the_best_trial(explainable: StudyRecord) -> None:
    result = explained()
    best = explainable.best
    assert best is not None
    assert (result.source, result.target) == (f"preset {PRESET}", f"#{best.number}")
    assert (result.steps[0].group, result.steps[-1].config_id) == ("source", best.config_id)
    assert result.steps[0].config_id == config_id(get_preset(PRESET).config)
    groups = [step.group for step in result.steps[1:]]
    assert sorted(groups) == ["optimizer", "recipe", "widths"]
    assert sorted(step.group for step in result.leave_one_out) == sorted(groups)
    assert result.steps[1].others.keys() == set(groups) - {groups[0]}
    assert result.inseparable == ()
    assert (result.metric, result.direction, result.is_share) == ("accuracy", "maximize", True)


def test_numbers_are_those_of_the_searchs_own_trainings_with_new_seeds(explainable: StudyRecord) -> None:
    result = explained()
    best = explainable.best
    assert best is not None
    assert best.config is not None
    source, target = get_preset(PRESET).config, config_from_json(best.config)
    means = [statistics.fmean(values_of(explainable, config)) for config in (source, target)]
    assert [result.steps[0].mean, result.steps[-1].mean] == pytest.approx(means)
    assert result.total == pytest.approx(means[1] - means[0])
    gains = [step.difference for step in result.steps[1:]]
    assert sum(gain or 0.0 for gain in gains) == pytest.approx(result.total)
    assert result.steps[0].difference is None
    between = Differences(source, target, CIFAR10_SHAPE)
    for step in result.leave_one_out:
        mean = statistics.fmean(values_of(explainable, between.without[step.group]))
        assert step.mean == pytest.approx(mean)
        assert step.difference == pytest.approx(mean - means[1])
    losses = [step.difference or 0.0 for step in result.leave_one_out]
    assert losses == sorted(losses)
    for step in (*result.steps[1:], *result.leave_one_out):
        assert step.n == 3
        assert step.difference_interval is not None
        assert statistics.fmean(step.difference_interval) == pytest.approx(step.difference)
    assert result.trainings == len(read_lines(FOLDER / TRAININGS)) == 24
    assert result.steps[0].parameters == get_preset(PRESET).parameters


def test_the_explanation_is_stored_and_read_again(explainable: StudyRecord) -> None:
    assert read_explanation(STORAGE, explainable) is None
    result = explained()
    assert read_explanation(STORAGE, explainable) == result
    assert json.loads((FOLDER / FILE).read_text()) == json.loads(json.dumps(result.to_json()))


def test_the_test_images_stay_closed(explainable: StudyRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("the test images were opened")

    monkeypatch.setattr(images_module, "open_test_images", opened)
    explained()
    assert sorted(path.name for path in MODELS.iterdir()) == ["explanation"]


def test_more_workers_change_nothing(explainable: StudyRecord) -> None:
    results = []
    for workers in ("1", "5"):
        results.append(without_seconds(explained(workers=workers)))
        (FOLDER / TRAININGS).unlink()
    assert results[0] == results[1]


def test_of_a_metric_to_minimise_the_lowest_is_best() -> None:
    curve_study(search_space=small_space, aim=Aim(metric=known_metric("log_loss")))
    result = explained()
    assert (result.direction, result.is_share) == ("minimize", False)
    first = result.steps[1]
    assert all(first.mean <= (mean or 9.0) for mean in first.others.values() if first.mean is not None)
    losses = [step.difference or 0.0 for step in result.leave_one_out]
    assert losses == sorted(losses, reverse=True)


# ---- Stopped, and what is stored already -----------------------------------------------------------------


@pytest.mark.parametrize("trainings", [1, 7, 20])
def test_after_a_stop_it_is_the_same_explanation_and_nothing_is_trained_twice(
    explainable: StudyRecord, switches: Switches, trainings: int
) -> None:
    stop = StopFlag()
    output = io.StringIO()

    def stopping(size: int) -> CurvePool:
        def wait() -> None:
            switches.wait_for_epochs(4 * trainings)
            stop.set("signal", "SIGINT")

        threading.Thread(target=wait).start()
        return CurvePool(size)

    switches.add("sleep", epoch=0, value=0.03)
    assert explain_curves(source=PRESET, stop=stop, output=output, new_pool=stopping, workers="1") is None
    assert read_explanation(STORAGE, explainable) is None
    kept = len(read_lines(FOLDER / TRAININGS))
    assert kept < 24
    switches.clear()
    again = explained()
    assert len(read_lines(FOLDER / TRAININGS)) == again.trainings
    stored = {(line["key"]["config_id"], line["key"]["seed"]) for line in read_lines(FOLDER / TRAININGS)}
    begun = trained(switches)
    assert begun.keys() == stored
    assert sum(begun.values()) <= len(stored) + 1  # the one that was stopped
    (FOLDER / TRAININGS).unlink()
    assert without_seconds(explained()) == without_seconds(again)


def test_asked_again_it_trains_nothing(explainable: StudyRecord, switches: Switches) -> None:
    first = explained()
    begun = trained(switches)
    output = io.StringIO()
    assert explained(output=output) == first
    assert trained(switches) == begun
    assert "stored already: 24" in output.getvalue()


def test_a_training_of_a_retraining_is_taken_over(explainable: StudyRecord, switches: Switches) -> None:
    first = explained()
    (FOLDER / TRAININGS).rename(MODELS / TRAININGS)
    before = (MODELS / TRAININGS).read_bytes()
    begun = trained(switches)
    assert explained() == first
    assert trained(switches) == begun
    assert (MODELS / TRAININGS).read_bytes() == before


def test_other_seeds_of_the_same_configs_are_added(explainable: StudyRecord, switches: Switches) -> None:
    explained(seeds=2)
    explained(seeds=3)
    assert set(trained(switches).values()) == {1}
    assert {seed for _, seed in trained(switches)} == set(SEEDS)


# ---- Failures --------------------------------------------------------------------------------------------


def test_a_training_that_diverges_does_not_end_the_explanation(
    explainable: StudyRecord, switches: Switches
) -> None:
    whole = explained()
    (FOLDER / TRAININGS).unlink()
    first = whole.steps[1]
    switches.add("diverge", config_id=first.config_id, seed=SEEDS[1])
    result = explained()
    assert result.steps[1].group != first.group
    assert result.steps[-1].config_id == whole.steps[-1].config_id
    failed = [step for step in (*result.steps, *result.leave_one_out) if step.failures]
    assert all((step.config_id, step.n) == (first.config_id, 2) for step in failed)
    assert first.group in result.steps[1].others


def test_where_the_source_diverges_its_differences_are_not_known(
    explainable: StudyRecord, switches: Switches
) -> None:
    switches.add("diverge", config_id=config_id(get_preset(PRESET).config))
    result = explained()
    assert (result.steps[0].mean, result.steps[0].n, result.steps[0].failures) == (None, 0, 3)
    assert (result.total, result.total_interval, result.steps[1].difference) == (None, None, None)
    assert result.steps[2].difference is not None
    assert read_explanation(STORAGE, explainable) == result


# ---- Wrong use -------------------------------------------------------------------------------------------


def test_two_processes_do_not_explain_a_study_at_once(explainable: StudyRecord) -> None:
    with exclusive(FOLDER, "busy"), pytest.raises(UsageError, match="'s' is being explained"):
        explained()


def test_a_result_that_cannot_be_stored_is_said_and_its_trainings_stay(
    explainable: StudyRecord,
) -> None:
    (FOLDER / FILE).mkdir(parents=True)
    with pytest.raises(StorageError, match=FILE):
        explained()
    assert len(read_lines(FOLDER / TRAININGS)) == 24


def test_the_json_of_a_stopped_explanation_has_no_steps() -> None:
    assert stopped_json("s", "timeout") == {
        "study": "s",
        "stopped": "timeout",
        "steps": None,
        "leave_one_out": None,
    }
