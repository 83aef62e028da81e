"""Optimizers, learning rates, averages: config -> `torch.optim`, schedule -> one factor per step."""

import math

import torch
from torch import nn

from mc1opt.config import SGD, Adam, AdamW, Constant, Cosine, Muon, OneCycle


def build_optimizer(model: nn.Module, config: SGD | Adam | AdamW | Muon) -> torch.optim.Optimizer:
    """The optimizer of a config; norms and biases (tensors of one dimension) have no weight decay."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in trainable if parameter.ndim > 1]
    others = [parameter for parameter in trainable if parameter.ndim <= 1]
    # One fused kernel per step instead of one per tensor: most of the overhead on small networks.
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in trainable)
    if isinstance(config, Muon):
        *matrices, classifier = weights
        groups = [
            {"params": matrices, "lr": config.learning_rate, "weight_decay": config.weight_decay},
            {"params": [classifier, *others], "lr": config.sgd_learning_rate},
        ]
        # One optimizer to the loop and to checkpoints: SGD, which leaves its first group to Muon.
        sgd = torch.optim.SGD(groups, momentum=config.momentum, nesterov=True, fused=fused)
        sgd.register_step_pre_hook(_step_matrices)
        return sgd
    groups = [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if isinstance(config, SGD):
        return torch.optim.SGD(
            groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.nesterov, fused=fused
        )
    kind = torch.optim.Adam if isinstance(config, Adam) else torch.optim.AdamW
    return kind(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=fused)


def _step_matrices(sgd: torch.optim.Optimizer, *_: object) -> None:
    """Muon's step on the first group of `sgd`, which has its momentum and passes over it in its own step."""
    group = sgd.param_groups[0]
    parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
    matrices = [_as_matrix(parameter) for parameter in parameters]
    muon: torch.optim.Optimizer = torch.optim.Muon(
        matrices, lr=group["lr"], weight_decay=group["weight_decay"], momentum=group["momentum"]
    )
    for parameter, matrix in zip(parameters, matrices, strict=True):
        state = sgd.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        muon.state[matrix]["momentum_buffer"] = _as_matrix(state["momentum_buffer"])
        matrix.grad = _as_matrix(parameter.grad)
        parameter.grad = None  # so that SGD passes over it
    muon.step()


def _as_matrix(values: torch.Tensor) -> torch.Tensor:
    """A view with a row for each output, its values in the order of memory, which does not matter to Muon."""
    values = values.detach()
    return (values if values.is_contiguous() else values.movedim(1, -1)).view(len(values), -1)


def optimizer_state_keys(config: SGD | Adam | AdamW | Muon) -> tuple[str, ...]:
    """The state that the optimizer keeps for each parameter from its first step on."""
    if isinstance(config, SGD | Muon):
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


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets the learning rate of each parameter group to a fraction of its peak, which it has at first."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def update_average(averaged: nn.Module, model: nn.Module, share: float, step: int, total_steps: int) -> None:
    """Takes a network as it is after a step (counted from 0) into the average over the last share of steps.

    Stochastic weight averaging (Izmailov et al., 2018) over steps instead of epochs. The statistics of batch
    norm are averaged as weights are. Before the average begins it is the network itself.
    """
    # Each tensor once, also where two layers share it.
    averages, values = (
        [each.detach() for each in (*network.parameters(), *network.buffers()) if each.is_floating_point()]
        for network in (averaged, model)
    )
    number = max(0, step - math.ceil(total_steps * (1.0 - share)))
    torch._foreach_lerp_(averages, values, 1 / (number + 1))
