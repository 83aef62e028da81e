"""Arrays -> uint8 tensors: training and validation images, and the only access to the test images."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mc1opt.data.cache import open_array
from mc1opt.data.splits import fold_split, split
from mc1opt.data.test_log import record_opening
from mc1opt.dataset import DataSet
from mc1opt.errors import DataError
from mc1opt.spec import Fold


@dataclass(frozen=True)
class ImageSplit:
    """Images on a device, as uint8 in channels_last memory; labels as int64.

    The training images are M x C x S x S, the validation images N x C x S x S; N may be 0.
    """

    train_images: torch.Tensor
    train_labels: torch.Tensor
    validation_images: torch.Tensor
    validation_labels: torch.Tensor

    @functools.cached_property
    def mean_colour(self) -> torch.Tensor:
        """The mean of each channel over the training images, rounded: uint8, C values on the CPU."""
        # In integers: a copy of all images as floats would be four times as large.
        totals = self.train_images.cpu().sum((0, 2, 3), dtype=torch.int64)
        return (totals.double() / self.train_images[:, 0].numel()).round().to(torch.uint8)


def open_training_images(
    data: DataSet, train_images: int, device: str, fold: Fold | None = None, unused_images: int = 0
) -> ImageSplit:
    """Opens the training images: splits off the validation images and takes `train_images` of the rest.

    The validation images are those of the fold, or that many unused ones, if either is given. Copies only the
    chosen images, from files that all workers of a machine share in memory.

    Raises:
        DataError: files are missing or damaged, or there are too few images.
    """
    folder = Path(data.folder)
    images = open_array(folder / "train_images.npy")
    labels = np.asarray(open_array(folder / "train_labels.npy"))
    try:
        if fold is not None:
            train, validation = fold_split(labels, fold, train_images)
        else:
            train, validation = split(
                labels,
                data.validation_images,
                train_images,
                unused_images,
                validation_first=data.validation_first,
            )
    except ValueError as error:
        raise DataError(f"{data.name}: {error}") from error
    return ImageSplit(
        train_images=_images(images, train, device),
        train_labels=_labels(labels, train, device),
        validation_images=_images(images, validation, device),
        validation_labels=_labels(labels, validation, device),
    )


def smallest_class(data: DataSet) -> int:
    """Training images of the smallest class: the largest possible number of stratified folds.

    Raises:
        DataError: the file of labels is missing or damaged.
    """
    labels = np.asarray(open_array(Path(data.folder) / "train_labels.npy"))
    return int(np.unique(labels, return_counts=True)[1].min())


def open_test_images(
    data: DataSet, reason: str, record: Path, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Opens the test images; nothing else does. Meant for one look at the very end.

    Args:
        data: the images.
        reason: who opens them and why, such as "retrain of study cnn".
        record: the file to which a line is appended before the opening.
        device: of the tensors, such as "cuda".

    Returns:
        Images (uint8, N x C x S x S, channels_last) and labels (int64, N).

    Raises:
        DataError: files are missing or damaged.
        StorageError: the record cannot be written; then the images stay closed.
    """
    record_opening(record, data, reason)
    images = open_array(Path(data.folder) / "test_images.npy")
    labels = np.asarray(open_array(Path(data.folder) / "test_labels.npy"))
    everything = np.arange(len(labels))
    return _images(images, everything, device), _labels(labels, everything, device)


def _images(images: NDArray[np.uint8], indices: NDArray[np.int64], device: str) -> torch.Tensor:
    """The chosen images, N, H, W, C in memory: fastest for convolutions and augmentation."""
    # Sorted, so that the file is read sequentially.
    order = np.argsort(indices)
    chosen = np.empty((len(indices), *np.array(images.shape)[[2, 3, 1]]), dtype=np.uint8)
    chosen[order] = images[indices[order]].transpose(0, 2, 3, 1)
    return torch.from_numpy(chosen).permute(0, 3, 1, 2).to(device)


def _labels(labels: NDArray[np.integer], indices: NDArray[np.int64], device: str) -> torch.Tensor:
    return torch.from_numpy(labels[indices].astype(np.int64)).to(device)
