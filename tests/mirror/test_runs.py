"""What W&B shall hold: what the records say, under ids that stay."""

import json
import math
import re
from dataclasses import replace
from typing import Any, get_args

import pytest

from mc1opt.config import config_from_json
from mc1opt.database.records import Outcome, StudyRecord
from mc1opt.measurement.store import Failure, TrainingKey
from mc1opt.mirror.runs import AttachedFile, MirroredRun, Retrained, flat, mirrored_runs
from mc1opt.seeds import retrain_seed
from mc1opt.spec import Fold
from tests.support.curves import curve, example_training
from tests.support.display import CONFIG, again, study, trial
from tests.support.measuring import stored_training

IDENTITY = "0123456789abcdef" * 2
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


def runs_of(record: StudyRecord, **options: Any) -> list[MirroredRun]:
    return mirrored_runs(record, IDENTITY, **options)


def trial_runs(record: StudyRecord, **options: Any) -> dict[int | None, MirroredRun]:
    return {run.trial: run for run in runs_of(record, **options) if run.job_type == "trial"}


def retrained_like(record: StudyRecord, number: int = 0, **changes: object) -> Retrained:
    """A training of a trial's config."""
    key = TrainingKey.of(example_training(**changes))
    identity = record.trials[number].config_id
    stored = stored_training(example_training(**changes))
    return Retrained(stored.model_copy(update={"key": key.model_copy(update={"config_id": identity})}))


# ---- Which trials ----------------------------------------------------------------------------------------


def test_there_is_a_run_for_the_study_and_one_for_each_of_the_best_trials() -> None:
    record = study(*(trial(number, value=number / 10) for number in range(8)))
    first, *others = runs_of(record, top=3)
    assert (first.job_type, first.name, first.group) == ("study", "cnn", "cnn")
    assert [(run.job_type, run.trial, run.group) for run in others] == [
        ("trial", number, "cnn") for number in (5, 6, 7)
    ]
    assert all(run.tags == ("best",) and run.is_best for run in others)


def test_a_renamed_study_keeps_the_ids_of_its_runs_and_shows_its_new_name() -> None:
    before, after = study(trial(0)), study(trial(0), study="final/2")
    runs, renamed = runs_of(before), runs_of(after, prefix="cnn")
    assert [run.id for run in renamed] == [run.id for run in runs]
    assert [run.name for run in renamed] == ["final/2", "final/2 #0"]
    assert runs_of(after)[0].id.startswith("final-2-")


def test_pruned_and_failed_trials_are_mirrored_only_where_asked() -> None:
    record = study(*(trial(number, outcome) for number, outcome in enumerate(OUTCOMES)))
    assert list(trial_runs(record)) == [0]
    found = trial_runs(record, everything=True)
    assert {run.summary["state"]: run.tags for run in found.values()} == {
        "complete": ("best",),
        "pruned": ("pruned",),
        "failed": ("failed",),
    }
    failed = found[OUTCOMES.index("failed")]
    assert failed.failed
    assert failed.summary["failure"] == "crashed: the worker is gone"


def test_a_trial_that_has_left_the_best_is_mirrored_with_another_tag() -> None:
    record = study(*(trial(number, value=number / 10) for number in range(4)))
    found = trial_runs(record, top=2, best_before={1, 2})
    assert {number: run.tags for number, run in found.items()} == {
        1: ("left-the-best",),
        2: ("best",),
        3: ("best",),
    }
    assert not found[1].is_best


def test_tags_say_where_a_trial_came_from_and_what_was_done_with_it() -> None:
    started = trial(0, starting_point="narrow", confirmations=again(0.5, 0.6), config_id="a" * 12)
    record = study(started, trial(1, config_id="b" * 12))
    runs = runs_of(record, retrained=[retrained_like(record)])
    assert {run.trial: run.tags for run in runs if run.job_type == "trial"} == {
        0: ("best", "starting-point", "confirmed", "retrained"),
        1: ("best",),
    }


# ---- Ids -------------------------------------------------------------------------------------------------


def test_ids_are_the_same_when_mirrored_again_whatever_was_added() -> None:
    record = study(trial(0, value=0.4))
    more = study(trial(0, value=0.4), trial(1, value=0.5), trial(2, "pruned"))
    retrained = [retrained_like(record), retrained_like(record, seed=9)]
    before = {run.id for run in runs_of(record, retrained=retrained)}
    assert len(before) == 4
    assert before < {run.id for run in runs_of(more, retrained=retrained)}


