"""A retraining from its candidates to its model, on learning curves: what it trains, tests, keeps."""

import fcntl
import io
import json
import re
import statistics
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
from safetensors.numpy import load_file

from mc1opt.config import Config, config_id
from mc1opt.data import images as images_module
from mc1opt.database.records import StudyRecord
from mc1opt.database.studies import claim_study
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.errors import Mc1optError, UsageError
from mc1opt.files import read_lines
from mc1opt.machine import resources
from mc1opt.measurement import trainings
from mc1opt.measurement.plan import memory_needs
from mc1opt.measurement.store import TRAININGS, TrainingStore
from mc1opt.models.cost import cost
from mc1opt.retraining import retrain as retrain_module
from mc1opt.retraining import size
from mc1opt.retraining.comparison import choose_candidates
from mc1opt.retraining.report import Retraining, command_lines
from mc1opt.seeds import derive_seed
from mc1opt.spec import Fidelity, Fold, Precision, Training
from mc1opt.training.model_folder import read_model_folder
from mc1opt.workers.stop import StopFlag
from tests.support.command import files_below
from tests.support.curves import Switches, curve
from tests.support.pages import Pages
from tests.support.retraining import (
    MODELS,
    STORAGE,
    STUDY,
    TRIALS,
    curve_study,
    retrain_curves,
    retrainable,
    retrainable_folder,
    small_images,
)
from tests.support.studies import SEED

__all__ = ["retrainable", "retrainable_folder"]

SEEDS = [derive_seed(SEED, "retrain", index) for index in range(3)]


def retrained(**options: Any) -> Retraining:
    result = retrain_curves(**options)
    assert result is not None
    return result


def ranking(record: StudyRecord) -> list[int]:
    """The trials, the best first."""
    return sorted(range(TRIALS), key=lambda number: -(record.trials[number].value or 0.0))


def accuracy(config: Config, images: int, seed: int, fold: Fold | None = None) -> float:
    """What a training ends with."""
    fidelity, data = Fidelity(train_images=images, epochs=3), small_images()
    return curve(Training(config=config, fidelity=fidelity, seed=seed, data=data, fold=fold))[-1].accuracy


def facts(result: Retraining) -> dict[str, Any]:
    """What a retraining found, without times and what depends on how it was started."""
    printed = result.to_json()
    for name in ("seconds", "training_seconds", "planned_seconds", "workers", "command"):
        del printed[name]
    del printed["test"]["time"]
    return printed


def lines_of(name: str) -> list[dict[str, Any]]:
    """The records in a file of the models' folder."""
    return read_lines(MODELS / name)


def openings() -> list[dict[str, Any]]:
    return lines_of("test_openings.jsonl")


def epochs_by_training(switches: Switches) -> dict[tuple[str, int], list[int]]:
    """The epochs that were begun, by config and seed."""
    found: dict[tuple[str, int], list[int]] = {}
    for epoch in switches.epochs():
        found.setdefault((epoch["config_id"], epoch["seed"]), []).append(epoch["epoch"])
    return found


# ---- To the end ------------------------------------------------------------------------------------------


def test_the_best_configs_compete_at_full_fidelity_and_the_best_mean_wins(retrainable: StudyRecord) -> None:
    result = retrained()
    printed = result.to_json()
    assert [entry["trial"] for entry in printed["candidates"]] == ranking(retrainable)[:3]
    means = {}
    for entry, candidate in zip(printed["candidates"], result.plan.candidates, strict=True):
        expected = {str(seed): accuracy(candidate.config, 180, seed) for seed in SEEDS}
        assert entry["validation"] == expected
        means[entry["trial"]] = statistics.fmean(expected.values())
    assert printed["winner"]["trial"] == max(means, key=lambda number: means[number])
    assert printed["optimism"]["validation_in_search"] == retrainable.trials[printed["winner"]["trial"]].value
    assert printed["optimism"]["validation_retrained"] == pytest.approx(max(means.values()))
    assert printed["optimism"]["test"] == printed["test"]["mean"] == pytest.approx(0.8)


