"""How many epochs fit into an hour, by seconds that belong to this machine."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from mc1opt.config import MLP, SGD, Config, LinearLayer, config_id
from mc1opt.database.records import StudyRecord, TrialRecord
from mc1opt.errors import StorageError
from mc1opt.machine.environment import versions
from mc1opt.retraining.comparison import Candidate
from mc1opt.retraining.epochs import (
    default_epochs,
    epoch_costs,
    makespan,
    remember_epochs,
    remembered_epochs,
    with_seconds_of_this_machine,
)
from mc1opt.spec import DataSet, EpochResult, Fidelity, Training
from tests.support.curves import CurvePool

DATA = DataSet(name="cifar10", folder="", sha256="0" * 64, train_images=50_000, validation_images=5_000)
SEARCH = Fidelity(train_images=10_000, epochs=8)
MODELS = Path("models")


def candidate(number: int, epoch_seconds: float | None = 2.0) -> Candidate:
    config = Config(
        architecture=MLP(layers=(LinearLayer(width=number),)), optimizer=SGD(learning_rate=0.1), batch_size=10
    )
    return Candidate(number, config_id(config), config, 0.8, epoch_seconds)


# ---- Epochs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("seeds", [1, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_trainings_of_equal_length_take_as_many_rounds_as_the_workers_need(
    count: int, seeds: int, workers: int
) -> None:
    first, second = 1.5, 2.0
    rounds = math.ceil(count * seeds / workers) * first + math.ceil(seeds / workers) * second
    expected = max(5, min(200, math.floor(3600 / rounds)))
    assert default_epochs(((first,) * count, second), seeds=seeds, workers=workers) == expected


def test_default_epochs_stay_within_their_bounds() -> None:
    assert default_epochs(((1000.0,), 1000.0), seeds=3, workers=1) == 5
    assert default_epochs(((0.001,), 0.001), seeds=3, workers=1) == 200
    assert default_epochs(None, seeds=3, workers=1) == 20


def test_folds_count_by_their_images() -> None:
    # 3 x 2 s, 3 x 3 s, then 10 folds of 0.9 x 3 s.
    assert default_epochs(((2.0,), 3.0), seeds=3, folds=[0.9] * 10, workers=1) == int(3600 / (6 + 9 + 27))


def test_trainings_begin_when_a_worker_is_free() -> None:
    assert makespan([3, 1, 1, 1, 2], 2) == 5
    assert makespan([], 2) == 0
    assert makespan([1, 2, 3], 1) == 6


def test_what_is_remembered_is_found_by_its_request() -> None:
    MODELS.mkdir()
    assert remembered_epochs(MODELS, "a") is None
    remember_epochs(MODELS, "a", 7)
    remember_epochs(MODELS, "b", 9)
    remember_epochs(MODELS, "b", 8)
    assert [remembered_epochs(MODELS, request) for request in "abc"] == [7, 8, None]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": "y"}', '{"a": 0}', "[" * 100_000], ids=len)
def test_damaged_notes_are_made_anew(content: str) -> None:
    MODELS.mkdir()
    (MODELS / "epochs.json").write_text(content)
    assert remembered_epochs(MODELS, "a") is None
    remember_epochs(MODELS, "a", 7)
    assert remembered_epochs(MODELS, "a") == 7


def test_notes_that_cannot_be_written_are_an_error_for_people() -> None:
    MODELS.touch()
    with pytest.raises(StorageError, match=r"models/epochs\.json cannot be written"):
        remember_epochs(MODELS, "a", 7)


# ---- Seconds ---------------------------------------------------------------------------------------------


def test_the_seconds_of_an_epoch_grow_with_its_images() -> None:
    """A validation image is a third of a training image: it has a forward pass alone."""
    measured = 10_000 + 5_000 / 3
    costs = epoch_costs([candidate(1, 2.0), candidate(2, 3.0), candidate(3, None)], SEARCH, DATA)
    assert costs is not None
    assert costs[0] == pytest.approx([s * (45_000 + 5_000 / 3) / measured for s in (2.0, 3.0, 3.0)])
    assert costs[1] == pytest.approx(3.0 * 50_000 / measured)  # the slower one may win


@pytest.mark.parametrize(("seconds", "search"), [(None, SEARCH), (2.0, None)])
def test_nothing_is_known_without_seconds_or_what_they_belong_to(
    seconds: float | None, search: Fidelity | None
) -> None:
    assert epoch_costs([candidate(1, seconds)], search, DATA) is None


class TimedPool(CurvePool):
    """An epoch takes 7 s for each 1,024 images; a validation image counts as a third."""

    def __init__(self) -> None:
        super().__init__(2)
        self.trainings: list[Training] = []

    def train(self, training: Training, on_epoch: Callable[[EpochResult], bool]) -> bool:
        self.trainings.append(training)
        images = training.fidelity.train_images + training.data.validation_images / 3
        for epoch in range(training.fidelity.epochs):
            result = EpochResult(epoch=epoch, loss=1.0, validation_accuracy=0.5, seconds=7 * images / 1024)
            if not on_epoch(result):
                return False
        return True


def study(*trials: TrialRecord) -> StudyRecord:
    fields = {field.name: None for field in dataclasses.fields(StudyRecord)}
    return StudyRecord(**(fields | {"study": "s", "fidelity": SEARCH, "trials": list(trials)}))


def trial(number: int, device: str = "cpu", **changes: object) -> TrialRecord:
    fields = {field.name: None for field in dataclasses.fields(TrialRecord)}
    known = {**versions(1, "float32"), **changes}
    return TrialRecord(**(fields | {"number": number, "device": device, "versions": known}))


def timed(record: StudyRecord, *candidates: Candidate) -> tuple[list[float | None], TimedPool, list[str]]:
    """The candidates' seconds, the pool, and the lines that were written."""
    pool = TimedPool()
    lines: list[str] = []
    found = with_seconds_of_this_machine(
        candidates,
        record,
        data=DATA,
        device="cpu",
        precision="float32",
        new_pool=lambda: pool,
        interrupted=lambda: False,
        write=lines.append,
    )
    return [each.epoch_seconds for each in found], pool, lines


def test_the_searchs_own_seconds_count_where_it_ran_on_such_a_machine() -> None:
    seconds, pool, lines = timed(study(trial(1), trial(2)), candidate(1, 2.0), candidate(2, 3.0))
    assert (seconds, pool.trainings, lines) == ([2.0, 3.0], [], [])


@pytest.mark.parametrize(
    "elsewhere",
    [trial(2, device="cuda"), trial(2, cpu="AVX9000"), trial(2, precision="bfloat16")],
    ids=["device", "capability", "precision"],
)
def test_those_of_another_kind_of_machine_are_measured_again(elsewhere: TrialRecord) -> None:
    seconds, pool, lines = timed(study(trial(1), elsewhere), candidate(1, 2.0), candidate(2, 3.0))
    expected = 7 * (10_000 + 5_000 / 3) / 1024
    assert seconds == [2.0, pytest.approx(expected)]
    assert {training.config for training in pool.trainings} == {candidate(2).config}
    assert pool.closed
    assert "another kind of machine" in lines[0]
