"""From an architecture to the network: normalisation, the layers, their initialisation, their memory format.

Not here: what the layers are (`mc1opt.models.mlp`, `mc1opt.models.convnet`), where mean, standard deviation
and whitening filters come from (`mc1opt.data`, `mc1opt.models.whitening`), and devices and precision.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from mc1opt.config import IMAGE_CHANNELS, IMAGE_SIZE, MLP, ConvNet, Initialisation
from mc1opt.models.convnet import convnet_parts
from mc1opt.models.mlp import mlp_parts


class Normalisation(nn.Module):
    """Takes a value of each channel away and divides by another: usually its mean and standard deviation.

    Both are buffers, so that they are stored with the weights and are part of an exported graph.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, memory_format: torch.memory_format) -> None:
        """`mean`, `std`: one value a channel, in units of 0 to 255; `memory_format`: that of the output."""
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            if tuple(values.shape) != (IMAGE_CHANNELS,):
                raise ValueError(
                    f"{name} has shape {tuple(values.shape)}; one value a channel is needed: (3,)"
                )
            self.register_buffer(name, values.detach().clone().to(torch.get_default_dtype()))
        self.memory_format = memory_format

    def forward(self, images_NCHW: Tensor) -> Tensor:  # noqa: N803  (a shape suffix)
        """The normalised images in the buffers' type; the input is uint8 or float with values 0 to 255."""
        values = images_NCHW.to(self.mean.dtype, memory_format=self.memory_format)
        return (values - self._image_of(self.mean)) / self._image_of(self.std)

    def _image_of(self, values: Tensor) -> Tensor:
        """An image of one colour: broadcast along the batch in memory order, unlike three values."""
        image = values.view(1, -1, 1, 1).expand(1, IMAGE_CHANNELS, IMAGE_SIZE, IMAGE_SIZE)
        return image.contiguous(memory_format=self.memory_format)


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


def build_model(
    architecture: MLP | ConvNet,
    *,
    initialisation: Initialisation = "he",
    mean: Tensor | None = None,
    std: Tensor | None = None,
    whitening: Tensor | None = None,
) -> nn.Module:
    """The initialised network, from images N x 3 x 32 x 32 (uint8 or float, 0 to 255) to logits N x 10.

    A convolutional network computes in channels_last and accepts images in any memory format. The weights
    depend on torch's global generator (`torch.manual_seed`).

    Args:
        architecture: what the config says.
        initialisation: how its weights are drawn; see `mc1opt.config.Config`.
        mean: taken away from each channel, 3 values, 0 to 255; None means 0, for weights that are loaded
            later.
        std: what each channel is divided by then, in the same units; None means 1.
        whitening: the filters of a whitened stem, from `mc1opt.models.whitening`; None puts zeros in their
            place, for weights that are loaded later.

    Raises:
        ValueError: mean, std or whitening have a shape that does not belong to this architecture, or
            whitening is given where there is no whitened stem.
    """
    if isinstance(architecture, MLP):
        if whitening is not None:
            raise ValueError("whitening filters were given, but an MLP has no stem")
        memory_format = torch.contiguous_format
        layers = mlp_parts(architecture)
    else:
        memory_format = torch.channels_last
        layers = convnet_parts(architecture, whitening)
    mean = torch.zeros(IMAGE_CHANNELS) if mean is None else mean
    std = torch.ones(IMAGE_CHANNELS) if std is None else std
    parts = OrderedDict[str, nn.Module](normalisation=Normalisation(mean, std, memory_format))
    parts.update(layers)
    network = nn.Sequential(parts)
    if initialisation == "he":
        initialise(network)
    # Of the tensors only those with four dimensions have a memory format to change.
    return network.to(memory_format=memory_format) if isinstance(architecture, ConvNet) else network
