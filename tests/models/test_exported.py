"""A network as it is exported, against the network itself."""

import pytest
import torch
from torch import nn

from mc1opt.config import MLP, Architecture, LinearLayer
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.models.build import build_model
from mc1opt.models.exported import Inference
from tests.support.images import SMALL_CONVNET

SMALL_MLP = MLP(layers=(LinearLayer(width=16, norm="batch", dropout=0.5),))
IMAGES = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def network(architecture: Architecture) -> nn.Module:
    torch.manual_seed(0)
    whitening = torch.randn(24, 3, 2, 2) * 0.1 if architecture is SMALL_CONVNET else None
    return build_model(
        architecture,
        CIFAR10_SHAPE,
        mean=torch.full((3,), 125.3),
        std=torch.full((3,), 62.1),
        whitening=whitening,
    )


BOTH = pytest.mark.parametrize("architecture", [SMALL_MLP, SMALL_CONVNET], ids=["mlp", "convnet"])


@BOTH
def test_logits_are_those_of_the_network_and_probabilities_their_softmax(architecture: Architecture) -> None:
    expected = network(architecture).eval()(IMAGES)
    logits, probabilities = Inference(network(architecture))(IMAGES)
    torch.testing.assert_close(logits, expected, rtol=0, atol=0)
    torch.testing.assert_close(probabilities, torch.softmax(expected, 1))


@BOTH
def test_in_half_layers_are_float16_but_normalisation_and_outputs_are_not(architecture: Architecture) -> None:
    half = Inference(network(architecture), half=True)
    floating = [tensor for tensor in half.layers.state_dict().values() if tensor.is_floating_point()]
    assert {tensor.dtype for tensor in floating} == {torch.float16}
    assert {tensor.dtype for tensor in half.normalisation.state_dict().values()} == {torch.float32}
    with torch.inference_mode():
        logits, probabilities = half(IMAGES)
        expected = Inference(network(architecture))(IMAGES)[0]
    assert logits.dtype == probabilities.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=0.02, atol=0.02)
    assert not torch.equal(logits, expected)


def test_dropout_is_off_whatever_mode_the_network_was_in() -> None:
    model = Inference(network(SMALL_MLP).train())
    assert torch.equal(model(IMAGES)[0], model(IMAGES)[0])
