"""Augmentation against torchvision's transforms, and what is drawn at random."""

import itertools

import pytest
import torch
from torchvision.transforms import functional

from mc1opt.config import Augmentation
from mc1opt.data.augment import alternating_flips, augment_batch, cut_out, flip_and_crop, shrink

FILL = torch.tensor([125, 123, 114], dtype=torch.uint8)
EVERYTHING = Augmentation(flip=True, crop=4, cutout=8)
AUGMENTATIONS = pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(),
        Augmentation(flip=True),
        Augmentation(crop=2),
        Augmentation(cutout=8),
        EVERYTHING,
    ],
    ids=["none", "flip", "crop", "cutout", "all"],
)


def random_images(count: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return images.contiguous(memory_format=torch.channels_last)


def maps(count: int) -> torch.Tensor:
    """Images whose pixels say where they were: row, column, and 200."""
    image = torch.full((3, 32, 32), 200, dtype=torch.uint8)
    image[0] = torch.arange(32, dtype=torch.uint8)[:, None]
    image[1] = torch.arange(32, dtype=torch.uint8)
    return image.expand(count, 3, 32, 32).contiguous(memory_format=torch.channels_last)


def augmented(images: torch.Tensor, augmentation: Augmentation, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return augment_batch(images, torch.arange(len(images)), augmentation, generator, FILL)


# ---- Against torchvision ---------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 4, 16])
def test_flip_and_crop_is_torchvisions_reflecting_pad_crop_and_hflip(most: int) -> None:
    images = random_images()
    corners = list(itertools.product([-most, 0, most], [-most, 0, most], [False, True]))
    shifts = torch.tensor([corner[:2] for corner in corners])
    flips = torch.tensor([corner[2] for corner in corners])
    indices = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[: len(corners)]
    batch = flip_and_crop(images, indices, shifts, flips)
    for image, index, (down, right, flip) in zip(batch, indices, corners, strict=True):
        padded = functional.pad(images[index], [most], padding_mode="reflect")
        expected = functional.crop(padded, most + down, most + right, 32, 32)
        assert torch.equal(image, functional.hflip(expected) if flip else expected)


@pytest.mark.parametrize("side", [1, 7, 8, 32])
def test_cutout_is_torchvisions_erase_cut_off_at_the_border(side: int) -> None:
    centres = list(itertools.product([0, 3, 16, 31], [0, 15, 31]))
    images = random_images(len(centres))
    batch = cut_out(images, torch.tensor(centres), side, FILL)
    for image, before, centre in zip(batch, images, centres, strict=True):
        top, left = (max(0, place - side // 2) for place in centre)
        bottom, right = (min(32, place - side // 2 + side) for place in centre)
        expected = functional.erase(before, top, left, bottom - top, right - left, FILL[:, None, None])
        assert torch.equal(image, expected)


@pytest.mark.parametrize("size", [16, 24, 31])
def test_smaller_images_are_torchvisions_resized_ones(size: int) -> None:
    images = random_images(4)
    expected = functional.resize(images.float(), [size, size], antialias=True)
    torch.testing.assert_close(shrink(images, size), expected)


# ---- The whole batch -------------------------------------------------------------------------------------


@AUGMENTATIONS
def test_a_batch_is_a_uint8_copy_in_channels_last_memory(augmentation: Augmentation) -> None:
    images = random_images()
    batch = augmented(images, augmentation)
    assert batch.dtype == torch.uint8
    assert batch.shape == (64, 3, 32, 32)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    batch.fill_(0)
    assert torch.equal(images, random_images())


def test_without_augmentation_the_images_are_the_chosen_ones() -> None:
    images = random_images()
    indices = torch.tensor([5, 3, 3, 60])
    batch = augment_batch(images, indices, Augmentation(), torch.Generator(), FILL)
    assert torch.equal(batch, images[indices])


@pytest.mark.parametrize("augmentation", [Augmentation(flip=True), Augmentation(crop=2), EVERYTHING])
def test_the_generator_alone_decides(augmentation: Augmentation) -> None:
    images = random_images()
    assert torch.equal(augmented(images, augmentation, seed=1), augmented(images, augmentation, seed=1))
    assert not torch.equal(augmented(images, augmentation, seed=1), augmented(images, augmentation, seed=2))


def test_the_next_batch_of_a_generator_is_another_one() -> None:
    images, generator = random_images(), torch.Generator().manual_seed(0)
    indices = torch.arange(64)
    first = augment_batch(images, indices, EVERYTHING, generator, FILL)
    assert not torch.equal(first, augment_batch(images, indices, EVERYTHING, generator, FILL))


# ---- Distributions ---------------------------------------------------------------------------------------
# The seed is fixed, so that these pass always or never.

COUNT = 4000


def shifts_and_flips(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Reads back what was done to `maps`: rows down, columns to the right, flipped or not."""
    down = batch[:, 0, 16, 0].long() - 16
    flips = batch[:, 1, 16, 16] < batch[:, 1, 16, 15]
    columns = torch.where(flips, batch[:, 1, 16, 15], batch[:, 1, 16, 16])
    return down, columns.long() - 16, flips


def assert_equally_likely(counts: torch.Tensor) -> None:
    """Pearson's chi-square statistic of the counts is within 3 standard deviations of its mean."""
    expected = counts.sum() / len(counts)
    statistic = ((counts - expected) ** 2 / expected).sum()
    degrees = len(counts) - 1
    assert statistic < degrees + 3 * (2 * degrees) ** 0.5
    assert counts.min() > 0 or expected < 10


def test_half_of_the_images_are_flipped() -> None:
    down, right, flips = shifts_and_flips(augmented(maps(COUNT), Augmentation(flip=True)))
    assert not down.any()
    assert not right.any()
    assert_equally_likely(torch.bincount(flips.long(), minlength=2))


def test_an_alternating_flip_mirrors_half_of_the_images_then_all_others_and_these_in_turn() -> None:
    first, second, third = (alternating_flips(COUNT, 1, epoch) for epoch in range(3))
    assert_equally_likely(torch.bincount(first.long(), minlength=2))
    assert torch.equal(second, ~first)
    assert torch.equal(third, first)
    assert not torch.equal(alternating_flips(COUNT, 2, 0), first)
    indices = torch.randperm(COUNT)[:100]
    batch = augment_batch(
        maps(COUNT), indices, Augmentation(flip="alternating"), torch.Generator(), FILL, second
    )
    assert torch.equal(shifts_and_flips(batch)[2], second[indices])


@pytest.mark.parametrize("crop", [1, 4])
def test_every_shift_within_the_limits_is_equally_likely(crop: int) -> None:
    down, right, flips = shifts_and_flips(augmented(maps(COUNT), Augmentation(crop=crop)))
    assert not flips.any()
    width = 2 * crop + 1
    counts = torch.bincount((down + crop) * width + right + crop, minlength=width**2)
    assert len(counts) == width**2
    assert_equally_likely(counts)


def test_flip_and_shift_do_not_depend_on_each_other() -> None:
    _, right, flips = shifts_and_flips(augmented(maps(COUNT), Augmentation(flip=True, crop=2)))
    assert_equally_likely(torch.bincount(right + 2 + 5 * flips, minlength=10))


def test_the_centre_of_the_cutout_is_anywhere_in_the_image() -> None:
    batch = augmented(maps(COUNT), Augmentation(cutout=1))
    cut = (batch[:, 2] == FILL[2]).flatten(1)
    assert (cut.sum(1) == 1).all()
    assert_equally_likely(cut.sum(0))


def test_the_cutout_comes_last() -> None:
    """Flip and crop must not move or mirror its colour into the image again."""
    batch = augmented(maps(COUNT), Augmentation(flip=True, crop=16, cutout=8))
    cut = batch[:, 2] == FILL[2]
    assert torch.equal(cut.sum((1, 2)), cut.any(2).sum(1) * cut.any(1).sum(1))
    assert cut.sum((1, 2)).max() == 64
