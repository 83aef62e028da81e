"""The multilayer perceptron and the linear layers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mc1opt.config import MLP, LinearLayer
from mc1opt.models.build import build_model
from mc1opt.models.mlp import activation, linear_layer


def test_linear_layer_is_linear_norm_activation_dropout():
    layer = linear_layer(LinearLayer(width=8, norm="batch", activation="silu", dropout=0.5), 5)
    assert [name for name, _ in layer.named_children()] == ["linear", "norm", "activation", "dropout"]
    assert [type(part) for part in layer] == [nn.Linear, nn.BatchNorm1d, nn.SiLU, nn.Dropout]
    assert layer.dropout.p == 0.5


def test_dropout_and_norm_are_left_out_where_they_are_off():
    layer = linear_layer(LinearLayer(width=8), 5)
    assert [name for name, _ in layer.named_children()] == ["linear", "activation"]


@pytest.mark.parametrize(("norm", "biased"), [("none", True), ("batch", False)])
def test_linear_map_has_a_bias_unless_batch_norm_follows(norm, biased):
    assert (linear_layer(LinearLayer(width=8, norm=norm), 5).linear.bias is not None) == biased


@pytest.mark.parametrize(("kind", "reference"), [("relu", F.relu), ("gelu", F.gelu), ("silu", F.silu)])
def test_activation_is_pytorchs(kind, reference):
    values = torch.linspace(-4, 4, 33)
    torch.testing.assert_close(activation(kind)(values), reference(values))


def test_mlp_computes_what_the_formula_says():
    model = build_model(MLP(layers=(LinearLayer(width=4), LinearLayer(width=3, activation="gelu"))))
    images = torch.rand(2, 3, 32, 32)
    hidden = F.relu(images.flatten(1) @ model.layers[0].linear.weight.T)
    hidden = F.gelu(hidden @ model.layers[1].linear.weight.T)
    torch.testing.assert_close(model(images), hidden @ model.classifier.weight.T)


def test_mlp_gives_the_same_for_images_in_any_memory_format():
    model = build_model(MLP(layers=(LinearLayer(width=4),)))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(images.to(memory_format=torch.channels_last)), model(images))


def test_mlp_without_hidden_layers_is_the_classifier_alone():
    model = build_model(MLP(layers=()))
    assert model.classifier.weight.shape == (10, 3072)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
