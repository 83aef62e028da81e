"""What is read back from a stored trial."""

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from mc1opt.config import config_from_json, config_id
from mc1opt.database import records
from mc1opt.database.opening import load_study
from mc1opt.database.ownership import this_owner
from mc1opt.database.records import is_counted, outcome, trial_record
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.models.cost import cost
from mc1opt.search.stop_conditions import untrained_in_a_row
from mc1opt.seeds import derive_seed
from tests.support.studies import (
    DATA,
    EPOCHS,
    SEED,
    counted,
    new_storage,
    own_attributes,
    run_study,
    stored,
)

FAILURE = {records.FAILURE: {"kind": "diverged", "message": "m"}}


def ended(
    state: TrialState = TrialState.PRUNED,
    attributes: dict[str, Any] | None = None,
    too_large: float | None = None,
    reports: Sequence[float] = (),
    **fields: Any,
) -> FrozenTrial:
    """A stored trial of mc1opt's, read back from a study; one that is complete has a report."""
    reports = reports or ([fields["value"]] if "value" in fields else [])
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    for key, value in (own_attributes() | (attributes or {})).items():
        trial.set_user_attr(key, value)
    for epoch, value in enumerate(reports):
        trial.report(value, epoch)
    if too_large is not None:
        trial.set_constraint(records.TOO_LARGE, too_large)
    if state.is_finished():
        study.tell(trial, fields.get("value"), state=state)
    return study.trials[0]


@pytest.mark.parametrize(
    ("trial", "expected"),
    [
        (ended(TrialState.COMPLETE, value=0.5), "complete"),
        (ended(), "pruned"),
        (ended(too_large=0.0), "pruned"),
        (ended(too_large=0.1), "too_large"),
        (ended(attributes={records.INFEASIBLE: "why"}), "infeasible"),
        (ended(attributes={records.INFEASIBLE: "", records.CONFIG: None}), "infeasible"),
        (ended(attributes={records.DUPLICATE_OF: 0}), "duplicate"),
        (ended(attributes=FAILURE), "failed"),
        (ended(TrialState.FAIL), "failed"),
        (ended(TrialState.FAIL, attributes=FAILURE), "failed"),
        (ended(TrialState.RUNNING), "running"),
        (create_trial(state=TrialState.WAITING), "waiting"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_outcome_of_a_trial(trial: FrozenTrial, expected: str) -> None:
    assert outcome(trial) == expected
    assert is_counted(trial) == (expected in ("complete", "pruned"))


def test_a_pruned_trials_last_report_is_not_its_value() -> None:
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    trial.report(0.8, 0)
    study.tell(trial, state=TrialState.PRUNED)
    assert study.trials[0].value == 0.8
    assert trial_record(study.trials[0]).value is None


def test_a_trial_took_what_its_epochs_took_whatever_the_wall_clock_says() -> None:
    trial = ended(TrialState.COMPLETE, value=0.5)
    assert trial.datetime_complete is not None
    trial.datetime_start = trial.datetime_complete + timedelta(hours=1)
    assert trial_record(trial).seconds == 0.0
    trial.datetime_start = trial.datetime_complete - timedelta(seconds=3)
    assert trial_record(trial).seconds == 3.0
    trial.datetime_start = trial.datetime_complete - timedelta(days=1)
    trial.intermediate_values = {0: 0.4, 1: 0.5}
    trial.user_attrs[records.EPOCH_SECONDS] = 1.5
    assert trial_record(trial).seconds == 3.0
    assert trial_record(ended(TrialState.RUNNING)).seconds is None


def test_untrained_trials_in_a_row_are_counted_from_the_last_ended_one() -> None:
    trained, too_large = ended(TrialState.COMPLETE, value=0.5), ended(too_large=1.0)
    duplicate, running = ended(attributes={records.DUPLICATE_OF: 0}), ended(TrialState.RUNNING)
    assert untrained_in_a_row([]) == 0
    assert untrained_in_a_row([too_large, duplicate]) == 2
    assert untrained_in_a_row([too_large, trained, duplicate, running, too_large, running]) == 2
    assert untrained_in_a_row([too_large, create_trial(value=0.9), too_large]) == 2
    assert untrained_in_a_row([ended(attributes={records.INFEASIBLE: ""}), duplicate]) == 2
    assert untrained_in_a_row([too_large, trained]) == 0
    assert untrained_in_a_row([too_large, ended(attributes=FAILURE)]) == 0


def test_a_trial_has_all_that_is_needed_to_train_it_again(whole: Path) -> None:
    path = str(whole / "s.db")
    attributes = {trial.number: trial.user_attrs for trial in load_study(new_storage(path), "s").trials}
    record = stored(path)
    assert {"complete", "pruned", "failed", "too_large"} <= {trial.outcome for trial in record.trials}
    for trial in record.trials:
        assert trial.config is not None
        config = config_from_json(trial.config)
        assert trial.config_id == config_id(config)
        assert trial.seed == derive_seed(SEED, trial.number)
        size = cost(config.architecture, CIFAR10_SHAPE)
        assert (trial.macs, trial.parameters) == (size.macs, size.parameters)
        kept = attributes[trial.number]
        assert kept[records.FIDELITY] == {"train_images": 1000, "epochs": EPOCHS}
        assert kept[records.DATA] == {"name": DATA.name, "sha256": DATA.sha256}
        # Another process of the tests may have trained them.
        assert kept[records.OWNER].keys() == this_owner().keys()
        assert kept[records.DEVICE] == "cuda"
        assert kept[records.VERSIONS]["optuna"] == optuna.__version__
        assert records.COMMIT in kept
        if trial.values_by_epoch:
            assert len(kept[records.LOSSES]) == len(trial.values_by_epoch)
            assert trial.epoch_seconds == pytest.approx(0.01)
        if trial.value is not None:
            assert trial.value == trial.values_by_epoch[-1]
            assert len(trial.values_by_epoch) == EPOCHS


def test_a_record_goes_through_json_and_back() -> None:
    record = run_study(3).record
    read = json.loads(json.dumps(record.to_json()))
    assert read["study"] == "s"
    assert read["seed"] == SEED
    assert read["fidelity"] == {"train_images": 1000, "epochs": EPOCHS}
    assert [trial["number"] for trial in read["trials"]] == [0, 1, 2]
    assert read["best"]["value"] == max(trial.value or 0.0 for trial in counted(record))


def test_a_study_of_plain_optuna_can_be_read() -> None:
    study = optuna.create_study(storage=new_storage(), study_name="plain", direction="minimize")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    record = stored(name="plain")
    assert record.direction == "minimize"
    assert record.fidelity is None
    assert [trial.config for trial in record.trials] == [None, None]
    assert [trial.outcome for trial in record.trials] == ["foreign", "foreign"]
    assert record.to_json()["best"] is None
