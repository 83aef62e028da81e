"""What a search needs of a study database, whichever it is: SQLite and a real PostgreSQL."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from mc1opt.search.records import OWNER
from mc1opt.search.storage import StudyStorage, open_storage

ME = {"host": "here", "boot": "b", "pid": 1, "started": 2}
YOU = {**ME, "pid": 3}


@pytest.fixture
def storage(storage_url: str) -> Iterator[StudyStorage]:
    storage = open_storage(storage_url, create=True, owner=ME, threads=8)
    yield storage
    storage.remove_session()
    storage.engine.dispose()


@pytest.fixture
def study(storage: StudyStorage) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name="s", direction="maximize")


def test_a_new_trial_has_its_owner_from_the_first_moment(study: optuna.Study) -> None:
    assert study.ask().user_attrs[OWNER] == ME
    assert study.trials[0].state == TrialState.RUNNING
    assert study.trials[0].datetime_start is not None


def test_a_waiting_trial_that_is_taken_gets_its_owner(study: optuna.Study) -> None:
    study.enqueue_trial({"x": 1})
    trial = study.ask()
    assert study.trials[trial.number].user_attrs[OWNER] == ME
    assert study.trials[trial.number].state == TrialState.RUNNING


def test_a_waiting_trial_is_taken_once_by_many_threads(storage: StudyStorage, study: optuna.Study) -> None:
    for x in range(5):
        study.enqueue_trial({"x": x})
        trial_id = study.trials[-1]._trial_id
        taken: list[bool] = []
        barrier = threading.Barrier(8)

        def take(
            trial_id: int = trial_id, taken: list[bool] = taken, barrier: threading.Barrier = barrier
        ) -> None:
            barrier.wait()
            taken.append(storage.set_trial_state_values(trial_id, TrialState.RUNNING))

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == [False] * 7 + [True]


def test_waiting_trials_are_taken_once_by_many_processes(storage_url: str, study: optuna.Study) -> None:
    for x in range(20):
        study.enqueue_trial({"x": x})
    code = (
        "import sys, optuna\n"
        "from mc1opt.search.storage import open_storage\n"
        f"storage = open_storage({storage_url!r}, create=False, owner={{'me': sys.argv[1]}}, threads=1)\n"
        "study = optuna.load_study(study_name='s', storage=storage)\n"
        "print(*(study.ask().number for _ in range(5)))\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(i)], stdout=subprocess.PIPE, text=True)
        for i in range(4)
    ]
    numbers = []
    for process in processes:
        output, _ = process.communicate(timeout=90)
        assert process.returncode == 0
        numbers += [int(number) for number in output.split()]
    assert sorted(numbers) == list(range(20))
    assert {trial.state for trial in study.trials} == {TrialState.RUNNING}


def test_a_finished_trial_cannot_be_taken(storage: StudyStorage, study: optuna.Study) -> None:
    trial = study.ask()
    study.tell(trial, 0.5)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)


def test_only_whoever_sees_the_right_owner_sets_a_trial_back(
    storage: StudyStorage, study: optuna.Study
) -> None:
    trial = study.ask()
    assert not storage.set_back_to_waiting(trial._trial_id, YOU, {"interrupted": 1})
    assert study.trials[0].state == TrialState.RUNNING
    assert "interrupted" not in study.trials[0].user_attrs
    assert storage.set_back_to_waiting(trial._trial_id, ME, {"interrupted": 1})
    assert not storage.set_back_to_waiting(trial._trial_id, ME, {"interrupted": 1})
    assert study.trials[0].state == TrialState.WAITING
    assert study.trials[0].user_attrs == {OWNER: None, "interrupted": 1}


def test_a_trial_that_was_set_back_keeps_its_number_and_parameters(
    storage: StudyStorage, study: optuna.Study
) -> None:
    trial = study.ask()
    x = trial.suggest_float("x", 0, 1)
    trial.report(0.25, 0)
    storage.set_back_to_waiting(trial._trial_id, ME, {})
    again = study.ask()
    assert again.number == trial.number
    assert again.suggest_float("x", 0, 1) == x
    assert study.trials[0].intermediate_values == {0: 0.25}


def test_a_finished_trial_is_not_set_back(storage: StudyStorage, study: optuna.Study) -> None:
    trial = study.ask()
    study.tell(trial, 0.5)
    assert not storage.set_back_to_waiting(trial._trial_id, ME, {"interrupted": 1})
    assert study.trials[0].state == TrialState.COMPLETE
    assert study.trials[0].user_attrs[OWNER] == ME


def test_several_attributes_are_written_at_once_and_replace_older_ones(
    storage: StudyStorage, study: optuna.Study
) -> None:
    trial = study.ask()
    storage.set_user_attributes(trial._trial_id, {"a": 1, "b": [0.1, None]})
    storage.set_user_attributes(trial._trial_id, {"a": "two"})
    assert study.trials[0].user_attrs == {OWNER: ME, "a": "two", "b": [0.1, None]}


def test_parameters_that_are_written_together_are_there_at_the_end_and_not_before(
    storage: StudyStorage, study: optuna.Study
) -> None:
    trial = study.ask()
    with storage.writing_parameters_together():
        x, kind = trial.suggest_float("x", 0, 1), trial.suggest_categorical("kind", ["a", None])
        assert trial.suggest_float("x", 0, 1) == x
        assert storage.get_trial(trial._trial_id).params == {}
    assert storage.get_trial(trial._trial_id).params == {"x": x, "kind": kind}


def test_parameters_that_were_drawn_before_an_error_are_written(
    storage: StudyStorage, study: optuna.Study
) -> None:
    trial = study.ask()

    def draw_and_fail() -> None:
        with storage.writing_parameters_together():
            trial.suggest_float("x", 0, 1)
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        draw_and_fail()
    assert storage.get_trial(trial._trial_id).params.keys() == {"x"}


def test_a_parameter_of_another_kind_than_before_is_refused(
    storage: StudyStorage, study: optuna.Study
) -> None:
    study.ask().suggest_float("x", 0, 1)
    trial = study.ask()
    with pytest.raises(ValueError, match="different distribution"), storage.writing_parameters_together():
        trial.suggest_categorical("x", ["a", "b"])
    assert storage.get_trial(trial._trial_id).params == {}
