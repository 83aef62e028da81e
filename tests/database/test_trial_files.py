"""Which weights are kept: real files of a search, and where they lie."""

from pathlib import Path

import optuna
from optuna.trial import TrialState

from mc1opt.database import records
from mc1opt.database.ownership import this_owner
from mc1opt.database.records import StudyRecord, by_value
from mc1opt.database.trial_files import (
    checkpoint_path,
    confirmation_checkpoint_path,
    keep_best_weights,
    kept_weights,
    study_folder,
    tidy,
    weights_path,
)
from mc1opt.files import remove_checkpoint
from tests.support.studies import own_trial, run_study, stored

FOLDER = Path("s.db.files/checkpoints/s")


def best_complete(record: StudyRecord, keep: int) -> list[int]:
    complete = by_value(record.trials)
    assert len(complete) > keep
    return sorted(trial.number for trial in complete[:keep])


def test_a_search_keeps_the_weights_of_exactly_the_best_complete_trials(whole: Path) -> None:
    best = best_complete(stored(str(whole / "s.db")), 3)
    files = {path.name for path in (whole / "s.db.files/checkpoints/s").iterdir()}
    assert files == {f"trial-{number:05d}.safetensors" for number in best}


def test_so_it_does_with_four_workers() -> None:
    record = run_study(8, workers=4, keep=2, pruner="none").record
    assert list(kept_weights(FOLDER)) == best_complete(record, 2)


def trials_with(states: list[tuple[TrialState, float | None]]) -> list[optuna.trial.FrozenTrial]:
    """Trials in these states, numbered from 0, each with a file of weights."""
    study = optuna.create_study(direction="maximize")
    FOLDER.mkdir(parents=True)
    for number, (state, value) in enumerate(states):
        study.add_trial(own_trial(state, value))
        weights_path(FOLDER, number).touch()
    return study.trials


def test_of_equal_trials_the_earlier_one_is_kept_and_running_ones_are_let_alone() -> None:
    trials = trials_with(
        [
            (TrialState.COMPLETE, 0.5),
            (TrialState.RUNNING, None),
            (TrialState.COMPLETE, 0.7),
            (TrialState.COMPLETE, 0.7),
            (TrialState.COMPLETE, 0.7),
        ]
    )
    keep_best_weights(FOLDER, trials, 2)
    assert list(kept_weights(FOLDER)) == [1, 2, 3]


def test_a_confirmed_trial_keeps_its_weights_when_luckier_ones_come() -> None:
    trials = trials_with([(TrialState.COMPLETE, value) for value in (0.80, 0.79, 0.805, 0.81)])
    for trial, again in zip(trials, (0.80, 0.70), strict=False):
        trial.set_user_attr(records.CONFIRMATIONS, [{"seed": seed, "value": again} for seed in (1, 2)])
    keep_best_weights(FOLDER, trials, 1)
    assert list(kept_weights(FOLDER)) == [0, 3]


def test_other_files_in_the_folder_are_neither_listed_nor_deleted() -> None:
    trials = trials_with([(TrialState.COMPLETE, 0.5)])
    names = ("trial-x.safetensors", "trial-7.safetensors.tmp", "notes.txt", ".hidden.1.tmp")
    others = {FOLDER / name for name in (*names, "trial-0.checkpoint.txt", "trial-x.checkpoint")}
    for path in others:
        path.touch()
    tidy(FOLDER, trials, keep=0)
    assert kept_weights(FOLDER) == {}
    assert set(FOLDER.iterdir()) == others


# ---- What killed processes leave -------------------------------------------------------------------------

STATES = [
    (TrialState.COMPLETE, 0.5),
    (TrialState.COMPLETE, 0.7),
    (TrialState.PRUNED, None),
    (TrialState.FAIL, None),
    (TrialState.WAITING, None),
    (TrialState.RUNNING, None),
]


