"""Which images train and which validate: in proportion, nested, disjoint, and the same for ever."""

import hashlib

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from mc1opt.data.splits import fold_split, split, stratified_order
from mc1opt.spec import Fold

CIFAR10_LABELS = (np.arange(50_000) % 10).astype(np.uint8)
"""Balanced as CIFAR-10's are."""


def digest(indices: np.ndarray) -> str:
    return hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()


def test_the_order_never_changes() -> None:
    """If this fails, results before and after are on other validation images. Mend the code, not the hash."""
    order = stratified_order(CIFAR10_LABELS)
    assert digest(order) == "c204e54ec3f61802fe99b315dc967ad3634a602f8ab3a800b8836ecc750eb859"


@pytest.mark.parametrize("sizes", [[100] * 10, [700, 200, 100]], ids=["balanced", "unbalanced"])
def test_every_prefix_holds_the_classes_in_proportion(sizes: list[int]) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes).astype(np.uint8)
    np.random.default_rng(0).shuffle(labels)
    in_order = labels[stratified_order(labels)]
    counts = np.cumsum(in_order[:, None] == np.arange(len(sizes)), axis=0)  # of each class, in each prefix
    share = np.arange(1, 1001)[:, None] * np.array(sizes) / 1000
    assert np.abs(counts - share).max() < 1


def test_training_and_validation_images_have_none_in_common() -> None:
    train, validation = split(CIFAR10_LABELS, 5_000, 45_000)
    assert len(validation) == 5_000
    assert len(train) == 45_000
    assert not np.intersect1d(train, validation).size


@pytest.mark.parametrize("train_images", [1, 10, 5_000, 45_000])
def test_validation_does_not_depend_on_how_many_images_train(train_images: int) -> None:
    _, validation = split(CIFAR10_LABELS, 5_000, train_images)
    np.testing.assert_array_equal(validation, split(CIFAR10_LABELS, 5_000, 20_000)[1])
    assert set(np.bincount(CIFAR10_LABELS[validation])) == {500}


def test_validation_images_that_somebody_chose_are_the_first_ones() -> None:
    labels = CIFAR10_LABELS[:1000]
    train, validation = split(labels, 101, 500, validation_first=True)
    assert sorted(validation) == list(range(101))
    np.testing.assert_array_equal(train, (101 + stratified_order(labels[101:]))[:500])
    everything = split(labels, 0, 1000, validation_first=True)[0]
    np.testing.assert_array_equal(everything, stratified_order(labels))


def test_unused_images_validate_in_place_of_those_that_are_kept_back() -> None:
    train, held_out = split(CIFAR10_LABELS, 5_000, 18_000)
    same, unused = split(CIFAR10_LABELS, 5_000, 18_000, 27_000)
    np.testing.assert_array_equal(same, train)
    assert sorted([*train, *held_out, *unused]) == list(range(50_000))
    np.testing.assert_array_equal(split(CIFAR10_LABELS, 5_000, 18_000, 10)[1], unused[:10])
    with pytest.raises(ValueError, match=r"18000 .* 32001"):
        split(CIFAR10_LABELS, 5_000, 18_000, 27_001)


def test_smaller_training_sets_lie_in_larger_ones() -> None:
    everything, _ = split(CIFAR10_LABELS, 5_000, 45_000)
    for train_images in (1, 10, 999, 20_000):
        train, _ = split(CIFAR10_LABELS, 5_000, train_images)
        np.testing.assert_array_equal(train, everything[:train_images])


def test_more_images_than_there_are_is_an_error_with_the_figures() -> None:
    split(CIFAR10_LABELS, 5_000, 45_000)
    with pytest.raises(ValueError, match=r"45001 .* 5000 .* 50000"):
        split(CIFAR10_LABELS, 5_000, 45_001)


# ---- Folds -----------------------------------------------------------------------------------------------

UNBALANCED = (
    np.random.default_rng(0).permutation(np.repeat(np.arange(4), [701, 200, 99, 53])).astype(np.uint8)
)


def folds(labels: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """All folds, each trained on what all of them have."""
    images = len(labels) - -(-len(labels) // count)
    return [fold_split(labels, Fold(index=index, count=count), images) for index in range(count)]


@pytest.mark.parametrize("labels", [CIFAR10_LABELS, UNBALANCED], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("count", [2, 3, 7, 10])
def test_folds_are_those_of_scikit_learn_in_number_disjoint_and_cover_all_images(
    labels: np.ndarray, count: int
) -> None:
    def sorted_counts(parts: list[np.ndarray]) -> np.ndarray:
        # Which of the folds has the odd image more depends on the order in which classes are dealt out.
        return np.sort([np.bincount(labels[part]) for part in parts], axis=0)

    parts = folds(labels, count)
    ours = [part for _, part in parts]
    np.testing.assert_array_equal(np.sort(np.concatenate(ours)), np.arange(len(labels)))
    for train, part in parts:
        assert not np.intersect1d(train, part).size
        assert len(np.unique(train)) == len(train) == len(labels) - -(-len(labels) // count)
    theirs = [part for _, part in StratifiedKFold(count).split(np.zeros(len(labels)), labels)]
    np.testing.assert_array_equal(sorted_counts(ours), sorted_counts(theirs))
    assert sorted(map(len, ours)) == sorted(map(len, theirs))


def test_what_trains_in_a_fold_is_in_proportion_also_where_it_is_a_part() -> None:
    train, _ = fold_split(CIFAR10_LABELS, Fold(index=1, count=5), 1000)
    assert np.abs(np.bincount(CIFAR10_LABELS[train]) - 100).max() <= 3
    everything, _ = fold_split(CIFAR10_LABELS, Fold(index=1, count=5), 40_000)
    np.testing.assert_array_equal(train, everything[:1000])


def test_the_folds_never_change() -> None:
    """If this fails, results over folds before and after are not of the same folds."""
    _, part = fold_split(CIFAR10_LABELS, Fold(index=0, count=5), 40_000)
    assert digest(part) == "7b0867b7acb0b0b3bc450fad23663424f38ba0d004086daf040f45fe07069666"


@pytest.mark.parametrize(
    ("count", "images", "message"),
    [
        (54, 1, "54 .* 53 "),
        (2, 600, "600 .* 526 .* 0 of 2"),
    ],
)
def test_folds_that_cannot_be_are_an_error_with_the_figures(count: int, images: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fold_split(UNBALANCED, Fold(index=0, count=count), images)