def test_the_winner_trains_on_all_images_once_a_seed_and_the_first_ones_model_is_kept(
    retrainable: StudyRecord,
) -> None:
    result = retrained()
    lines = lines_of(TRAININGS)
    finals = [line for line in lines if line["key"]["validation_images"] == 0]
    assert len(lines) == 12
    assert [line["key"]["fidelity"]["train_images"] for line in finals] == [200] * 3
    assert {line["key"]["seed"] for line in finals} == set(SEEDS)
    assert {line["key"]["config_id"] for line in finals} == {result.winner.candidate.config_id}
    assert all(epoch["validation_accuracy"] is None for line in finals for epoch in line["curve"])
    first = next(line for line in finals if line["key"]["seed"] == SEEDS[0])
    folder = read_model_folder(MODELS)
    assert folder.weights_sha256 == first["weights_sha256"]
    assert config_id(folder.config) == result.winner.candidate.config_id
    assert len(list((MODELS / "weights").glob("*.safetensors"))) == 3
    assert "validation_accuracy" in load_file(folder.weights)
    assert folder.metrics == json.loads(json.dumps(result.to_json()))
    assert (MODELS / "model_card.md").is_file()


def test_without_epochs_wider_forms_compete_and_the_winners_is_the_model(
    retrainable: StudyRecord, switches: Switches
) -> None:
    result = retrained(epochs=None, budget=1.0)
    assert {name for name in result.comparison.standings if name.endswith(" wider")}
    found, final = result.winner.candidate.config, result.final
    assert cost(found.architecture, CIFAR10_SHAPE).macs < cost(final.config.architecture, CIFAR10_SHAPE).macs
    folder = read_model_folder(MODELS)
    assert folder.config == final.config
    assert folder.metrics["winner"]["config_id"] == config_id(found)
    assert folder.metrics["winner"]["trained_config_id"] == config_id(final.config)
    assert folder.metrics["epochs"] == final.epochs > folder.metrics["compared_epochs"]
    count = len(switches.epochs())
    assert facts(retrained(epochs=None, budget=1.0)) == facts(result)
    assert len(switches.epochs()) == count  # what was chosen is remembered


def test_the_number_of_workers_changes_nothing_but_the_time(retrainable: StudyRecord) -> None:
    first = facts(retrained(workers="1"))
    for name in ("trainings.jsonl", "test_results.jsonl", "test_openings.jsonl"):
        (MODELS / name).unlink()
    assert facts(retrained(workers="3")) == first


