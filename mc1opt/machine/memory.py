"""The memory that a training takes, before it starts: weights, gradients, optimizer, activations, images.

Estimated from the config, without torch, and rather too high than too low: a network that does not fit is
refused with a message, not killed by the kernel. Tested against what a worker really takes.
Not here: how much memory is free (`mc1opt.machine.resources`).
"""

from dataclasses import dataclass

from mc1opt.config import SGD, Config, Muon
from mc1opt.dataset import DataShape
from mc1opt.models.cost import cost
from mc1opt.spec import INFERENCE_BATCH, Device, Precision

FLOAT_BYTES = 4
PROCESS_BYTES = 800 << 20
"""A worker before its first step: torch, and the images in float of which mean and deviation are taken."""
CONTEXT_BYTES = 700 << 20
"""The context of a process on a GPU: kernels and libraries' workspaces."""
CUDA_PROCESS_BYTES = 3 << 30
"""Host memory of a worker that trains on a GPU: torch with CUDA's libraries."""
ACTIVATION_BYTES = 20
"""For each output value of a layer in training: the value, what activation and pooling keep, its gradient,
and a share of what a convolution copies into the memory order that it computes in."""


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that one training takes."""

    host: int
    """Of the machine's memory."""
    device: int
    """Of the GPU's own memory; 0 on a CPU, and on Apple's GPU, which shares the machine's."""


def training_memory(
    config: Config,
    shape: DataShape,
    *,
    train_images: int,
    validation_images: int,
    device: Device,
    precision: Precision,
) -> MemoryNeed:
    """What one worker takes while it trains a config.

    Args:
        config: what is trained.
        shape: of the images.
        train_images: that the trainer holds.
        validation_images: that it holds besides; 0 if it does not validate.
        device: where.
        precision: what is computed in.
    """
    size = cost(config.architecture, shape)
    parameters = size.parameters
    image_bytes = shape.channels * shape.size**2  # as the trainer holds it: uint8
    values_an_image = size.values + image_bytes
    # Weights and the optimizer's running means; of both a copy for the next checkpoint, and another one while
    # that is written.
    state = (1 + _running_means(config)) * FLOAT_BYTES * parameters
    tensors = 2 * state + FLOAT_BYTES * parameters  # and gradients
    if precision == "bfloat16":
        tensors += 2 * 2 * parameters  # autocast's copies of the weights, and their gradients
    step = config.batch_size * values_an_image * ACTIVATION_BYTES
    validation = INFERENCE_BATCH * values_an_image * FLOAT_BYTES if validation_images else 0
    work = tensors + max(step, validation) + (train_images + validation_images) * image_bytes
    if device == "cuda":
        return MemoryNeed(host=CUDA_PROCESS_BYTES + 2 * state, device=CONTEXT_BYTES + work)
    return MemoryNeed(host=PROCESS_BYTES + work + state, device=0)


def evaluation_memory(config: Config, shape: DataShape, test_images: int, device: Device) -> MemoryNeed:
    """What measuring a trained network on the test images takes, in float32.

    Args:
        config: what was trained.
        shape: of the images.
        test_images: how many.
        device: where.
    """
    size = cost(config.architecture, shape)
    parameters = size.parameters
    image_bytes = shape.channels * shape.size**2  # as the trainer holds it: uint8
    values_an_image = size.values + image_bytes
    # The weights as they are read, and in the network.
    work = 2 * FLOAT_BYTES * parameters + test_images * image_bytes
    work += INFERENCE_BATCH * values_an_image * FLOAT_BYTES
    if device == "cuda":
        return MemoryNeed(host=CUDA_PROCESS_BYTES + FLOAT_BYTES * parameters, device=CONTEXT_BYTES + work)
    return MemoryNeed(host=PROCESS_BYTES + work, device=0)


def _running_means(config: Config) -> int:
    """Values that the optimizer keeps for each parameter: the momentum, or Adam's two means."""
    if isinstance(config.optimizer, SGD | Muon):
        return 1 if config.optimizer.momentum > 0.0 else 0
    return 2