def test_studies_of_the_same_name_in_two_databases_have_no_id_in_common() -> None:
    record = study(trial(0), trial(1))
    retrained = [retrained_like(record)]
    ours, theirs = (
        {run.id for run in mirrored_runs(record, identity, retrained=retrained)}
        for identity in (IDENTITY, "f" * 32)
    )
    assert len(ours) == len(theirs) == 4
    assert not ours & theirs


@pytest.mark.parametrize("name", ["cnn", "a/b: c#d?", "ü" * 90, "x" * 512, "-", " "])
def test_ids_and_names_are_ones_that_wandb_takes(name: str) -> None:
    record = study(*(trial(number) for number in range(3)), study=name)
    runs = runs_of(record, retrained=[retrained_like(record)])
    for run in runs:
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}", run.id), run.id
        assert max(len(run.name), len(run.group)) <= 128
    assert len({run.id for run in runs}) == 5


# ---- Contents --------------------------------------------------------------------------------------------


def test_the_config_is_flat_and_can_be_read_back_from_its_json() -> None:
    (_, run) = runs_of(study(trial(7, params={"width": 64}, seed=2**63 - 1)))
    assert config_from_json(json.loads(str(run.config["config_json"]))) == CONFIG
    assert run.config["optimizer/learning_rate"] == 0.1
    assert run.config["architecture/layers/0/width"] == 64
    assert run.config["params/width"] == 64
    assert (run.config["study"], run.config["trial"], run.config["epochs"]) == ("cnn", 7, 5)
    assert run.config["train_images"] == 20_000
    assert run.config["seed"] == "9223372036854775807"  # a web page would round the number
    assert all("." not in name for name in run.config)


def test_nested_values_become_one_level_of_names_without_what_is_unknown() -> None:
    value = {"a": {"b": 1, "c": [True, None, {"d": "x"}]}, "e": math.nan, "f": -math.inf, "g": []}
    assert flat(value) == {"a/b": 1, "a/c/0": True, "a/c/2/d": "x"}


def test_the_history_has_a_row_an_epoch_counted_from_one_with_what_is_known() -> None:
    (_, run) = runs_of(study(trial(0, values_by_epoch=[0.3, 0.5, 0.6], losses=[2.0, math.inf])))
    assert run.axis == "epoch"
    assert run.history == (
        {"epoch": 1, "validation_accuracy": 0.3, "loss": 2.0},
        {"epoch": 2, "validation_accuracy": 0.5},
        {"epoch": 3, "validation_accuracy": 0.6},
    )


def test_the_summary_is_the_record() -> None:
    entry = trial(3, value=0.75, confirmations=again(0.7, None, 0.72))
    (_, run) = runs_of(study(entry))
    assert run.summary == {
        "value": 0.75,
        "state": "complete",
        "parameters": entry.parameters,
        "macs": entry.macs,
        "seconds": entry.seconds,
        "epoch_seconds": entry.epoch_seconds,
        "confirmed_mean": pytest.approx(0.71),
    }


