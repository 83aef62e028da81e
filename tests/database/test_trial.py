"""A trial of this process: what is written on it, and that it stays its own."""

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from mc1opt.database import records
from mc1opt.database.ownership import LostTrialError
from mc1opt.database.storage import StudyStorage
from mc1opt.database.trial import OwnTrial, system_attributes, trial_id, trials_by_id
from tests.support.studies import ELSEWHERE, new_storage


@pytest.fixture
def storage() -> StudyStorage:
    return new_storage()


@pytest.fixture
def study(storage: StudyStorage) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name="s", direction="maximize")


@pytest.fixture
def own(study: optuna.Study, storage: StudyStorage) -> OwnTrial:
    return OwnTrial(study.ask(), storage)


def test_an_epoch_is_reported_once_and_another_value_replaces_it(own: OwnTrial) -> None:
    assert own.report(0.5, 0)
    assert own.report(0.6, 1)
    assert not own.report(0.5, 0)  # a second report to Optuna would be a warning, and so an error
    assert own.report(0.7, 1)
    assert own.stored().intermediate_values == {0: 0.5, 1: 0.7}


def test_the_pruner_is_shown_the_value_that_replaces_another(own: OwnTrial, study: optuna.Study) -> None:
    class Shown(optuna.pruners.BasePruner):
        values: dict[int, float]

        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            self.values = trial.intermediate_values
            return False

    study.pruner = shown = Shown()
    own.report(0.5, 0)
    own.report(0.4, 0)
    own.asked.should_prune()
    assert shown.values == {0: 0.4}


def test_a_trial_that_waits_again_has_been_interrupted_once_more(own: OwnTrial, study: optuna.Study) -> None:
    waiting = own.set_back()
    assert (waiting.state, waiting.user_attrs[records.INTERRUPTED]) == (TrialState.WAITING, 1)
    assert OwnTrial(study.ask(), new_storage()).number == own.number


@pytest.mark.parametrize(
    "write",
    [
        lambda own: own.write({"a": 1}),
        lambda own: own.claim_config({records.CONFIG_ID: "c"}),
        lambda own: own.report(0.5, 0),
        lambda own: own.tell(0.5),
    ],
)
def test_nothing_is_written_on_a_trial_that_is_another_process_s(own: OwnTrial, write: Any) -> None:
    new_storage(owner=ELSEWHERE).take_over(own.id, own.stored().user_attrs[records.OWNER])
    with pytest.raises(LostTrialError):
        write(own)
    assert own.stored().state == TrialState.RUNNING
    assert own.stored().intermediate_values == {}


def test_a_trial_that_was_ended_from_outside_is_lost(own: OwnTrial, study: optuna.Study) -> None:
    owner = own.stored().user_attrs[records.OWNER]
    optuna.load_study(study_name="s", storage=new_storage(owner=owner)).tell(own.number, 0.9)
    with pytest.raises(LostTrialError):
        own.tell(0.5)


def test_trials_and_attributes_of_another_study_are_left_out(study: optuna.Study) -> None:
    other = optuna.create_study(storage=new_storage(), study_name="other")
    own, others = study.ask(), other.ask()
    ids = [trial_id(trial) for trial in (*study.trials, *other.trials)]
    assert [trial.number for trial in trials_by_id(study, [*ids, 999]).values()] == [own.number]
    assert others.number == own.number
    assert system_attributes(study).keys() == system_attributes(other).keys()
