"""mc1opt finds a good image classifier, and shows why it is good."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__version__ = "0.1.0"


def load_model(path: str | Path) -> "nn.Module":
    """The model of a model folder, such as storage/models/cnn, as a `torch.nn.Module` in evaluation mode.

    It takes images (uint8, N x 3 x 32 x 32, RGB) on the CPU and gives logits (N x 10); normalisation is part
    of it. See `mc1opt.results.model_folder.load_model`.

    Raises:
        mc1opt.errors.ModelError: the folder is missing, damaged, of a newer mc1opt, or of other classes.
    """
    from mc1opt.results import model_folder  # imports torch, which takes seconds

    return model_folder.load_model(path)
