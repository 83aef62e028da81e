"""Which two configs are compared, on what, and how long that is expected to take."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mc1opt.config import config_id, config_to_json
from mc1opt.data.sources import find_data
from mc1opt.database.records import StudyRecord, TrialRecord
from mc1opt.dataset import DataSet
from mc1opt.errors import DataError, UsageError
from mc1opt.explanation.plan import ExplainOptions, ExplainPlan, expected_seconds, explain_plan, plan_line
from mc1opt.measurement.trainings import OVERHEAD_MACS
from mc1opt.models.cost import cost
from mc1opt.presets import get_preset
from mc1opt.spec import Fidelity
from tests.support.curves import with_engine
from tests.support.image_sets import make_arrays, write_arrays, write_arrays_folder
from tests.support.retraining import record_of, small_config, small_images, trial_record

PRESET = "mlp-128-64"


def trial(number: int, value: float | None, **changes: Any) -> TrialRecord:
    own = small_config(number + 1)
    fields = {
        "state": "PRUNED" if value is None else "COMPLETE",
        "outcome": "pruned" if value is None else "complete",
        "value": value,
        "config": config_to_json(own),
        "config_id": config_id(own),
        "confirmations": [],
        "ended": f"2026-01-01T00:00:{60 - number:02d}",
    }
    return trial_record(number, **(fields | changes))


def record(*trials: TrialRecord, data: DataSet | None = None, **changes: Any) -> StudyRecord:
    images = data or small_images()
    found = record_of(*trials, data={"name": images.name, "sha256": images.sha256})
    return dataclasses.replace(found, **changes)


def plan(study: StudyRecord, **options: Any) -> ExplainPlan:
    fields = {"study": "s", "storage": "s.db", "workers": "2", "device": "cpu"}
    return explain_plan(ExplainOptions(**with_engine(fields | options)), study, None)  # type: ignore[arg-type]


THREE = (trial(0, 0.5), trial(1, 0.7), trial(2, 0.6), trial(3, None))


# ---- Which configs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "ends"),
    [
        ({}, ("#2", "#1")),  # of those that are not the best, #2 has completed first
        ({"source": "0"}, ("#0", "#1")),
        ({"source": "3", "target": 2}, ("#3", "#2")),
        ({"source": PRESET}, (f"preset {PRESET}", "#1")),
        ({"target": 2}, ("#1", "#2")),
    ],
)
def test_the_ends_are_those_that_are_named_else_the_best_and_the_first(
    options: dict[str, Any], ends: tuple[str, str]
) -> None:
    found = plan(record(*THREE), **options)
    assert (found.source, found.target) == ends
    target = small_config(int(ends[1][1:]) + 1)
    assert found.differences.target == target


def test_the_best_starting_point_comes_before_the_first_trial() -> None:
    late = "2026-01-02T00:00:00"
    points = (trial(4, 0.4, starting_point="a"), trial(5, 0.55, starting_point="b", ended=late))
    assert plan(record(*THREE, *points)).source == "#5"


def test_the_best_is_the_one_that_is_expected_to_be() -> None:
    again = [[{"seed": 1, "value": value}] for value in (0.55, 0.59)]
    trials = (trial(0, 0.5), trial(1, 0.7, confirmations=again[0]), trial(2, 0.6, confirmations=again[1]))
    assert plan(record(*trials)).target == "#2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "mlp-129"}, "mlp-129"),
        ({"source": "-1"}, "-1"),
        ({"source": "9"}, "no trial 9"),
        ({"target": 9}, "no trial 9"),
        ({"source": "4"}, "trial 4 .* no config"),
        ({"source": "5"}, "trial 5 .*passed over"),
        ({"source": "1"}, "same config"),
        ({"workers": "0"}, "--workers"),
        ({"device": "tpu"}, "tpu"),
    ],
)
def test_what_cannot_be_explained_is_said(options: dict[str, Any], message: str) -> None:
    odd = (trial(4, None, config=None, outcome="infeasible"), trial(5, None, foreign="written elsewhere"))
    with pytest.raises(UsageError, match=message):
        plan(record(*THREE, *odd), **options)


@pytest.mark.parametrize(
    ("trials", "message"), [((trial(0, None),), "no finished trial"), ((trial(0, 0.5),), "--from")]
)
def test_a_study_without_two_finished_trials_needs_names(
    trials: tuple[TrialRecord, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan(record(*trials))


def test_a_preset_that_does_not_fit_the_images_is_refused() -> None:
    arrays = make_arrays(train_images=100)
    small = [images[..., :8, :8] for images in (arrays.train_images, arrays.test_images)]
    write_arrays(Path("small"), dataclasses.replace(arrays, train_images=small[0], test_images=small[1]))
    study = record(*THREE, data=find_data(Path("small")))
    with pytest.raises(UsageError, match="cnn-32-128 is no network"):
        plan(study, source="cnn-32-128")


def test_other_images_are_refused() -> None:
    study = record(*THREE)
    write_arrays_folder(Path("others"), train_images=100)
    with pytest.raises(DataError, match="--data"):
        plan(study, data=Path("others"))


def test_another_programs_study_is_refused() -> None:
    with pytest.raises(UsageError, match="not one of mc1opt's"):
        plan(record_of(*THREE))


# ---- What is trained -------------------------------------------------------------------------------------


def test_trainings_are_the_searchs_without_its_short_schedule() -> None:
    fidelity = Fidelity(train_images=100, epochs=6, short_epochs=2, validation="unused")
    found = plan(record(*THREE, fidelity=fidelity), seeds=2)
    job = found.job(("widths", small_config(5), 1))
    assert job.training.fidelity == Fidelity(train_images=100, epochs=6, validation="unused")
    assert job.training.seed == found.seeds[1]
    assert (job.label, job.training.weights) == ("widths seed 2", None)
    assert found.least_std == pytest.approx(1 / 80 / 12**0.5)


# ---- How long that takes ---------------------------------------------------------------------------------


def test_the_time_is_by_the_trials_of_this_device() -> None:
    timed = {"macs": 1_000_000, "device": "cpu"}
    study = record(
        trial(0, 0.5, epoch_seconds=3.0, **timed),
        trial(1, 0.7, epoch_seconds=6.0, **timed),
        trial(2, 0.6, epoch_seconds=9.0, **timed),
        trial(3, 0.6, epoch_seconds=900.0, macs=1_000_000, device="cuda"),
    )
    found = plan(study, source="0")
    shape = found.data.shape
    macs = [
        cost(config.architecture, shape).macs
        for config in (found.differences.source, found.differences.target)
    ]
    expected = 6.0 / (1_000_000 + OVERHEAD_MACS) * (sum(macs) / 2 + OVERHEAD_MACS) * found.fidelity.epochs
    assert expected_seconds(study, found, 10) == pytest.approx(expected * 10 / 2)
    assert expected_seconds(record(*THREE), found, 10) is None


def test_the_line_says_how_much_is_trained_at_most() -> None:
    study = record(*THREE)
    found = plan(study, source=PRESET)
    line = plan_line(study, found, 2, 7)
    assert "9 trainings" in line
    assert "already: 2" in line
    assert ", ".join(found.differences.groups) in line
    assert get_preset(PRESET).name in line
    assert "nothing is left" in plan_line(study, found, 9, 0)
