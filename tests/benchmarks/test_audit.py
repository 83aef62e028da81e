"""Audits of pruning on learning curves: the sample, what is trained, and the share of false prunes."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import audit
from benchmarks.audit import about, parse_options, report, sampled, top_tenth
from mc1opt.database.records import StudyRecord
from mc1opt.errors import UsageError
from mc1opt.seeds import derive_seed
from tests.support.curves import CurvePool, Switches
from tests.support.retraining import STORAGE, STUDY, curve_study, record_of, trial_record
from tests.support.studies import EPOCHS, SEED, stored

TRIALS = 30


@pytest.fixture(scope="module")
def pruned_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of which the pruner ended some trials: not to be changed."""
    folder = tmp_path_factory.mktemp("pruned")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MC1OPT_DATA", str(folder / "cache"))
        curve_study(trials=TRIALS, pruner="narrowing", device="cpu")
    return folder


@pytest.fixture
def pruned(pruned_folder: Path, switches: Switches, tmp_path: Path) -> StudyRecord:
    """That study in the test's own folder, and its record."""
    shutil.copytree(pruned_folder, tmp_path, dirs_exist_ok=True)
    return stored(STORAGE, STUDY)


def audited(*arguments: str, pool: Any = CurvePool) -> int:
    """The exit code of an audit whose results go to `audit.jsonl`."""
    given = ["--study", STUDY, "--storage", STORAGE, "--results", "audit.jsonl", "--workers", "2"]
    return audit.audit(parse_options([*given, *arguments]), pool)


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("audit.jsonl").read_text().splitlines()]


def study_of(complete: list[float], pruned: int, **fields: Any) -> StudyRecord:
    """A record of complete trials with these values, and so many pruned ones after them."""
    trials = [
        trial_record(number, outcome="complete", value=value, values_by_epoch=[value] * 8)
        for number, value in enumerate(complete)
    ]
    numbers = range(len(complete), len(complete) + pruned)
    trials += [trial_record(number, outcome="pruned", values_by_epoch=[0.3]) for number in numbers]
    return record_of(*[dataclasses.replace(trial, **fields) for trial in trials])


def lines_of(record: StudyRecord, values: list[float | None]) -> list[dict[str, Any]]:
    """Trainings of its pruned trials that end at these values; None for one that diverged."""
    trials = [trial for trial in record.trials if trial.outcome == "pruned"]
    return [
        about(record, trial)
        | {"pruned_after": 1, "value": value, "continues": True, "failure": None if value else "diverged"}
        for trial, value in zip(trials, values, strict=True)
    ]


# ---- The sample ------------------------------------------------------------------------------------------


def test_a_sample_is_the_same_again_and_lies_in_a_larger_one(pruned: StudyRecord) -> None:
    six = [trial.number for trial in sampled(pruned, 6, 0)]
    every = [trial.number for trial in sampled(pruned, TRIALS, 0)]
    assert [trial.number for trial in sampled(pruned, 6, 0)] == six == every[:6]
    assert [trial.number for trial in sampled(pruned, 6, 1)] != six
    assert sorted(every) == [trial.number for trial in pruned.trials if trial.outcome == "pruned"]


def test_what_the_pruner_did_not_end_is_not_in_it() -> None:
    record = record_of(
        trial_record(0, outcome="duplicate", values_by_epoch=[]),
        trial_record(1, outcome="complete", value=0.5, values_by_epoch=[0.5]),
        trial_record(2, outcome="pruned", values_by_epoch=[0.3]),
        trial_record(3, outcome="failed", values_by_epoch=[0.3]),
    )
    assert [trial.number for trial in sampled(record, 20, 0)] == [2]
    with pytest.raises(UsageError, match="no pruned trial"):
        sampled(study_of([0.5], pruned=0), 20, 0)


# ---- The trainings ---------------------------------------------------------------------------------------


