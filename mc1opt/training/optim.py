"""Optimizers, learning rates, averages: config -> `torch.optim`, schedule -> one factor per step."""

import math

import torch
from torch import nn

from mc1opt.config import SGD, Adam, AdamW, Constant, Cosine, OneCycle


def build_optimizer(model: nn.Module, config: SGD | Adam | AdamW) -> torch.optim.Optimizer:
    """The optimizer of a config; norms and biases (tensors of one dimension) have no weight decay."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # One fused kernel per step instead of one per tensor: most of the overhead on small networks.
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in trainable)
    if isinstance(config, SGD):
        return torch.optim.SGD(
            groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.nesterov, fused=fused
        )
    kind = torch.optim.Adam if isinstance(config, Adam) else torch.optim.AdamW
    return kind(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=fused)


def optimizer_state_keys(config: SGD | Adam | AdamW) -> tuple[str, ...]:
    """The state that the optimizer keeps for each parameter from its first step on."""
    if isinstance(config, SGD):
        return ("momentum_buffer",) if config.momentum else ()
    return ("step", "exp_avg", "exp_avg_sq")


def learning_rate_factor(schedule: Constant | Cosine | OneCycle, step: int, total_steps: int) -> float:
    """The learning rate of a step (from 0) as a fraction of the peak.

    `Cosine` is `CosineAnnealingLR(T_max=total_steps)`. `OneCycle` is `OneCycleLR` with linear annealing and
    without momentum cycling: the first step has the rate `start`, the last one `end`, and the peak comes
    after `warmup * total_steps - 1` steps. If that is not above 0, there is no warm-up: the first step has
    the peak, or is past it.
    """
    if isinstance(schedule, Constant):
        return 1.0
    if isinstance(schedule, Cosine):
        return 0.5 * (1.0 + math.cos(math.pi * step / total_steps))
    peak = schedule.warmup * total_steps - 1.0
    if step <= peak and peak > 0.0:
        return schedule.start + (1.0 - schedule.start) * step / peak
    after = (step - peak) / (total_steps - 1.0 - peak)
    return 1.0 + (schedule.end - 1.0) * after


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def update_average(averaged: nn.Module, model: nn.Module, share: float, step: int, total_steps: int) -> None:
    """Takes a network as it is after a step (counted from 0) into the average over the last share of steps.

    Stochastic weight averaging (Izmailov et al., 2018) over steps instead of epochs. The statistics of batch
    norm are averaged as weights are. Before the average begins it is the network itself.
    """
    averages, values = (
        [tensor for tensor in each.state_dict().values() if tensor.is_floating_point()]
        for each in (averaged, model)
    )
    number = max(0, step - math.ceil(total_steps * (1.0 - share)))
    torch._foreach_lerp_(averages, values, 1 / (number + 1))
