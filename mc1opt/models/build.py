"""From an architecture to the network: the layers' modules, normalisation, initialisation, memory format.

Not here: which layers there are (`mc1opt.models.layers`), where mean, standard deviation and whitening
filters come from (`mc1opt.data`, `mc1opt.models.whitening`), and devices and precision.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mc1opt.config import MLP, Architecture, ConvNet, CustomNetwork, Initialisation
from mc1opt.dataset import DataShape
from mc1opt.models.custom import CUSTOM, build_custom
from mc1opt.models.layers import walk


class Normalisation(nn.Module):
    """Subtracts a value from each channel and divides by another: usually its mean and standard deviation.

    Both are buffers, so that they are stored with the weights and are part of an exported graph.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, memory_format: torch.memory_format) -> None:
        """`mean`, `std`: one value a channel, in units of 0 to 255; `memory_format`: that of the output."""
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, values.detach().clone().to(torch.get_default_dtype()))
        self.memory_format = memory_format

    def forward(self, images_NCHW: Tensor) -> Tensor:  # noqa: N803  (a shape suffix)
        """The normalised images in the buffers' type; the input is uint8 or float with values 0 to 255."""
        values = images_NCHW.to(self.mean.dtype, memory_format=self.memory_format)
        size = values.shape[2:]
        return (values - self._image_of(self.mean, size)) / self._image_of(self.std, size)

    def _image_of(self, values: Tensor, size: torch.Size) -> Tensor:
        """An image of one colour: broadcast along the batch in memory order, unlike three values."""
        image = values.view(1, -1, 1, 1).expand(1, -1, *size)
        return image.contiguous(memory_format=self.memory_format)


class FixedConvolution(nn.Module):
    """A convolution that is not trained: no bias, no padding, its weight a buffer, of zeros at first."""

    weight: Tensor

    def __init__(self, channels: int, width: int, kernel_size: int) -> None:
        """`channels`: of the input; `width`: channels of the output; `kernel_size`: pixels."""
        super().__init__()
        self.register_buffer("weight", torch.zeros(width, channels, kernel_size, kernel_size))

    def forward(self, images_NCHW: Tensor) -> Tensor:  # noqa: N803  (a shape suffix)
        """The convolved images; the height and the width shrink by kernel size - 1."""
        return F.conv2d(images_NCHW, self.weight)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"shape={tuple(self.weight.shape)}"


class Residual(nn.Sequential):
    """Layers whose output, which has the shape of their input, is added to it (He et al., 2016)."""

    def forward(self, images_NCHW: Tensor) -> Tensor:  # noqa: N803  (a shape suffix)
        """The sum, before the activation that follows."""
        output = images_NCHW
        for layer in self:
            output = layer(output)
        return images_NCHW + output


class Scale(nn.Module):
    """Multiplies by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, values: Tensor) -> Tensor:
        """The products, in the shape of the values."""
        return values * self.factor

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return str(self.factor)


OWN_KINDS: dict[str, type[nn.Module]] = {
    "FixedConvolution": FixedConvolution,
    "Residual": Residual,
    "Scale": Scale,
}
"""Classes of layers that `torch.nn` does not have."""


def build_layers(architecture: MLP | ConvNet, data: DataShape) -> nn.Sequential:
    """The modules of all layers, from normalised images N x C x H x W to one logit a class.

    A dot in a layer's name opens an inner `nn.Sequential`, unless the layer before the dot is there already.
    Weights are those that PyTorch draws.
    """
    network = nn.Sequential()
    for layer in walk(architecture, data):
        *groups, name = layer.name.split(".")
        place: nn.Module = network
        for group in groups:
            if not hasattr(place, group):
                place.add_module(group, nn.Sequential())
            place = place.get_submodule(group)
        kind = OWN_KINDS.get(layer.kind) or getattr(nn, layer.kind)
        place.add_module(name, kind(*layer.arguments, **layer.options))
    return network


def initialise(network: nn.Module) -> None:
    """Kaiming initialisation of all convolutions and linear layers, the classifier too; biases are zero.

    Normal with the variance 2 / fan-in (He et al., "Delving Deep into Rectifiers", 2015), for GELU and SiLU
    as well. Drawn from torch's global generator, in the order of the network. What is not trained stays.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def make_identity(network: nn.Module) -> None:
    """Makes the first filters of each convolution the identity, as many as it has input channels, or outputs.

    A pixel of 1 in the middle of the input channel with the filter's own number (`torch.nn.init.dirac_`), as
    in Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, section 3.3. Biases stay.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight.detach()[: module.in_channels])


def build_model(
    architecture: Architecture,
    data: DataShape,
    *,
    initialisation: Initialisation = "he",
    mean: Tensor | None = None,
    std: Tensor | None = None,
    whitening: Tensor | None = None,
) -> nn.Module:
    """The initialised network, from images N x C x H x W (uint8 or float, 0 to 255) to one logit a class.

    A convolutional network computes in channels_last and accepts images in any memory format. The weights
    depend on torch's global generator (`torch.manual_seed`). A custom network stays as its function made it.

    Args:
        architecture: what the config says.
        data: the images that it is built for.
        initialisation: how its weights are drawn; see `mc1opt.config.Config`.
        mean: subtracted from each channel, 0 to 255, one value each; None is 0, for weights that are loaded
            later.
        std: the divisor of each channel, in the same units; None is 1.
        whitening: the filters of a whitened stem, from `mc1opt.models.whitening`; None leaves zeros in their
            place, for weights that are loaded later.

    Raises:
        ValueError: mean, std or whitening have a shape that does not belong to this architecture and data,
            whitening is given where there is no whitened stem, or the network does not fit the images.
        StudyFileError, NetworkError: a custom network cannot be built; see `mc1opt.models.custom`.
    """
    convolutional = isinstance(architecture, ConvNet)
    memory_format = torch.channels_last if convolutional else torch.contiguous_format
    mean = torch.zeros(data.channels) if mean is None else mean
    std = torch.ones(data.channels) if std is None else std
    for name, values in (("mean", mean), ("std", std)):
        if tuple(values.shape) != (data.channels,):
            raise ValueError(
                f"{name} has shape {tuple(values.shape)}; one value a channel is needed: ({data.channels},)"
            )
    network = nn.Sequential(OrderedDict(normalisation=Normalisation(mean, std, memory_format)))
    if isinstance(architecture, CustomNetwork):
        network.add_module(CUSTOM, build_custom(architecture, data))
        return network
    for name, module in build_layers(architecture, data).named_children():
        network.add_module(name, module)
    if whitening is not None:
        _set_whitening(network, whitening)
    if initialisation == "he":
        initialise(network)
    if isinstance(architecture, ConvNet) and architecture.identity_initialisation:
        make_identity(network)
    # Of the tensors only those with four dimensions have a memory format to change.
    return network.to(memory_format=memory_format) if convolutional else network


def _set_whitening(network: nn.Module, filters: Tensor) -> None:
    stems = [module for module in network.modules() if isinstance(module, FixedConvolution)]
    if not stems:
        raise ValueError("whitening filters were given, but the network has no whitened stem")
    needed = stems[0].weight.shape
    if filters.shape != needed:
        raise ValueError(
            f"the whitening filters have shape {tuple(filters.shape)}; this stem needs {tuple(needed)}"
        )
    stems[0].weight.copy_(filters)
