"""What a trial may cost: CIFAR-10's price for all images, and what a study file says before that."""

import pytest

from mc1opt.dataset import CIFAR10_DATA
from mc1opt.search.price import default_fidelity, default_max_macs


def images(count: int, size: int = 32):
    return CIFAR10_DATA.model_copy(
        update={"train_images": count, "validation_images": count // 10, "size": size}
    )


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (50_000, 32, (18_000, 5)),
        (60_000, 28, (18_000, 5)),
        (20_000, 32, (10_800, 8)),  # the others of 18,000 validate
        (5_000, 32, (4_500, 20)),
        (1_000, 32, (900, 40)),
        (50_000, 64, (9_000, 5)),
        (2, 8, (2, 40)),
    ],
)
def test_few_images_are_seen_more_often_and_large_ones_less(count, size, expected):
    fidelity = default_fidelity(images(count, size))
    assert (fidelity.train_images, fidelity.epochs) == expected


def test_what_the_study_file_says_comes_first():
    assert default_fidelity(images(50_000), epochs=3).epochs == 3
    given = default_fidelity(images(50_000), train_images=45_000)
    assert (given.train_images, given.epochs) == (45_000, 5)


@pytest.mark.parametrize(("size", "macs"), [(16, 20_000_000), (32, 20_000_000), (64, 80_000_000)])
def test_larger_images_may_cost_more_in_proportion_to_their_pixels(size, macs):
    assert default_max_macs(size) == macs