def test_trials_are_trained_to_their_end_from_their_own_curves(
    pruned: StudyRecord, switches: Switches, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audited("--sample", "3") == 0
    trials = {trial.number: trial for trial in sampled(pruned, 3, 0)}
    assert {line["trial"] for line in lines()} == trials.keys()
    for line in lines():
        before = trials[line["trial"]].values_by_epoch
        assert line["pruned_after"] == len(before) < EPOCHS == len(line["values_by_epoch"])
        assert line["values_by_epoch"][: len(before)] == before
        assert line["continues"]
        assert line["value"] == line["values_by_epoch"][-1]
    begun = {(epoch["seed"], epoch["epoch"]) for epoch in switches.epochs()}
    assert begun == {(derive_seed(SEED, number), epoch) for number in trials for epoch in range(EPOCHS)}
    assert "of 3 (" in capsys.readouterr().out
    assert stored(STORAGE, STUDY) == pruned


def test_what_is_trained_is_not_trained_again(pruned: StudyRecord, switches: Switches) -> None:
    audited("--sample", "2")
    audited("--sample", "2")
    assert len(switches.epochs()) == 2 * EPOCHS
    audited("--sample", "4")
    assert len(switches.epochs()) == 4 * EPOCHS
    assert len({line["trial"] for line in lines()}) == len(lines()) == 4


def test_the_line_of_another_study_with_its_name_is_not_its_own(pruned: StudyRecord) -> None:
    audited("--sample", "1")
    (line,) = lines()
    (trial,) = sampled(pruned, 1, 0)
    assert audit.found_line(pruned, trial, [line]) == line
    for other in ({"seed": 5}, {"config_id": "0"}, {"trial": 99}, {"fidelity": {}}, {"study": "t"}):
        assert audit.found_line(pruned, trial, [line | other]) is None


def test_a_training_that_diverges_is_a_result_and_one_that_is_killed_is_tried_again(
    pruned: StudyRecord, switches: Switches, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sampled(pruned, 2, 0)
    switches.add("diverge", seed=first.seed, epoch=3)
    switches.add("kill", seed=second.seed, epoch=3, times=1)
    assert audited("--sample", "2") == 1
    (line,) = lines()
    assert (line["trial"], line["value"], line["failure"]) == (first.number, None, "diverged")
    assert "0 of 1" in capsys.readouterr().out
    assert audited("--sample", "2") == 0
    assert [line["trial"] for line in lines()] == [first.number, second.number]


def test_when_the_time_is_up_finished_trainings_stay(
    pruned: StudyRecord, switches: Switches, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = sampled(pruned, 3, 0)
    for trial in others:
        switches.add("hang", seed=trial.seed, epoch=3)
    assert audited("--sample", "3", "--timeout", "1s") == 0
    assert [line["trial"] for line in lines()] == [first.number]
    assert "of 1 (" in capsys.readouterr().out


# ---- What is said ----------------------------------------------------------------------------------------


def test_the_top_tenth_ends_at_a_tenth_of_the_trials_that_count() -> None:
    assert top_tenth(study_of([0.5, 0.9, 0.8, 0.7], pruned=16)).value == 0.8
    assert top_tenth(study_of([0.5, 0.9, 0.8, 0.7], pruned=17)).value == 0.7
    assert top_tenth(study_of([0.5, 0.9], pruned=98)).value == 0.5
    losses = study_of([0.5, 0.9, 0.8, 0.7], pruned=16, direction="minimize")
    assert top_tenth(losses).value == 0.7
    with pytest.raises(UsageError, match="no complete trial"):
        top_tenth(study_of([], pruned=5))


def test_the_share_has_wilsons_interval_and_stands_beside_the_epochs_saved() -> None:
    record = study_of([0.5, 0.9, 0.8, 0.7], pruned=16)
    values = [0.8, 0.85, None, *[0.79] * 7]  # at the rank, above it, diverged, below it
    trained = record.trials[4:14]
    said = report(record, trained, lines_of(record, [*values, *[0.99] * 6]))
    # Wilson: (2 / 10 + z^2 / 20 -+ z sqrt(0.2 * 0.8 / 10 + z^2 / 400)) / (1 + z^2 / 10) with z = 1.96
    assert "False prunes: 2 of 10 (20%, 95 % Wilson interval 6% to 51%)" in said
    assert "a random sample of 16 pruned trials" in said
    assert "ends with #2, 0.8000." in said
    assert "Pruning saved 112 of 160 epochs (70%)." in said
    assert "| #4 | 0.3000 after 1 | 0.8000 | yes |" in said
    assert "| #6 | 0.3000 after 1 | (diverged) | no |" in said
    assert "do not begin" not in said


def test_of_losses_the_lower_ones_enter_the_top_tenth() -> None:
    record = study_of([0.5, 0.9, 0.8, 0.7], pruned=16, direction="minimize")
    said = report(record, record.trials[4:], lines_of(record, [0.7, 0.6, *[0.71] * 14]))
    assert "False prunes: 2 of 16" in said


def test_curves_that_do_not_begin_as_the_stored_ones_are_said() -> None:
    record = study_of([0.5], pruned=2)
    first, second = lines_of(record, [0.4, 0.4])
    said = report(record, record.trials[1:], [first, second | {"continues": False}])
    assert "1 of these curves do not begin as the stored ones." in said
    assert report(record, record.trials[1:], []) == "Nothing is trained yet."
