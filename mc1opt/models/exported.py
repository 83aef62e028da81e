"""A trained network as it is exported: images in, logits and probabilities out.

Not here: the file formats (`mc1opt.export.formats`).
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn


class Inference(nn.Module):
    """A network of `mc1opt.models.build` for inference alone, in float32 or in float16.

    In float16 the normalisation stays in float32, because its inputs need all of their 8 bits, and so does
    the softmax.
    """

    def __init__(self, network: nn.Module, *, half: bool = False) -> None:
        """`network`: the one of `build_model`; it is changed where `half` is true."""
        super().__init__()
        (_, normalisation), *parts = network.named_children()
        self.normalisation = normalisation
        self.layers = nn.Sequential(OrderedDict(parts))
        self.dtype = torch.float16 if half else torch.float32
        self.layers.to(self.dtype)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and probabilities, both float32, N x classes, of images (uint8, N x C x H x W)."""
        logits = self.layers(self.normalisation(images).to(self.dtype)).float()
        return logits, logits.softmax(1)
