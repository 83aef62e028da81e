"""Accuracy: against a loop over single images, at the borders of batches, and where there is no decision."""

import math

import pytest
import torch
from torch import Tensor, nn

from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.models.build import build_model
from mc1opt.spec import INFERENCE_BATCH
from mc1opt.training.accuracy import accuracy, logits_on
from tests.support.images import SMALL_CONVNET, SMALL_MLP

BROKEN = 255
"""A first pixel of this value makes `FirstPixels` give a logit that is not finite."""


class FirstPixels(nn.Module):
    """The logits are the first 10 pixels of the image."""

    def __init__(self, broken_logit: float = float("nan")) -> None:
        super().__init__()
        self.broken_logit = broken_logit

    def forward(self, images: Tensor) -> Tensor:
        logits = images[:, 0, 0, :10].float()
        return logits.masked_fill(logits == BROKEN, self.broken_logit)


def images_of(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, BROKEN, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)


def labels_of(count: int) -> Tensor:
    return torch.randint(0, 10, (count,), generator=torch.Generator().manual_seed(count + 1))


SIZES = [1, 2, INFERENCE_BATCH - 1, INFERENCE_BATCH, INFERENCE_BATCH + 1, 2 * INFERENCE_BATCH + 3]


@pytest.mark.parametrize("count", SIZES)
def test_accuracy_is_that_of_a_loop_over_single_images(count):
    images, labels = images_of(count), labels_of(count)
    hits = sum(
        max(range(10), key=image[0, 0, :10].tolist().__getitem__) == label
        for image, label in zip(images, labels.tolist(), strict=True)
    )
    assert accuracy(FirstPixels(), images, labels) == hits / count


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("logit", [float("nan"), float("inf"), float("-inf")])
def test_one_logit_that_is_not_finite_makes_it_nan(count, logit):
    for place in {0, count // 2, count - 1}:
        images = images_of(count)
        images[place, 0, 0, 3] = BROKEN
        assert math.isnan(accuracy(FirstPixels(logit), images, labels_of(count)))


@pytest.mark.parametrize("architecture", [SMALL_MLP, SMALL_CONVNET], ids=["mlp", "convnet"])
def test_networks_are_measured_without_dropout_and_with_stored_statistics(architecture):
    torch.manual_seed(0)
    model = build_model(architecture, CIFAR10_SHAPE, mean=torch.full((3,), 127.0), std=torch.full((3,), 70.0))
    images, labels = images_of(64), labels_of(64)
    for _ in range(3):
        model.train()(images)  # batch norm's statistics
    with torch.no_grad():
        expected = (model.eval()(images).argmax(1) == labels).sum().item() / 64
    assert accuracy(model.train(), images, labels) == expected
    assert not model.training


@pytest.mark.parametrize("architecture", [SMALL_MLP, SMALL_CONVNET], ids=["mlp", "convnet"])
def test_measuring_does_not_change_the_network_and_records_no_gradients(architecture):
    model = build_model(architecture, CIFAR10_SHAPE).train()
    recorded = []
    model.register_forward_hook(lambda module, inputs, logits: recorded.append(logits.requires_grad))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    accuracy(model, images_of(20), labels_of(20))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert recorded == [False]


@pytest.mark.parametrize("count", SIZES)
def test_the_logits_of_all_images_come_in_their_order(count):
    images = images_of(count)
    expected = images[:, 0, 0, :10].float().numpy()
    assert (logits_on(FirstPixels(), images) == expected).all()
    assert (logits_on(FirstPixels(), images, batch_size=3) == expected).all()
