"""The SQL of a search's writes, on a real file. How they stand together: `tests/contracts`."""

import json
from collections.abc import Iterator

import optuna
import pytest
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from mc1opt.database import records, statements
from mc1opt.database.storage import StudyStorage
from tests.support.studies import new_storage, own_trial


@pytest.fixture
def storage() -> StudyStorage:
    return new_storage()


@pytest.fixture
def study(storage: StudyStorage) -> optuna.Study:
    """Four trials of ours, and two of other programs; beside it another study."""
    optuna.create_study(storage=storage, study_name="other").ask()
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    choices = CategoricalDistribution(["a", "b"])
    study.add_trial(create_trial(value=0.5, params={"x": "a"}, distributions={"x": choices}))
    for state in (TrialState.RUNNING, TrialState.WAITING, TrialState.FAIL):
        study.add_trial(own_trial(state))
    study.add_trial(own_trial(TrialState.PRUNED, user_attrs={records.DUPLICATE_OF: 1}))
    study.add_trial(create_trial(state=TrialState.RUNNING))
    return study


@pytest.fixture
def connection(storage: StudyStorage, study: optuna.Study) -> Iterator[sqlalchemy.Connection]:
    with storage.engine.begin() as connection:
        yield connection


def ids(study: optuna.Study) -> list[int]:
    return [trial._trial_id for trial in study.get_trials(deepcopy=False)]


def test_trials_have_begun_in_every_state_but_waiting(
    connection: sqlalchemy.Connection, study: optuna.Study
) -> None:
    assert {statements.study_of(connection, trial_id) for trial_id in ids(study)} == {study._study_id}
    assert statements.begun_trials(connection, study._study_id) == 5


def test_the_original_of_a_config_is_neither_a_failure_nor_a_duplicate_nor_passed_over(
    connection: sqlalchemy.Connection, study: optuna.Study
) -> None:
    config_id = study.trials[1].user_attrs[records.CONFIG_ID]
    _, running, waiting, _, duplicate, _ = ids(study)

    def original(trial_id: int, passed_over: set[int]) -> int | None:
        return statements.original_of(connection, study._study_id, trial_id, config_id, passed_over)

    assert original(duplicate, set()) == 1
    assert original(duplicate, {running}) == 2
    assert original(running, set()) == 2
    assert original(duplicate, {running, waiting}) is None


def test_a_distribution_of_another_program_is_not_one_of_ours(
    connection: sqlalchemy.Connection, study: optuna.Study
) -> None:
    first, running, waiting, *_ = ids(study)
    assert statements.own_distribution(connection, running, "x") is None
    stored = optuna.distributions.distribution_to_json(FloatDistribution(0, 1))
    connection.execute(
        sqlalchemy.text(
            "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) "
            "VALUES (:trial, 'x', 0.5, :stored)"
        ),
        {"trial": running, "stored": stored},
    )
    assert statements.own_distribution(connection, running, "x") is None
    assert json.loads(statements.own_distribution(connection, waiting, "x") or "") == json.loads(stored)
    assert statements.own_distribution(connection, first, "y") is None
