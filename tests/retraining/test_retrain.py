"""A retraining from its candidates to its model, on learning curves: what it trains, tests, keeps."""

import fcntl
import io
import json
import statistics
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
from safetensors.numpy import load_file

from mc1opt.config import config_id
from mc1opt.data import images as images_module
from mc1opt.database.location import files_folder
from mc1opt.database.records import StudyRecord
from mc1opt.database.studies import claim_study
from mc1opt.database.trial_files import study_folder
from mc1opt.errors import DataError, Mc1optError, StorageError, UsageError
from mc1opt.machine import resources
from mc1opt.machine.memory import training_memory
from mc1opt.measurement import trainings
from mc1opt.measurement.store import TRAININGS, TrainingStore
from mc1opt.retraining import epochs as retrain_epochs
from mc1opt.retraining.comparison import choose_candidates
from mc1opt.retraining.report import Retraining, command_lines
from mc1opt.seeds import derive_seed
from mc1opt.spec import Fidelity, Fold, Precision, Training
from mc1opt.training.model_folder import read_model_folder
from mc1opt.workers.stop import StopFlag
from tests.support.command import files_below
from tests.support.curves import Switches, curve
from tests.support.image_sets import change_without_a_trace
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
    ended = retrain_curves(**options)
    assert ended.reason == "finished"
    assert ended.result is not None
    return ended.result


def ranking(record: StudyRecord) -> list[int]:
    """The trials, the best first."""
    return sorted(range(TRIALS), key=lambda number: -(record.trials[number].value or 0.0))


def facts(result: Retraining) -> dict[str, Any]:
    """What a retraining found, without times and what depends on how it was started."""
    printed = result.to_json()
    for name in ("seconds", "training_seconds", "planned_seconds", "workers", "command"):
        del printed[name]
    del printed["test"]["time"]
    return printed


def opening_lines() -> list[str]:
    path = MODELS / "test_openings.jsonl"
    return path.read_text().splitlines() if path.exists() else []


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
    data = small_images()
    means = {}
    for entry, candidate in zip(printed["candidates"], result.plan.candidates, strict=True):
        expected = {
            str(seed): curve(
                Training(
                    config=candidate.config,
                    fidelity=Fidelity(train_images=180, epochs=3),
                    seed=seed,
                    data=data,
                )
            )[-1].accuracy
            for seed in SEEDS
        }
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
    lines = [json.loads(line) for line in (MODELS / "trainings.jsonl").read_text().splitlines()]
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


def test_metrics_are_everything_that_json_prints_and_the_card_stands_beside(retrainable: StudyRecord) -> None:
    result = retrained()
    assert read_model_folder(MODELS).metrics == json.loads(json.dumps(result.to_json()))
    assert (MODELS / "model_card.md").read_text().startswith("# Image classifier of study s\n")


def test_the_number_of_workers_changes_nothing_but_the_time(retrainable: StudyRecord) -> None:
    first = facts(retrained(workers="1"))
    for name in ("trainings.jsonl", "test_results.jsonl", "test_openings.jsonl"):
        (MODELS / name).unlink()
    assert facts(retrained(workers="3")) == first