def test_a_config_of_a_newer_version_is_mirrored_as_it_is() -> None:
    newer = {"schema_version": 99, "shape": "new"}
    first, run = runs_of(study(trial(0, config=newer)))
    assert json.loads(str(run.config["config_json"])) == newer
    assert first.leaderboard is not None
    assert first.leaderboard["rows"][0][-1] == ""


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"tags": ("left-the-best",)},
        {"config": {"batch_size": 64}},
        {"history": ({"epoch": 1, "loss": 0.25},)},
        {"summary": {"value": 0.75}},
        {"leaderboard": {"columns": ["trial"], "rows": [[7]]}},
        {"is_best": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_run_that_holds_something_else_has_another_fingerprint(change: dict[str, Any]) -> None:
    (_, run) = runs_of(study(trial(0)))
    assert replace(run, **change).fingerprint != run.fingerprint


def test_the_fingerprint_is_of_what_a_run_holds_but_for_its_files() -> None:
    (_, run) = runs_of(study(trial(0)))
    reordered = replace(run, config=dict(reversed(run.config.items())), files=(AttachedFile("/a", "a"),))
    assert reordered.fingerprint == run.fingerprint
    with pytest.raises(ValueError, match="JSON"):
        assert replace(run, summary={"loss": math.nan}).fingerprint


# ---- The study -------------------------------------------------------------------------------------------


def test_the_study_s_history_is_the_best_value_over_the_trials() -> None:
    record = study(trial(0, value=0.4), trial(1, "pruned"), trial(2, value=0.3), trial(3, value=0.6))
    (first, *_) = runs_of(record)
    assert first.axis == "trial"
    assert first.history == (
        {"trial": 0, "value": 0.4, "best_value": 0.4},
        {"trial": 2, "value": 0.3, "best_value": 0.4},
        {"trial": 3, "value": 0.6, "best_value": 0.6},
    )
    assert first.summary == {
        "best_value": 0.6,
        "best_trial": 3,
        "trials/complete": 3,
        "trials/pruned": 1,
        "trials/failed": 0,
    }


def test_the_leaderboard_has_the_best_trials_in_order() -> None:
    record = study(trial(0, value=0.4, parameters=None), trial(1, value=0.6), trial(2, "pruned"))
    (first, *_) = runs_of(record)
    assert first.leaderboard is not None
    assert first.leaderboard["columns"][:4] == ["trial", "value", "confirmed_mean", "parameters"]
    assert [row[:4] for row in first.leaderboard["rows"]] == [[1, 0.6, None, 1000], [0, 0.4, None, None]]


def test_a_study_without_a_finished_trial_has_its_run_all_the_same() -> None:
    (first,) = runs_of(study(trial(0, "running"), fidelity=None, data=None, seed=None))
    assert (first.history, first.leaderboard) == ((), None)


# ---- Retrainings -----------------------------------------------------------------------------------------


def test_each_training_of_a_retraining_has_a_run() -> None:
    record = study(trial(0, config_id="a" * 12), trial(7, config_id="b" * 12))
    everything = retrained_like(record, 1, seed=12345)
    data = everything.stored.key.model_copy(update={"validation_images": 0})
    everything = replace(
        everything, stored=everything.stored.model_copy(update={"key": data}), test_accuracy=0.8
    )
    trainings = [  # as they ended
        retrained_like(record, 1, seed=retrain_seed(record.seed or 0, 1)),
        retrained_like(record, 1, seed=retrain_seed(record.seed or 0, 0), epochs=4),
        everything,
        retrained_like(record, 1, fold=Fold(index=2, count=5)),
    ]
    runs = [run for run in runs_of(record, retrained=trainings) if run.job_type == "retraining"]
    assert [(run.name, run.tags) for run in runs] == [
        ("cnn #7, retrained, seed 2, 3 epochs", ("retrained", "comparison")),
        ("cnn #7, retrained, seed 1, 4 epochs", ("retrained", "comparison")),
        ("cnn #7, on all images, seed 12345, 3 epochs", ("retrained", "all-images")),
        ("cnn #7, fold 3 of 5, 3 epochs", ("retrained", "fold")),
    ]
    assert [run.summary.get("test_accuracy") for run in runs] == [None, None, 0.8, None]
    results = curve(example_training(seed=retrain_seed(record.seed or 0, 1)))
    assert runs[0].history == tuple(
        {"epoch": i + 1, "validation_accuracy": result.validation_accuracy, "loss": result.loss}
        for i, result in enumerate(results)
    )
    assert runs[0].summary["value"] == results[-1].validation_accuracy
    assert (runs[0].trial, runs[0].config["trial"]) == (7, 7)


def test_trainings_of_other_configs_or_on_other_images_are_left_out() -> None:
    """A study that had this name before may have left them."""
    record = study(trial(0, config_id="a" * 12))
    runs = runs_of(record, retrained=[Retrained(stored_training(example_training()))])
    assert [run.job_type for run in runs] == ["study", "trial"]
    images = {"name": "own", "sha256": "1" * 64}
    record = study(trial(0, config_id="a" * 12), data=images)
    runs = runs_of(record, retrained=[retrained_like(record)])
    assert [run.job_type for run in runs] == ["study", "trial"]
    assert "retrained" not in runs[1].tags
    renamed = {"name": f"own-{'0' * 12}", "sha256": "1" * 64}  # hashed by an older mc1opt
    record = study(trial(0, config_id="a" * 12), data=renamed)
    runs = runs_of(record, retrained=[retrained_like(record)])
    assert [run.job_type for run in runs] == ["study", "trial", "retraining"]


def test_a_training_that_failed_is_mirrored_only_where_asked() -> None:
    record = study(trial(0, config_id="a" * 12))
    failed = retrained_like(record)
    failure = Failure(kind="diverged", message="the training loss is nan\nmore")
    failed = replace(failed, stored=failed.stored.model_copy(update={"failure": failure}))
    assert [run.job_type for run in runs_of(record, retrained=[failed])] == ["study", "trial"]
    run = runs_of(record, everything=True, retrained=[failed])[-1]
    assert run.failed
    assert run.summary["failure"] == "diverged: the training loss is nan"
