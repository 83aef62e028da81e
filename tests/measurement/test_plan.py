"""Jobs over seeds and folds: which images, seeds and weights, and what people read."""

from pathlib import Path

import numpy as np
import pytest

from mc1opt.config import config_id
from mc1opt.dataset import DataSet
from mc1opt.errors import UsageError
from mc1opt.measurement.plan import Plan, check_folds
from mc1opt.spec import Fidelity, Fold
from tests.support.curves import example_training

DATA = DataSet(name="own-0", folder="images", sha256="0" * 64, train_images=100, validation_images=10)
CONFIG = example_training().config


def plan(folds: int = 0) -> Plan:
    return Plan(
        folds=folds, data=DATA, device="cuda", precision="bfloat16", workers=1, folder=Path("storage")
    )


def test_a_seed_trains_on_all_images_but_those_of_validation_and_a_final_training_on_all() -> None:
    seed = plan().seed_job("#1", CONFIG, 4, 2, 77)
    (final,) = plan().final_jobs("#1 on all images,", CONFIG, 4, {2: 77}, Path("w"))
    path = Path(f"w/{config_id(CONFIG)}-4-epochs-cuda-bfloat16-77.safetensors").absolute()
    assert [job.label for job in (seed, final)] == ["#1 seed 3", "#1 on all images, seed 3"]
    for job, images, validation, weights in ((seed, 90, 10, None), (final, 100, 0, str(path))):
        training = job.training
        assert (job.seed, training.seed, training.config) == (2, 77, CONFIG)
        assert (training.device, training.precision, training.fold) == ("cuda", "bfloat16", None)
        assert training.fidelity == Fidelity(train_images=images, epochs=4)
        assert training.data == DATA.model_copy(update={"validation_images": validation})
        assert training.weights == weights


@pytest.mark.parametrize(("folds", "images"), [(2, 50), (3, 66), (10, 90), (100, 99)])
def test_every_fold_has_one_seed_and_as_many_images_as_the_largest_one_leaves(
    folds: int, images: int
) -> None:
    jobs = plan(folds).fold_jobs("#1", CONFIG, 4, 77)
    assert [job.training.fold for job in jobs] == [Fold(index=index, count=folds) for index in range(folds)]
    assert [job.label for job in jobs[:2]] == ["#1 fold 1", "#1 fold 2"]
    assert {job.training.fidelity for job in jobs} == {Fidelity(train_images=images, epochs=4)}
    assert {(job.training.seed, job.training.weights) for job in jobs} == {(77, None)}
    assert plan().fold_jobs("#1", CONFIG, 4, 77) == []


def test_each_fold_needs_an_image_of_the_smallest_class() -> None:
    Path("images").mkdir()
    np.save("images/train_labels.npy", np.array([0] * 7 + [1] * 93, dtype=np.uint8))
    for folds in (0, 2, 7):
        check_folds(folds, DATA)
    with pytest.raises(UsageError, match=r"--folds 8 .* 7\b"):
        check_folds(8, DATA)