def test_as_many_trainings_at_once_as_memory_holds_of_the_largest_candidate(
    retrainable: StudyRecord, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [candidate.config for candidate in choose_candidates(retrainable, top=3)]
    each = max(need.host for need in memory_needs(configs, small_images(), "cpu", precision))
    monkeypatch.setattr(resources, "available_cpus", lambda *_: 64)
    monkeypatch.setattr(resources, "available_memory", lambda *_: 20 * each + 1)
    assert 20 * each // resources.WORKER_MEMORY != 20
    assert retrained(seeds=1, workers="auto").plan.workers == 20


def test_folds_are_added_to_a_finished_retraining_and_stay_with_its_model(
    retrainable: StudyRecord, switches: Switches
) -> None:
    first = retrained()
    count = len(switches.epochs())
    second = retrained(folds=4)
    config = first.winner.candidate.config
    expected = [accuracy(config, 150, SEEDS[0], Fold(index=index, count=4)) for index in range(4)]
    folds = second.to_json()["folds"]
    assert folds["validation"] == expected
    assert folds["std"] == pytest.approx(statistics.stdev(expected))
    assert folds["std_over_seeds"] == statistics.stdev(first.winner.values.values())
    assert facts(retrained()) == facts(second)  # without --folds
    assert second.test.confusions == first.test.confusions
    assert (len(switches.epochs()), len(openings())) == (count + 4 * 3, 1)
    assert "4 stratified folds" in (MODELS / "model_card.md").read_text()
    assert retrained(seeds=2, force=True).fold_values == []  # another retraining, which had none


def test_a_clearly_worse_candidate_stops_early_and_the_output_says_by_which_test(switches: Switches) -> None:
    record = curve_study(small_images(1000))
    best, *_, worst = ranking(record)
    assert record.trials[best].value - record.trials[worst].value > 0.2
    output = io.StringIO()
    result = retrained(top=TRIALS, seeds=5, output=output, workers="1")
    entry = next(e for e in result.to_json()["candidates"] if e["trial"] == worst)
    assert 3 <= entry["stopped"]["after_seeds"] < 5
    assert entry["stopped"]["p"] < 0.05
    assert len(entry["validation"]) == entry["stopped"]["after_seeds"]
    assert re.search(rf"^#{worst} stops early.*paired t test", output.getvalue(), re.MULTILINE)
    assert len([key for key in epochs_by_training(switches) if key[0] == entry["config_id"]]) == 1 + len(
        entry["validation"]
    )
    stopped = [e for e in result.to_json()["candidates"] if e["stopped"] is not None]
    spared = sum(5 - e["stopped"]["after_seeds"] for e in stopped)
    again = io.StringIO()
    retrained(top=TRIALS, seeds=5, output=again, workers="1")
    counts = [int(n) for n in re.findall(r"(?:stored already|early stopping): (\d+)", again.getvalue())]
    assert sum(counts) == (TRIALS + 1) * 5
    # Before the verdict was heard, a training may have come to its end.
    assert spared - 1 <= counts[1] <= spared


def test_a_finished_retraining_times_no_epochs_on_another_kind_of_machine(
    retrainable: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(size, "versions", lambda *_: {"cpu": "AVX9000", "precision": "float32"})
    for timed in (True, False):
        output = io.StringIO()
        retrained(output=output)
        assert ("timing an epoch" in output.getvalue()) == timed


# ---- The test images -------------------------------------------------------------------------------------


def test_nothing_but_the_last_step_opens_the_test_images(
    retrainable: StudyRecord, switches: Switches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Search, comparison, final trainings and folds go through with images whose opening raises."""

    def refuse(*_: object) -> None:
        raise AssertionError("the test images were opened")

    with monkeypatch.context() as patch:
        patch.setattr(images_module, "open_test_images", refuse)
        curve_study(trials=TRIALS + 1)
        with pytest.raises(AssertionError, match="the test images were opened"):
            retrain_curves(folds=3)
    assert len(lines_of(TRAININGS)) == 3 * 3 + 3 + 3
    assert not (MODELS / "model.safetensors").exists()
    count = len(switches.epochs())
    retrained(folds=3)
    assert len(switches.epochs()) == count


def test_asking_again_for_what_is_finished_changes_nothing(
    retrainable: StudyRecord, switches: Switches, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = retrained(workers="1", command="mc1opt retrain --workers 1")
    (opening,) = openings()
    assert opening["reason"] == f"retrain of study s: config {first.winner.candidate.config_id}, 3 seeds"
    before, count = files_below(MODELS), len(switches.epochs())
    monkeypatch.setattr(trainings, "versions", lambda *_: {"torch": "99.0"})
    monkeypatch.setattr(trainings, "commit", lambda: "later")
    output = io.StringIO()
    again = retrained(workers="2", command="mc1opt retrain --json", output=output)
    assert facts(again) == facts(first)
    seconds = sum(training.seconds for training in TrainingStore(MODELS / TRAININGS))
    assert again.training_seconds == first.training_seconds == pytest.approx(seconds)
    assert (files_below(MODELS), len(switches.epochs())) == (before, count)
    assert "stay closed" in output.getvalue()
    assert "stored already: 12." in output.getvalue()
    for name in ("labels.json", "model_card.md", "model.safetensors"):  # not whole any more
        (MODELS / name).unlink()
        retrained()
        assert (MODELS / name).is_file(), name
    fewer = retrained(seeds=2, force=True)  # with the same training of the first seed
    assert (fewer.kept.versions, fewer.kept.commit) == (first.kept.versions, first.kept.commit)
    assert len(retrained(epochs=2, force=True).test.opened_before) == 1
    assert "Earlier openings" in (MODELS / "model_card.md").read_text()


def test_trainings_in_smaller_steps_are_named(retrainable: StudyRecord, switches: Switches) -> None:
    switches.add("out_of_memory", seed=SEEDS[0], epoch=1, times=1)  # of a candidate
    output = io.StringIO()
    result = retrained(top=1, seeds=2, workers="1", output=output)
    number = result.winner.candidate.trial
    name = f"#{number} seed 1"
    assert list(result.smaller_steps) == [name]
    steps = result.smaller_steps[name]
    assert steps > 1
    assert f"{name} in {steps}." in output.getvalue()
    assert f"{name} in {steps}." in (MODELS / "model_card.md").read_text()
    assert read_model_folder(MODELS).metrics["smaller_steps"] == {name: steps}
    assert read_model_folder(MODELS).metrics["accumulation"] == 1


def test_a_copys_retraining_leaves_the_originals_model_and_needs_no_training_twice(
    retrainable: StudyRecord, switches: Switches
) -> None:
    claim_study(STORAGE, STUDY)
    first = retrained(top=1)
    before, count = files_below(MODELS), len(switches.epochs())
    url = f"sqlite:///{STORAGE}"
    optuna.copy_study(from_study_name=STUDY, from_storage=url, to_storage=url, to_study_name="copy")
    copied = retrained(top=1, study="copy")
    assert copied.plan.folder == MODELS.with_name("copy")
    assert (copied.winner.candidate.trial, read_model_folder(copied.plan.folder).metrics["study"]) == (
        first.winner.candidate.trial,
        "copy",
    )
    assert files_below(MODELS) == before
    record = "test_openings.jsonl"
    assert (copied.plan.folder / record).read_bytes() == (MODELS / record).read_bytes()
    # Only on all images, for the weights, which are the original's; they come out the same, and were tested.
    assert len(switches.epochs()) - count == 3 * 3


def test_a_renamed_study_goes_on_with_its_retraining(retrainable: StudyRecord, switches: Switches) -> None:
    retrained(top=1)
    count = len(switches.epochs())
    Pages(STORAGE).rename(STUDY, "final")
    assert retrained(top=1, study="final").plan.folder == MODELS
    assert len(switches.epochs()) == count


# ---- Stopped and gone on with ----------------------------------------------------------------------------


def test_a_stopped_retraining_goes_on_without_repeating_what_is_finished(
    retrainable: StudyRecord, switches: Switches
) -> None:
    whole = facts(retrained())
    for name in ("trainings.jsonl", "test_results.jsonl", "test_openings.jsonl", "model.safetensors"):
        (MODELS / name).unlink()
    (switches.folder / "epochs.jsonl").unlink()
    switches.add("hang", seed=SEEDS[1], epoch=2)
    stop = StopFlag()

    def stop_soon() -> None:
        switches.wait_for_epochs(9 + 3)
        stop.set("signal", "SIGINT")

    thread = threading.Thread(target=stop_soon)
    thread.start()
    output = io.StringIO()
    assert retrain_curves(stop=stop, output=output, workers="1") is None
    thread.join()
    assert "SIGINT" in output.getvalue()
    assert openings() == []
    finished = [line["key"] for line in lines_of(TRAININGS)]
    assert [key["seed"] for key in finished] == [SEEDS[0]] * 3
    switches.clear()

    assert facts(retrained(workers="1")) == whole
    by_training = epochs_by_training(switches)
    winner = whole["winner"]["config_id"]
    for key in finished:
        twice = key["config_id"] == winner  # in the comparison, and on all images
        assert by_training[key["config_id"], key["seed"]] == [0, 1, 2] * (1 + twice)


def test_a_stop_after_the_last_training_leaves_the_test_images_closed(
    retrainable: StudyRecord, switches: Switches
) -> None:
    late, stop = StopFlag(), StopFlag()
    assert retrain_curves(timeout=0.0, stop=late) is None
    assert late.reason == "timeout"

    class StopsAtTheEnd(io.StringIO):
        def write(self, text: str) -> int:
            if text.startswith("12/12"):
                stop.set("signal", "SIGTERM")
            return super().write(text)

    assert retrain_curves(stop=stop, output=StopsAtTheEnd()) is None
    assert openings() == []
    count = len(switches.epochs())
    retrained()
    assert len(switches.epochs()) == count


def test_two_retrainings_of_a_study_at_once_are_refused(retrainable: StudyRecord) -> None:
    MODELS.mkdir(parents=True)
    with (MODELS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match=r"study 's' .*another process"):
            retrain_curves()
    retrained()


# ---- Failures and wrong use ------------------------------------------------------------------------------


def test_a_candidate_that_diverges_is_out_and_named(retrainable: StudyRecord, switches: Switches) -> None:
    best = ranking(retrainable)[0]
    switches.add("diverge", config_id=retrainable.trials[best].config_id, seed=SEEDS[1], epoch=1)
    output = io.StringIO()
    result = retrained(output=output)
    assert result.winner.candidate.trial != best
    assert re.search(rf"#{best} is out.*loss is nan", output.getvalue())
    entry = result.to_json()["candidates"][0]
    assert entry["failures"] == {str(SEEDS[1]): "the training loss is nan"}


def test_where_the_leader_diverges_late_what_it_had_put_out_is_trained_on(switches: Switches) -> None:
    record = curve_study(small_images(1000))
    best = ranking(record)[0]
    switches.add("diverge", config_id=record.trials[best].config_id, seed=derive_seed(SEED, "retrain", 4))
    output = io.StringIO()
    result = retrained(top=TRIALS, seeds=5, output=output, workers="1")
    assert re.search(rf"#{best} is out.*loss is nan", output.getvalue())
    assert "competes again" in output.getvalue()
    assert result.winner.candidate.trial != best
    again = io.StringIO()
    assert facts(retrained(top=TRIALS, seeds=5, output=again, workers="2")) == facts(result)
    assert "nothing is left" in again.getvalue()


def test_a_database_with_an_at_sign_in_its_path_has_its_model(retrainable: StudyRecord) -> None:
    Path("storage").rename("me@lab")
    result = retrained(storage="me@lab/s.db", seeds=1, top=1)
    assert result.plan.folder == Path("me@lab/s.db.files/models/s")
    assert (result.plan.folder / "model.safetensors").exists()
    assert "--storage me@lab/s.db" in "\n".join(command_lines(result))


def test_if_all_candidates_diverge_there_is_no_winner(retrainable: StudyRecord, switches: Switches) -> None:
    switches.add("diverge", seed=SEEDS[0])
    with pytest.raises(Mc1optError, match="candidate"):
        retrain_curves()


def test_a_final_training_that_diverges_is_an_error_that_says_what_to_do(
    retrainable: StudyRecord, switches: Switches
) -> None:
    retrained()
    lines = (MODELS / TRAININGS).read_text().splitlines(keepends=True)
    (MODELS / TRAININGS).write_text("".join(lines[:9]))
    switches.add("diverge", seed=SEEDS[1])
    with pytest.raises(Mc1optError, match=r"seed 2.*diverged.*--trial"):
        retrain_curves()
    assert len(openings()) == 1


def test_images_without_validation_are_refused(
    retrainable: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = small_images().model_copy(update={"validation_images": 0})
    monkeypatch.setattr(retrain_module, "study_data", lambda *_: data)
    with pytest.raises(UsageError, match="validation"):
        retrain_curves()


def test_the_model_of_another_retraining_is_replaced_only_by_force(
    retrainable: StudyRecord, switches: Switches
) -> None:
    first = retrained()
    count, files = len(switches.epochs()), files_below(MODELS)
    others: list[dict[str, Any]] = [{"seeds": 2}, {"top": 2}, {"trial": 0}, {"epochs": None}, {"epochs": 2}]
    for options in others:
        with pytest.raises(UsageError, match="--force"):
            retrain_curves(**options)
        assert (len(switches.epochs()), files_below(MODELS)) == (count, files)
    second = retrained(force=True, **options)
    assert read_model_folder(MODELS).metrics["retraining"] == second.plan.identity != first.plan.identity
    (MODELS / "metrics.json").write_text("{")  # so that nobody knows whose model it is
    with pytest.raises(UsageError, match="--force"):
        retrain_curves(**options)
