"""Accuracy, logits and confusion matrix of a network on images."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mc1opt.spec import INFERENCE_BATCH


@torch.inference_mode()
def accuracy(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, batch_size: int = INFERENCE_BATCH
) -> float:
    """The share of images (uint8, N x C x H x W) whose largest logit is that of their label.

    NaN if any logit is not finite. Leaves the model in evaluation mode.
    """
    model.eval()
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    finite = torch.ones((), dtype=torch.bool, device=images.device)
    for first in range(0, len(images), batch_size):
        target = labels[first : first + batch_size]
        logits = model(images[first : first + batch_size])
        correct += (logits.argmax(1) == target).sum()
        finite &= logits.isfinite().all()
    return correct.item() / len(images) if finite.item() else float("nan")


@torch.inference_mode()
def logits_on(
    model: nn.Module, images: torch.Tensor, *, batch_size: int = INFERENCE_BATCH
) -> NDArray[np.float32]:
    """A network's logits for images (uint8, N x C x H x W): N x classes. Leaves it in evaluation mode."""
    model.eval()
    parts = [
        model(images[first : first + batch_size]).float().cpu() for first in range(0, len(images), batch_size)
    ]
    logits: NDArray[np.float32] = torch.cat(parts).numpy()
    return logits


Labels = NDArray[np.int64]


def confusion_matrix(labels: Labels, decisions: Labels, classes: int) -> NDArray[np.int64]:
    """Counts by true class (row) and decision (column), classes x classes."""
    pairs = labels * classes + decisions
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
