"""Flip, crop, cutout and smaller images on whole batches of uint8 images, on their device.

Flip and crop only choose which pixel goes where, so both are one gather of the batch from the data set, whose
result is already in channels_last memory. All random draws come from a CPU generator: they are the same on
every device.
"""

import torch
import torch.nn.functional as F

from mc1opt.config import Augmentation


def augment_batch(
    images_NCHW: torch.Tensor,  # noqa: N803  (shape suffix)
    indices: torch.Tensor,
    augmentation: Augmentation,
    generator: torch.Generator,
    fill: torch.Tensor,
    flips: torch.Tensor | None = None,
) -> torch.Tensor:
    """A batch of the images with these indices, augmented at random.

    Args:
        images_NCHW: all training images, uint8, N x C x H x W in channels_last memory.
        indices: of the batch, int64 on the CPU, B.
        augmentation: what to apply.
        generator: on the CPU.
        fill: colour of the cutout, uint8, C.
        flips: which of all images an alternating flip mirrors, bool on the CPU, N; see `alternating_flips`.

    Returns:
        uint8, B x C x H x W, in channels_last memory.
    """
    count, device = len(indices), images_NCHW.device
    height, width = images_NCHW.shape[2:]
    if not (augmentation.flip or augmentation.crop or augmentation.cutout):
        return images_NCHW.permute(0, 2, 3, 1)[indices.to(device)].permute(0, 3, 1, 2)
    shifts = torch.zeros(count, 2, dtype=torch.int64)
    if augmentation.crop:
        shifts = torch.randint(-augmentation.crop, augmentation.crop + 1, (count, 2), generator=generator)
    flipped = torch.zeros(count, dtype=torch.bool)
    if flips is not None:
        flipped = flips[indices]
    elif augmentation.flip:
        flipped = torch.rand(count, generator=generator) < 0.5
    batch = flip_and_crop(images_NCHW, indices.to(device), shifts.to(device), flipped.to(device))
    if augmentation.cutout:
        limits = torch.tensor([height, width])
        centres = (torch.rand(count, 2, generator=generator) * limits).long()
        batch = cut_out(batch, centres.to(device), augmentation.cutout, fill.to(device))
    return batch


def alternating_flips(count: int, seed: int, epoch: int) -> torch.Tensor:
    """Which images an epoch flips: in the first at random, then all the others, then again the first ones.

    From Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, section 3.6.

    Args:
        count: of images.
        seed: of the training's first flips.
        epoch: counted from 0.

    Returns:
        bool on the CPU, `count` values.
    """
    first = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < 0.5
    return first ^ (epoch % 2 == 1)


def shrink(batch_NCHW: torch.Tensor, size: int) -> torch.Tensor:  # noqa: N803  (shape suffix)
    """Images of size x size pixels by bilinear interpolation with antialiasing, float32.

    Args:
        batch_NCHW: B x C x H x W, uint8.
        size: pixels.
    """
    return F.interpolate(batch_NCHW.float(), (size, size), mode="bilinear", antialias=True)


def flip_and_crop(
    images_NCHW: torch.Tensor,  # noqa: N803  (shape suffix)
    indices: torch.Tensor,
    shifts: torch.Tensor,
    flips: torch.Tensor,
) -> torch.Tensor:
    """Shifts images by whole pixels with a reflected border, then flips some horizontally.

    The same as padding by reflection, cropping and `torchvision.transforms.functional.hflip`.

    Args:
        images_NCHW: all images, N x C x H x W, channels_last.
        indices: of the batch, B.
        shifts: rows down and columns right, B x 2, each below H and W.
        flips: which images to flip, bool, B.
    """
    height, width = images_NCHW.shape[2:]
    device = images_NCHW.device
    rows = _reflect(torch.arange(height, device=device) + shifts[:, :1], height)
    columns = _reflect(torch.arange(width, device=device) + shifts[:, 1:], width)
    columns = torch.where(flips[:, None], columns.flip(1), columns)
    images_NHWC = images_NCHW.permute(0, 2, 3, 1)  # noqa: N806  (shape suffix)
    return images_NHWC[indices[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cut_out(
    batch_NCHW: torch.Tensor,  # noqa: N803  (shape suffix)
    centres: torch.Tensor,
    side: int,
    fill: torch.Tensor,
) -> torch.Tensor:
    """Replaces a square in each image by one colour, clipped at the border (DeVries and Taylor, 2017).

    Args:
        batch_NCHW: B x C x H x W.
        centres: row and column, B x 2.
        side: pixels; the square begins side // 2 before the centre.
        fill: the colour, C.
    """
    height, width = batch_NCHW.shape[2:]
    first = centres - side // 2
    rows = torch.arange(height, device=batch_NCHW.device) - first[:, :1]
    columns = torch.arange(width, device=batch_NCHW.device) - first[:, 1:]
    inside_rows = (rows >= 0) & (rows < side)
    inside_columns = (columns >= 0) & (columns < side)
    square = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return torch.where(square, fill[None, :, None, None], batch_NCHW)


def _reflect(positions: torch.Tensor, size: int) -> torch.Tensor:
    """Positions from -(size - 1) to 2 * (size - 1), mirrored at the first and the last pixel."""
    return (size - 1) - ((size - 1) - positions.abs()).abs()