def with_leftovers() -> list[optuna.trial.FrozenTrial]:
    """Each trial has weights, a checkpoint, and the beginnings of both that a process did not finish."""
    trials = trials_with(STATES)
    for number in range(len(trials) + 1):
        for path in (checkpoint_path(FOLDER, number), weights_path(FOLDER, number)):
            path.touch()
            path.with_name(f".{path.name}.123.tmp").touch()
    return trials


def numbers(pattern: str) -> list[int]:
    return sorted(int(path.name.split("-")[1][:5]) for path in FOLDER.glob(pattern))


def test_files_of_ended_trials_go_and_those_of_others_stay() -> None:
    tidy(FOLDER, with_leftovers(), keep=1)
    # The last number is of no trial that this study has.
    assert numbers("trial-*.checkpoint") == [4, 5, 6]
    assert numbers("trial-*.safetensors") == [1, 4, 5, 6]
    assert numbers(".trial-*.tmp") == [5, 5, 6, 6]


def test_the_checkpoint_of_a_confirmation_goes_when_that_is_recorded() -> None:
    study = optuna.create_study(direction="maximize")
    study.add_trial(
        own_trial(TrialState.COMPLETE, 0.5, user_attrs={records.CONFIRMATIONS: [{"seed": 11, "value": 0.5}]})
    )
    FOLDER.mkdir(parents=True)
    paths = [confirmation_checkpoint_path(FOLDER, 0, seed) for seed in (11, 12)]
    for path in paths:
        path.touch()
    tidy(FOLDER, study.trials, keep=1)
    assert list(FOLDER.iterdir()) == paths[1:]


def test_a_checkpoint_that_another_process_is_writing_for_a_confirmation_stays() -> None:
    living, dead = this_owner(), {**this_owner(), "started": -1}
    study = optuna.create_study(direction="maximize")
    claims = [{"seed": 11, "owner": living}, {"seed": 12, "owner": dead}]
    study.add_trial(own_trial(TrialState.COMPLETE, 0.5, user_attrs={records.CONFIRMING: claims}))
    FOLDER.mkdir(parents=True)
    paths = [FOLDER / f".trial-00000-again-{seed}.checkpoint.7.tmp" for seed in (11, 12, 13)]
    for path in paths:
        path.touch()
    tidy(FOLDER, study.trials, keep=1)
    assert list(FOLDER.iterdir()) == paths[:1]


def test_a_study_without_files_needs_no_folder() -> None:
    tidy(FOLDER, [], keep=1)
    assert not FOLDER.exists()


def test_a_search_begins_by_deleting_them() -> None:
    run_study(2, pruner="none")
    left = [checkpoint_path(FOLDER, 0), FOLDER / ".trial-00001.checkpoint.7.tmp"]
    for path in left:
        path.touch()
    run_study(2, pruner="none")
    assert not any(path.exists() for path in left)
    assert list(kept_weights(FOLDER)) == [0, 1]


def test_of_a_checkpoint_that_is_deleted_nothing_is_left() -> None:
    FOLDER.mkdir(parents=True)
    path = checkpoint_path(FOLDER, 3)
    for left in (path, path.with_name(f".{path.name}.1.tmp"), path.with_name(f".{path.name}.22.tmp")):
        left.touch()
    checkpoint_path(FOLDER, 4).touch()
    remove_checkpoint(path)
    remove_checkpoint(path)
    assert list(FOLDER.iterdir()) == [checkpoint_path(FOLDER, 4)]


def test_every_name_has_a_folder_of_its_own_directly_below_the_parent() -> None:
    assert study_folder(Path("w"), "cnn-2.b_c") == Path("w/cnn-2.b_c")
    # The empty name, too: what is deleted with a study must not be the folder of all.
    names = ["cnn", "a/b", "a-b", "a b", "../cnn", "..", ".", "", "/", "ä", "x" * 60, "x" * 61, "x" * 300]
    folders = [study_folder(Path("w"), name) for name in names]
    assert len(set(folders)) == len(names)
    for folder in folders:
        assert folder.parent == Path("w")
        assert folder.name not in ("", ".", "..")
        folder.mkdir(parents=True)
