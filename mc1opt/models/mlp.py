"""The multilayer perceptron as a module, and the linear layers that a convolutional network's head shares.

Not here: normalisation of the images and initialisation of the weights (`mc1opt.models.build`).
"""

from collections import OrderedDict

from torch import nn

from mc1opt.config import CLASSES, IMAGE_CHANNELS, IMAGE_SIZE, MLP, Activation, LinearLayer


def activation(kind: Activation) -> nn.Module:
    """The activation as a module; GELU is the exact one, not its approximation by tanh."""
    modules: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
    return modules[kind]()


def linear_layer(layer: LinearLayer, inputs: int) -> nn.Sequential:
    """Linear -> norm -> activation -> dropout, from N x inputs to N x `layer.width`.

    The linear map has no bias where batch norm follows: the norm would subtract it again.
    """
    parts = OrderedDict[str, nn.Module](linear=nn.Linear(inputs, layer.width, bias=layer.norm == "none"))
    if layer.norm == "batch":
        parts["norm"] = nn.BatchNorm1d(layer.width)
    parts["activation"] = activation(layer.activation)
    if layer.dropout > 0.0:
        parts["dropout"] = nn.Dropout(layer.dropout)
    return nn.Sequential(parts)


def linear_layers(layers: tuple[LinearLayer, ...], inputs: int) -> tuple[nn.Sequential, int]:
    """The layers one after the other, and how many outputs the last one has (`inputs` without any)."""
    stack = nn.Sequential()
    for layer in layers:
        stack.append(linear_layer(layer, inputs))
        inputs = layer.width
    return stack, inputs


def mlp_parts(architecture: MLP) -> OrderedDict[str, nn.Module]:
    """The named parts in their order, from normalised images N x 3 x 32 x 32 to logits N x 10."""
    stack, outputs = linear_layers(architecture.layers, IMAGE_CHANNELS * IMAGE_SIZE**2)
    return OrderedDict(flatten=nn.Flatten(), layers=stack, classifier=nn.Linear(outputs, CLASSES))
