"""What a search will cost."""

import statistics

import pytest

from mc1opt.search.plan import LEAST_TRIALS, TRIAL_BYTES, expected_bytes, expected_seconds
from mc1opt.search.records import StudyRecord
from mc1opt.search.space import load_definition
from mc1opt.spec import Fidelity
from tests.search.display import study, trial
from tests.search.studies import run_study, stored

CNN = load_definition("cnn")
SECONDS = [1.0, 2.0, 3.0, 4.0, 5.0]
"""Of an epoch, in five complete trials of five epochs."""
OWN = study(*(trial(number, epoch_seconds=seconds) for number, seconds in enumerate(SECONDS)))


def plan(record: StudyRecord, **changes: object) -> float | None:
    fields = {
        "trials": 100,
        "fidelity": Fidelity(train_images=20_000, epochs=5),
        "max_macs": 20_000_000,
        "workers": 2,
        "device": "cpu",
        "precision": "float32",
    }
    return expected_seconds(CNN, record, **(fields | changes))  # type: ignore[arg-type]


def test_five_trials_of_the_study_say_how_long_the_others_take() -> None:
    assert plan(OWN) == pytest.approx(95 * 5 * statistics.mean(SECONDS) / 2)


def test_what_pruning_saves_is_in_the_mean() -> None:
    pruned = study(*OWN.trials, trial(5, "pruned", epoch_seconds=3.0))
    assert plan(pruned) == pytest.approx(94 * statistics.mean([*(5 * s for s in SECONDS), 9.0]) / 2)


def test_trials_that_were_not_trained_say_nothing() -> None:
    others = [trial(9, "too_large"), trial(10, "duplicate"), trial(11, "failed"), trial(12, "waiting")]
    assert plan(study(*OWN.trials, *others)) == plan(OWN)


def test_the_last_trial_is_not_divided_among_workers() -> None:
    assert plan(OWN, trials=6, workers=4) == pytest.approx(15.0)


def test_confirmations_are_whole_trainings_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = 5 * statistics.mean(SECONDS)
    assert plan(OWN, confirmations=6) == pytest.approx((95 + 6) * whole / 2)
    assert plan(OWN, trials=5, confirmations=1) == pytest.approx(whole)
    monkeypatch.setattr("mc1opt.search.plan._operations_per_second", lambda: 1e11)  # or noise would decide
    without, with_them = plan(study()), plan(study(), confirmations=6)
    assert without is not None
    assert with_them is not None
    assert with_them > 1.05 * without


def test_nothing_takes_no_time() -> None:
    assert plan(OWN, trials=5) == 0.0
    assert plan(OWN, trials=3) == 0.0


@pytest.mark.parametrize("count", [0, LEAST_TRIALS - 1])
def test_with_fewer_trials_the_time_comes_from_the_speed_of_the_cpu(count: int) -> None:
    seconds = plan(study(*OWN.trials[:count]))
    assert seconds is not None
    assert 1.0 < seconds < 1e6
    assert seconds != pytest.approx((100 - count) * 5 * statistics.mean(SECONDS[: count or 1]) / 2)


def test_the_time_grows_with_images_and_epochs() -> None:
    # The CPU is measured anew each time, and others use it: the factor of 50 is far beyond that.
    few = plan(study(), fidelity=Fidelity(train_images=1000, epochs=1))
    many = plan(study(), fidelity=Fidelity(train_images=10_000, epochs=5))
    assert few is not None
    assert many is not None
    assert 10 < many / few < 250


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_the_time_on_a_gpu_is_unknown_before_its_own_trials(device: str) -> None:
    assert plan(study(), device=device) is None
    assert plan(OWN, device=device) == plan(OWN)


def test_a_limit_below_all_networks_is_no_division_by_nothing() -> None:
    seconds = plan(study(), max_macs=1)
    assert seconds is not None
    assert seconds > 0.0


def test_disk_is_the_trials_and_the_kept_weights() -> None:
    record = study(
        trial(0, parameters=1000),
        trial(1, "pruned", parameters=5000),
        trial(2, "too_large", parameters=10**9),
    )
    assert expected_bytes(100, 5, record) == 100 * TRIAL_BYTES + 5 * 4 * 5000
    assert expected_bytes(1, 5, study()) > 1_000_000


def test_a_study_takes_about_as_much_disk_as_expected(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("disk") / "s.db"
    run_study(4, path=str(path))
    expected = expected_bytes(len(stored(str(path)).trials), 0, study())
    assert expected / 5 < path.stat().st_size < expected * 2
