"""What a retraining trains, how long that takes, and which retraining it is."""

import math
from pathlib import Path

import pytest

from mc1opt.measurement.store import TrainingStore
from mc1opt.retraining.plan import Progress, makespan
from mc1opt.seeds import derive_seed
from tests.support.measuring import stored_training
from tests.support.retraining import candidate, retrain_plan

SEEDS = [derive_seed(7, "retrain", index) for index in range(3)]
STORE = Path("models/trainings.jsonl")

# ---- What is trained -------------------------------------------------------------------------------------


def test_candidates_are_trained_seed_by_seed_and_the_winner_on_all_images_and_in_folds() -> None:
    plan = retrain_plan(folds=2)
    first, winner = plan.candidate_jobs(), plan.winner_jobs(candidate(1))
    assert [job.training.seed for job in first] == [seed for seed in SEEDS for _ in range(2)]
    assert [job.label for job in first[:3]] == ["#1 seed 1", "#2 seed 1", "#1 seed 2"]
    assert [job.training.seed for job in winner] == [*SEEDS, SEEDS[0], SEEDS[0]]
    assert [job.label for job in winner[2:4]] == ["#1 on all images, seed 3", "#1 fold 1"]
    assert {job.training.fidelity.epochs for job in first + winner} == {10}
    assert len(first + winner) == plan.trainings


def test_final_weights_are_never_those_of_another_training() -> None:
    plans = [(retrain_plan(), 1), (retrain_plan(epochs=11), 1), (retrain_plan(), 2)]
    weights = [job.training.weights for plan, number in plans for job in plan.winner_jobs(candidate(number))]
    assert len(set(weights)) == 9
    assert {Path(path).parent for path in weights} == {Path("models/weights").absolute()}


# ---- How long it takes -----------------------------------------------------------------------------------


def test_trainings_begin_when_a_worker_is_free() -> None:
    assert makespan([3, 1, 1, 1, 2], 2) == 5
    assert makespan([], 2) == 0
    assert makespan([1, 2, 3], 1) == 6


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 100])
def test_seconds_grow_with_images_and_epochs_and_the_slower_candidate_may_win(workers: int) -> None:
    """A validation image is a third of a training image: it has a forward pass alone."""
    plan = retrain_plan(candidate(1, 3.0), candidate(2, None), workers=workers)
    searched = 10_000 + 5_000 / 3
    first, second = (10 * 3.0 * images / searched for images in (45_000 + 5_000 / 3, 50_000))
    expected = math.ceil(6 / workers) * first + math.ceil(3 / workers) * second
    assert plan.progress(TrainingStore(STORE)) == Progress(0, 9, pytest.approx(expected))
    slower = retrain_plan(candidate(1, 3.0), candidate(2, 6.0), workers=100)
    assert slower.progress(TrainingStore(STORE)).seconds == pytest.approx(2 * (first + second))


@pytest.mark.parametrize("changes", [{"candidates": (candidate(1, None),)}, {"search": None}], ids=len)
def test_without_seconds_or_what_they_belong_to_the_time_is_not_known(changes: dict[str, object]) -> None:
    assert retrain_plan(**changes).progress(TrainingStore(STORE)).seconds is None


def test_progress_follows_what_is_stored() -> None:
    plan, store = retrain_plan(folds=2), TrainingStore(STORE)
    for job in plan.candidate_jobs():
        store.add(stored_training(job.training))
    first = plan.progress(store)
    assert (first.stored, first.left) == (6, 5)
    winner = plan.comparison()
    for job in plan.candidate_jobs():
        winner.add(job.name, job.seed, store.find(job.training).value)
    for job in plan.winner_jobs(winner.winner().candidate)[3:]:
        store.add(stored_training(job.training))
    assert plan.progress(store).left == 3
    assert plan.progress(store).seconds < first.seconds


# ---- Which retraining it is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "same_request", "same_identity"),
    [
        ({"seeds": 2}, False, False),
        ({"epochs": 11}, True, False),
        ({"study_seed": 8}, False, False),
        ({"precision": "bfloat16"}, False, False),
        ({"candidates": (candidate(1),)}, False, False),
        ({"folds": 5}, True, True),
        ({"workers": 1}, True, True),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_trained_makes_another_retraining_and_folds_and_workers_none(
    changes: dict[str, object], same_request: bool, same_identity: bool
) -> None:
    plan, other = retrain_plan(), retrain_plan(**changes)
    assert (other.request == plan.request, other.identity == plan.identity) == (same_request, same_identity)
