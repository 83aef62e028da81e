"""Which weights are kept: real files of a search, and where they lie."""

from pathlib import Path

import optuna
from optuna.trial import TrialState, create_trial

from mc1opt.search.records import StudyRecord
from mc1opt.search.weights import keep_best_weights, kept_weights, study_folder, weights_path
from tests.search.studies import run_study, stored

FOLDER = Path("weights/s")


def best_complete(record: StudyRecord, keep: int) -> list[int]:
    complete = [trial for trial in record.trials if trial.state == "COMPLETE"]
    assert len(complete) > keep
    complete.sort(key=lambda trial: (-(trial.value or 0.0), trial.number))
    return sorted(trial.number for trial in complete[:keep])


def test_a_search_keeps_the_weights_of_exactly_the_best_complete_trials(whole: Path) -> None:
    best = best_complete(stored(str(whole / "s.db")), 3)
    files = {path.name for path in (whole / "weights/s").iterdir()}
    assert files == {f"trial-{number:05d}.safetensors" for number in best}


def test_so_it_does_with_four_workers() -> None:
    record = run_study(8, workers=4, keep=2, pruner="none").record
    assert list(kept_weights(FOLDER)) == best_complete(record, 2)


def test_no_weights_are_kept_where_none_are_wanted() -> None:
    run_study(3, keep=0)
    assert kept_weights(FOLDER) == {}


def trials_with(states: list[tuple[TrialState, float | None]]) -> list[optuna.trial.FrozenTrial]:
    """Trials in these states, numbered from 0, each with a file of weights."""
    study = optuna.create_study(direction="maximize")
    FOLDER.mkdir(parents=True)
    for number, (state, value) in enumerate(states):
        study.add_trial(create_trial(state=state, value=value))
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


def test_other_files_in_the_folder_are_neither_listed_nor_deleted() -> None:
    trials = trials_with([(TrialState.COMPLETE, 0.5)])
    others = {FOLDER / name for name in ("trial-x.safetensors", "trial-7.safetensors.tmp", "notes.txt")}
    for path in others:
        path.touch()
    keep_best_weights(FOLDER, trials, 0)
    assert kept_weights(FOLDER) == {}
    assert set(FOLDER.iterdir()) == others


def test_a_plain_name_is_the_folders_name() -> None:
    assert study_folder(Path("w"), "cnn-2.b_c") == Path("w/cnn-2.b_c")


def test_every_name_has_a_folder_of_its_own_directly_below_the_parent() -> None:
    # The empty name, too: what is deleted with a study must not be the folder of all.
    names = ["cnn", "a/b", "a-b", "a b", "../cnn", "..", ".", "", "/", "ä", "x" * 60, "x" * 61, "x" * 300]
    folders = [study_folder(Path("w"), name) for name in names]
    assert len(set(folders)) == len(names)
    for folder in folders:
        assert folder.parent == Path("w")
        assert folder.name not in ("", ".", "..")
        folder.mkdir(parents=True)