def test_as_many_trainings_at_once_as_memory_holds_of_the_largest_candidate(
    retrainable: StudyRecord, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = small_images()
    candidates = choose_candidates(retrainable, top=3)
    each = max(
        training_memory(
            candidate.config, train_images=200, validation_images=0, device="cpu", precision=precision
        ).host
        for candidate in candidates
    )
    assert data.train_images == 200
    monkeypatch.setattr(resources, "available_cpus", lambda _root: 64)
    monkeypatch.setattr(resources, "available_memory", lambda _root: 20 * each + 1)
    assert 20 * each // resources.WORKER_MEMORY != 20
    output = io.StringIO()
    retrained(seeds=1, output=output, workers="auto")
    assert "20 workers on cpu" in output.getvalue()


def test_a_trial_that_is_named_is_retrained_alone(retrainable: StudyRecord) -> None:
    worst = ranking(retrainable)[-1]
    result = retrained(trial=worst, seeds=1)
    printed = result.to_json()
    assert [entry["trial"] for entry in printed["candidates"]] == [worst]
    assert (printed["test"]["n"], printed["test"]["interval"]) == (1, None)


def test_folds_tell_the_spread_over_images_apart_from_that_over_seeds(retrainable: StudyRecord) -> None:
    result = retrained(folds=4)
    folds = result.to_json()["folds"]
    expected = [
        curve(
            Training(
                config=result.winner.candidate.config,
                fidelity=Fidelity(train_images=150, epochs=3),
                seed=SEEDS[0],
                data=small_images(),
                fold=Fold(index=index, count=4),
            )
        )[-1].accuracy
        for index in range(4)
    ]
    assert folds["validation"] == expected
    assert folds["mean"] == pytest.approx(statistics.fmean(expected))
    assert folds["std"] == pytest.approx(statistics.stdev(expected))
    over_seeds = list(result.to_json()["candidates"][0]["validation"].values())
    if result.winner.candidate.trial == ranking(retrainable)[0]:
        assert folds["std_over_seeds"] == pytest.approx(statistics.stdev(over_seeds))


def test_folds_can_be_added_to_a_finished_retraining_without_another_look_at_the_test_images(
    retrainable: StudyRecord, switches: Switches
) -> None:
    first = retrained()
    count = len(switches.epochs())
    second = retrained(folds=3)
    assert len(switches.epochs()) == count + 3 * 3
    assert second.test.confusions == first.test.confusions
    assert len(opening_lines()) == 1


def test_folds_stay_with_the_model_when_the_same_retraining_is_called_without_them(
    retrainable: StudyRecord, switches: Switches
) -> None:
    first = retrained(folds=3)
    count = len(switches.epochs())
    again = retrained()
    assert facts(again) == facts(first)
    assert read_model_folder(MODELS).metrics["folds"]["validation"] == first.fold_values
    assert "3 stratified folds" in (MODELS / "model_card.md").read_text()
    assert len(switches.epochs()) == count
    assert len(retrained(seeds=2, force=True).fold_values) == 0  # another retraining, which had none


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
    line = next(line for line in output.getvalue().splitlines() if line.startswith(f"#{worst} stops early"))
    assert (
        "paired t test over the common seeds, two-sided, level 5 % over all pairs and looks together" in line
    )
    assert len([key for key in epochs_by_training(switches) if key[0] == entry["config_id"]]) == 1 + len(
        entry["validation"]
    )
    stopped = [e for e in result.to_json()["candidates"] if e["stopped"] is not None]
    spared = sum(5 - e["stopped"]["after_seeds"] for e in stopped)
    again = io.StringIO()
    retrained(top=TRIALS, seeds=5, output=again, workers="1")
    (line,) = [line for line in again.getvalue().splitlines() if line.startswith("Retraining study")]
    trainings = (TRIALS + 1) * 5
    assert f"; nothing is left to train. Of them stored already: {trainings - spared}; " in line
    assert f"spared by early stopping: {spared}." in line


def test_a_finished_retraining_times_no_epochs_on_another_kind_of_machine(
    retrainable: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrain_epochs, "versions", lambda *_: {"cpu": "AVX9000", "precision": "float32"})
    for timed in (True, False):
        output = io.StringIO()
        retrained(output=output)
        assert ("another kind of machine" in output.getvalue()) == timed


# ---- The test images -------------------------------------------------------------------------------------


def test_nothing_but_the_last_step_opens_the_test_images(
    retrainable: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Search, comparison, final trainings and folds go through with images whose opening raises."""
    trained_before = []

    def refuse(*_: object) -> None:
        trained_before.extend((MODELS / "trainings.jsonl").read_text().splitlines())
        raise AssertionError("the test images were opened")

    monkeypatch.setattr(images_module, "open_test_images", refuse)
    curve_study(trials=TRIALS + 1)
    assert trained_before == []
    with pytest.raises(AssertionError, match="the test images were opened"):
        retrain_curves(folds=3)
    assert len(trained_before) == 3 * 3 + 3 + 3
    assert not (MODELS / "model.safetensors").exists()


def test_with_damaged_test_images_all_is_trained_and_the_same_command_tests_when_they_are_whole(
    retrainable: StudyRecord, switches: Switches, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = Path("cache").glob("own-*/test_images.npy")
    content = path.read_bytes()
    change_without_a_trace(path, bytes(len(content)), monkeypatch)
    with pytest.raises(DataError, match=r"test_images\.npy cannot be read"):
        retrain_curves()
    count = len(switches.epochs())
    assert count == 12 * 3
    path.write_bytes(content)
    retrained()
    assert len(switches.epochs()) == count


def test_asking_again_for_what_is_finished_leaves_the_model_as_it_is(retrainable: StudyRecord) -> None:
    first = retrained(workers="1", command="mc1opt retrain --workers 1")
    before = {path.name: path.read_bytes() for path in MODELS.iterdir() if path.is_file()}
    again = retrained(workers="2", command="mc1opt retrain --json")
    assert facts(again) == facts(first)
    assert {path.name: path.read_bytes() for path in MODELS.iterdir() if path.is_file()} == before
    for name in ("labels.json", "model_card.md", "model.safetensors"):  # not whole any more
        (MODELS / name).unlink()
        retrained(workers="2", command="mc1opt retrain --json")
        assert (MODELS / name).is_file(), name
    assert (MODELS / "labels.json").read_bytes() == before["labels.json"]


def test_trainings_in_smaller_steps_are_named(retrainable: StudyRecord, switches: Switches) -> None:
    switches.add("out_of_memory", seed=SEEDS[0], epoch=1, times=1)  # of a candidate
    output = io.StringIO()
    result = retrained(top=1, seeds=2, workers="1", output=output)
    number = result.winner.candidate.trial
    names = [f"#{number} seed 1", f"#{number} on all images, seed 1"]
    assert list(result.smaller_steps) == [names[0]]
    steps = result.smaller_steps[names[0]]
    assert steps > 1
    assert f"in several steps, which batch norm notices: {names[0]} in {steps}." in output.getvalue()
    assert f"{names[0]} in {steps}." in (MODELS / "model_card.md").read_text()
    assert read_model_folder(MODELS).metrics["smaller_steps"] == {names[0]: steps}
    assert read_model_folder(MODELS).metrics["accumulation"] == 1


def test_the_model_says_what_trained_it_and_not_what_wrote_it_again(
    retrainable: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = retrained()
    monkeypatch.setattr(trainings, "versions", lambda *_: {"torch": "99.0"})
    monkeypatch.setattr(trainings, "commit", lambda: "later")
    again = retrained()
    assert (again.versions, again.commit) == (first.versions, first.commit)
    assert "99.0" not in (MODELS / "model_card.md").read_text()
    assert retrained(seeds=2, force=True).versions == first.versions  # the same training of the first seed


def test_the_opening_is_recorded_and_the_same_command_prints_the_stored_result_instead_of_another(
    retrainable: StudyRecord, switches: Switches
) -> None:
    first = retrained()
    (opening,) = [json.loads(line) for line in opening_lines()]
    identity = first.winner.candidate.config_id
    assert opening["reason"] == f"retrain of study s: config {identity}, 3 seeds"
    count = len(switches.epochs())
    output = io.StringIO()
    assert facts(retrained(output=output)) == facts(first)
    assert len(opening_lines()) == 1
    assert len(switches.epochs()) == count
    assert "the test images stay closed" in output.getvalue()
    assert "Of them stored already: 12." in output.getvalue()


def test_a_second_opening_for_the_study_says_so(retrainable: StudyRecord) -> None:
    retrained()
    output = io.StringIO()
    result = retrained(epochs=2, force=True, output=output)
    assert "for this study they were opened once before" in output.getvalue()
    assert len(result.to_json()["test"]["opened_before"]) == 1
    assert "had been opened before" in (MODELS / "model_card.md").read_text()


def test_a_copys_retraining_leaves_the_originals_model_and_needs_no_training_twice(
    retrainable: StudyRecord, switches: Switches
) -> None:
    claim_study(STORAGE, STUDY)
    first = retrained(top=1)
    before, count = files_below(MODELS), len(switches.epochs())
    url = f"sqlite:///{STORAGE}"
    optuna.copy_study(from_study_name=STUDY, from_storage=url, to_storage=url, to_study_name="copy")
    copied = retrained(top=1, study="copy")
    assert copied.model == MODELS.with_name("copy")
    assert (copied.winner.candidate.trial, read_model_folder(copied.model).metrics["study"]) == (
        first.winner.candidate.trial,
        "copy",
    )
    assert files_below(MODELS) == before
    openings = "test_openings.jsonl"
    assert (copied.model / openings).read_bytes() == (MODELS / openings).read_bytes()
    # Only on all images, for the weights, which are the original's; they come out the same, and were tested.
    assert len(switches.epochs()) - count == 3 * 3


def test_a_renamed_study_goes_on_with_its_retraining(retrainable: StudyRecord, switches: Switches) -> None:
    retrained(top=1)
    count = len(switches.epochs())
    Pages(STORAGE).rename(STUDY, "final")
    assert retrained(top=1, study="final").model == MODELS
    assert len(switches.epochs()) == count
    assert not MODELS.with_name("final").exists()


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
    ended = retrain_curves(stop=stop, output=output, workers="1")
    thread.join()
    assert (ended.reason, ended.result) == ("signal", None)
    assert "Stopped by SIGINT" in output.getvalue()
    assert opening_lines() == []
    finished = [json.loads(line)["key"] for line in (MODELS / "trainings.jsonl").read_text().splitlines()]
    assert [key["seed"] for key in finished] == [SEEDS[0]] * 3
    switches.clear()

    assert facts(retrained(workers="1")) == whole
    by_training = epochs_by_training(switches)
    winner = whole["winner"]["config_id"]
    for key in finished:
        twice = key["config_id"] == winner  # in the comparison, and on all images
        assert by_training[key["config_id"], key["seed"]] == [0, 1, 2] * (1 + twice)


def test_the_time_limit_stops_in_good_order(retrainable: StudyRecord, switches: Switches) -> None:
    switches.add("hang", epoch=2, seed=SEEDS[1])
    ended = retrain_curves(timeout=1.0)
    assert (ended.reason, ended.result) == ("timeout", None)


def test_a_stop_after_the_last_training_leaves_the_test_images_closed(
    retrainable: StudyRecord, switches: Switches
) -> None:
    stop = StopFlag()

    class StopsAtTheEnd(io.StringIO):
        def write(self, text: str) -> int:
            if text.startswith("12/12"):
                stop.set("signal", "SIGTERM")
            return super().write(text)

    ended = retrain_curves(stop=stop, output=StopsAtTheEnd())
    assert ended.result is None
    assert opening_lines() == []
    count = len(switches.epochs())
    retrained()
    assert len(switches.epochs()) == count


def test_two_retrainings_of_a_study_at_once_are_refused(retrainable: StudyRecord) -> None:
    MODELS.mkdir(parents=True)
    with (MODELS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="study 's' is being retrained by another process"):
            retrain_curves()
    retrained()


# ---- Failures and wrong use ------------------------------------------------------------------------------


def test_a_candidate_that_diverges_is_out_and_named(retrainable: StudyRecord, switches: Switches) -> None:
    best = ranking(retrainable)[0]
    switches.add("diverge", config_id=retrainable.trials[best].config_id, seed=SEEDS[1], epoch=1)
    output = io.StringIO()
    result = retrained(output=output)
    assert result.winner.candidate.trial != best
    assert f"#{best} is out: a training of it failed (the training loss is nan)" in output.getvalue()
    entry = result.to_json()["candidates"][0]
    assert entry["failures"] == {str(SEEDS[1]): "the training loss is nan"}


def test_where_the_leader_diverges_late_what_it_had_put_out_is_trained_on(switches: Switches) -> None:
    record = curve_study(small_images(1000))
    best = ranking(record)[0]
    switches.add("diverge", config_id=record.trials[best].config_id, seed=derive_seed(SEED, "retrain", 4))
    output = io.StringIO()
    result = retrained(top=TRIALS, seeds=5, output=output, workers="1")
    lines = output.getvalue().splitlines()
    assert f"#{best} is out: a training of it failed (the training loss is nan)" in lines
    assert any("competes again: the one that it was clearly worse than is out" in line for line in lines)
    assert result.winner.candidate.trial != best
    again = io.StringIO()
    assert facts(retrained(top=TRIALS, seeds=5, output=again, workers="2")) == facts(result)
    assert "nothing is left to train" in again.getvalue()


def test_seconds_are_those_of_all_trainings_whenever_it_is_asked(retrainable: StudyRecord) -> None:
    first = retrained(top=TRIALS, seeds=5, workers="4")
    stored = TrainingStore(MODELS / TRAININGS)
    assert first.training_seconds == pytest.approx(sum(training.seconds for training in stored))
    assert retrained(top=TRIALS, seeds=5).training_seconds == pytest.approx(first.training_seconds)


def test_a_database_with_an_at_sign_in_its_path_has_its_model(retrainable: StudyRecord) -> None:
    Path("storage").rename("me@lab")
    result = retrain_curves(storage="me@lab/s.db", seeds=1, top=1).result
    assert result.model == Path("me@lab/s.db.files/models/s")
    assert (result.model / "model.safetensors").exists()
    assert "--storage me@lab/s.db" in "\n".join(command_lines(result))


def test_if_all_candidates_diverge_there_is_no_winner(retrainable: StudyRecord, switches: Switches) -> None:
    switches.add("diverge", seed=SEEDS[0])
    with pytest.raises(Mc1optError, match="no candidate is left"):
        retrain_curves()


def test_a_final_training_that_diverges_is_an_error_that_says_what_to_do(
    retrainable: StudyRecord, switches: Switches
) -> None:
    retrained()
    (MODELS / "trainings.jsonl").write_text(
        "".join(line + "\n" for line in (MODELS / "trainings.jsonl").read_text().splitlines()[:9])
    )
    switches.add("diverge", seed=SEEDS[1])
    with pytest.raises(Mc1optError, match=r"on all images, seed 2 failed \(diverged\).*--trial"):
        retrain_curves()
    assert len(opening_lines()) == 1


@pytest.mark.parametrize(
    "options", [{"epochs": 2}, {"seeds": 2}, {"top": 2}, {"trial": 0}, {"epochs": None}], ids=str
)
def test_the_model_of_another_retraining_is_replaced_only_by_force(
    retrainable: StudyRecord, switches: Switches, options: dict[str, Any]
) -> None:
    first = retrained()
    count, files = len(switches.epochs()), {path: path.read_bytes() for path in MODELS.glob("*.*")}
    with pytest.raises(UsageError, match=r"holds the model of another retraining.*--force"):
        retrain_curves(**options)
    assert len(switches.epochs()) == count
    assert {path: path.read_bytes() for path in MODELS.glob("*.*")} == files
    second = retrained(force=True, **options)
    assert read_model_folder(MODELS).metrics["retraining"] == second.plan.identity != first.plan.identity


def test_a_model_whose_metrics_are_damaged_is_that_of_another_retraining(retrainable: StudyRecord) -> None:
    retrained()
    (MODELS / "metrics.json").write_text("{")
    with pytest.raises(UsageError, match="another retraining"):
        retrain_curves()


def test_top_and_trial_exclude_each_other(retrainable: StudyRecord) -> None:
    with pytest.raises(UsageError, match="--top and --trial exclude each other"):
        retrain_curves(top=2, trial=1)


def test_a_study_that_there_is_not_is_refused_and_nothing_is_made(retrainable: StudyRecord) -> None:
    with pytest.raises(StorageError, match="there is no study 'x'"):
        retrain_curves(study="x")
    assert not MODELS.parent.exists()


def test_models_of_a_study_with_any_name_lie_below_the_database(retrainable: StudyRecord) -> None:
    small_images()
    assert study_folder(files_folder(STORAGE) / "models", STUDY) == MODELS
    result = retrained()
    assert result.model == MODELS
    assert result.storage == STORAGE
