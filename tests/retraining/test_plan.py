"""What a retraining will train: which images and seeds, and how many epochs fit into an hour."""

from pathlib import Path

import pytest

from mc1opt.config import MLP, SGD, Config, LinearLayer, config_id
from mc1opt.errors import UsageError
from mc1opt.measurement.store import TrainingStore
from mc1opt.retraining.comparison import Candidate
from mc1opt.retraining.epochs import remember_epochs
from mc1opt.retraining.plan import Progress, RetrainPlan, make_plan
from mc1opt.seeds import derive_seed
from mc1opt.spec import DataSet, Fidelity, Fold

DATA = DataSet(name="cifar10", folder="", sha256="0" * 64, train_images=50_000, validation_images=5_000)


def candidate(number: int, epoch_seconds: float | None = 2.0) -> Candidate:
    config = Config(
        architecture=MLP(layers=(LinearLayer(width=number),)), optimizer=SGD(learning_rate=0.1), batch_size=10
    )
    return Candidate(number, config_id(config), config, 0.8, epoch_seconds)


def plan(*candidates: Candidate, **changes: object) -> RetrainPlan:
    fields = {
        "study_seed": 7,
        "seeds": 3,
        "folds": 0,
        "epochs": 10,
        "search": Fidelity(train_images=10_000, epochs=8),
        "data": DATA,
        "device": "cpu",
        "precision": "float32",
        "workers": 2,
        "folder": Path("models"),
    }
    return make_plan(candidates or [candidate(1), candidate(2)], **(fields | changes))


# ---- What is trained -------------------------------------------------------------------------------------


def test_candidates_train_on_all_images_but_those_of_validation_seed_by_seed() -> None:
    jobs = plan().candidate_jobs()
    seeds = [derive_seed(7, "retrain", index) for index in range(3)]
    assert [(job.trial, job.training.seed) for job in jobs] == [(n, seed) for seed in seeds for n in (1, 2)]
    for job in jobs:
        assert job.training.fidelity == Fidelity(train_images=45_000, epochs=10)
        assert job.training.data == DATA
        assert job.training.weights is None
        assert job.training.seed == seeds[job.seed_index]


def test_the_winner_trains_on_all_images_and_its_weights_are_kept_apart() -> None:
    jobs = plan().final_jobs(candidate(1))
    for job in jobs:
        assert job.training.fidelity == Fidelity(train_images=50_000, epochs=10)
        assert job.training.data.validation_images == 0
        assert Path(job.training.weights).parent == Path("models/weights").absolute()
    others = plan(epochs=11).final_jobs(candidate(1)) + plan().final_jobs(candidate(2))
    assert len({job.training.weights for job in jobs + others}) == 9


def test_folds_train_with_one_seed_on_equally_many_images() -> None:
    jobs = plan(folds=3).fold_jobs(candidate(1))
    assert [job.training.fold for job in jobs] == [Fold(index=index, count=3) for index in range(3)]
    assert {job.training.seed for job in jobs} == {derive_seed(7, "retrain", 0)}
    assert {job.training.fidelity.train_images for job in jobs} == {50_000 - 16_667}


def test_all_trainings_are_counted() -> None:
    assert plan(folds=4).trainings == 2 * 3 + 3 + 4


# ---- Epochs ----------------------------------------------------------------------------------------------


def test_the_default_takes_about_an_hour_by_the_trials_own_seconds() -> None:
    result = plan(epochs=None)
    seconds = result.progress(TrainingStore(Path("models/trainings.jsonl"))).seconds
    first, second = result.stage_seconds
    assert 3600 - (3 * first[0] + 2 * second) / result.epochs < seconds <= 3600


def test_folds_are_part_of_the_hour() -> None:
    """Their trainings begin with those of the winner, when a worker is free."""
    result = plan(epochs=None, folds=5)
    assert result.epochs < plan(epochs=None).epochs
    seconds = result.progress(TrainingStore(Path("models/trainings.jsonl"))).seconds
    first, second = result.stage_seconds
    assert 3600 - (3 * first[0] + 4 * second) / result.epochs < seconds <= 3600


def test_without_known_seconds_the_epochs_are_a_plain_number_and_the_time_is_not_known() -> None:
    result = plan(candidate(1, None), epochs=None)
    assert result.epochs == 20
    assert result.progress(TrainingStore(Path("none"))) == Progress(stored=0, left=6, seconds=None)


def test_the_default_stays_what_it_was_at_the_first_start() -> None:
    first = plan(epochs=None)
    Path("models").mkdir()
    remember_epochs(Path("models"), first.request, first.epochs)
    for changes in ({"workers": 1}, {"folds": 5}):
        assert plan(epochs=None, **changes).epochs == first.epochs
    assert plan(epochs=None, workers=1, seeds=5).epochs < first.epochs
    assert plan(epochs=3).epochs == 3


def test_a_plan_writes_nothing() -> None:
    plan(epochs=None)
    assert not Path("models").exists()


# ---- Which retraining it is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{"seeds": 2}, {"epochs": 11}, {"study_seed": 8}, {"precision": "bfloat16"}], ids=str
)
def test_another_retraining_has_another_identity(changes: dict[str, object]) -> None:
    assert plan(**changes).identity != plan().identity
    assert plan(candidate(1)).identity != plan().identity


@pytest.mark.parametrize("changes", [{"folds": 5}, {"workers": 1}], ids=str)
def test_folds_and_workers_make_no_other_retraining(changes: dict[str, object]) -> None:
    assert plan(**changes).identity == plan().identity


# ---- What cannot be --------------------------------------------------------------------------------------


def test_images_without_validation_are_refused() -> None:
    with pytest.raises(UsageError, match="no validation images"):
        plan(data=DATA.model_copy(update={"train_images": 9, "validation_images": 0}))
