"""Optimizers against `torch.optim`'s plain ones, learning rates against `torch.optim.lr_scheduler`."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from mc1opt.config import SGD, Adam, AdamW, Constant, Cosine, Muon, OneCycle
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.models.build import build_model
from mc1opt.training.optim import (
    build_optimizer,
    learning_rate_factor,
    optimizer_state_keys,
    set_learning_rate,
    update_average,
)
from tests.support.images import SMALL_CONVNET

DECAY = 0.05


def network() -> nn.Module:
    """Convolutions in channels_last, linear layers, norms and biases; fixed filters in the stem."""
    torch.manual_seed(0)
    return build_model(SMALL_CONVNET, CIFAR10_SHAPE, whitening=torch.randn(24, 3, 2, 2)).to(
        memory_format=torch.channels_last
    )


def decays(name: str) -> bool:
    """Whether a parameter of `network` is neither of a norm nor a bias, by its name."""
    return not (name.endswith("bias") or ".norm." in name)


def one_step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (8, 3, 32, 32), generator=generator).float() / 255
    torch.manual_seed(seed)  # dropout
    optimizer.zero_grad()
    model(images).square().mean().backward()
    optimizer.step()


# ---- Optimizers ------------------------------------------------------------------------------------------

PLAIN = {
    "sgd": (
        SGD(learning_rate=0.05, weight_decay=DECAY),
        lambda groups: torch.optim.SGD(groups, lr=0.05, fused=False, foreach=False),
    ),
    "sgd with momentum": (
        SGD(learning_rate=0.05, momentum=0.8, weight_decay=DECAY),
        lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.8, fused=False, foreach=False),
    ),
    "sgd with nesterov": (
        SGD(learning_rate=0.05, momentum=0.8, nesterov=True, weight_decay=DECAY),
        lambda groups: torch.optim.SGD(
            groups, lr=0.05, momentum=0.8, nesterov=True, fused=False, foreach=False
        ),
    ),
    "adam": (
        Adam(learning_rate=0.01, beta1=0.8, beta2=0.95, weight_decay=DECAY),
        lambda groups: torch.optim.Adam(groups, lr=0.01, betas=(0.8, 0.95), fused=False, foreach=False),
    ),
    "adamw": (
        AdamW(learning_rate=0.01, beta1=0.8, beta2=0.95, weight_decay=DECAY),
        lambda groups: torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.95), fused=False, foreach=False),
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_steps_are_those_of_torchs_plain_optimizer(name):
    config, plain = PLAIN[name]
    model = network()
    reference = copy.deepcopy(model)
    named = list(reference.named_parameters())
    expected = plain(
        [
            {"params": [parameter for name, parameter in named if decays(name)], "weight_decay": DECAY},
            {"params": [parameter for name, parameter in named if not decays(name)], "weight_decay": 0.0},
        ]
    )
    optimizer = build_optimizer(model, config)
    for step in range(5):
        one_step(model, optimizer, step)
        one_step(reference, expected, step)
    start = network().state_dict()
    for key, tensor in reference.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], tensor, rtol=1e-4, atol=1e-6)
        assert key.startswith(("stem", "normalisation")) == torch.equal(tensor, start[key]), key


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """Five of Newton and Schulz's iterations, with the coefficients of Jordan et al. (2024)."""
    x = matrix / matrix.norm()
    if len(x) > len(x.T):
        return orthogonalised(matrix.T).T
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


MUON = Muon(learning_rate=0.04, sgd_learning_rate=0.03, momentum=0.8, weight_decay=DECAY)


def test_muon_steps_are_those_of_the_definition_and_everything_else_has_nesterov_momentum():
    model = network()
    optimizer = build_optimizer(model, MUON)
    momenta = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    kinds = set()
    for step in range(3):
        before = copy.deepcopy(model)
        gradients = {name: torch.randn_like(parameter) for name, parameter in model.named_parameters()}
        for name, parameter in model.named_parameters():
            parameter.grad = gradients[name].clone()
        set_learning_rate(optimizer, 1 / (step + 1))
        optimizer.step()
        muon_rate, sgd_rate = 0.04 / (step + 1), 0.03 / (step + 1)
        for name, gradient in gradients.items():
            old, new = (each.get_parameter(name).detach() for each in (before, model))
            if gradient.ndim == 1 or name == "classifier.weight":
                momenta[name] = 0.8 * momenta[name] + gradient
                expected = old - sgd_rate * (gradient + 0.8 * momenta[name])
                torch.testing.assert_close(new, expected, rtol=1e-5, atol=1e-6)
                kinds.add("sgd")
                continue
            momenta[name] = 0.8 * momenta[name] + 0.2 * gradient
            update = (0.2 * gradient + 0.8 * momenta[name]).flatten(1).double()
            expected = orthogonalised(update) * math.sqrt(max(1, len(update) / len(update.T)))
            taken = (old * (1 - muon_rate * DECAY) - new).flatten(1) / muon_rate
            # It is computed in bfloat16, whose numbers have two to three digits.
            assert (taken - expected).norm() < 0.05 * expected.norm(), name
            kinds.add(f"{gradient.ndim} dimensions")
    assert kinds == {"sgd", "2 dimensions", "4 dimensions"}
    start = network().state_dict()
    assert torch.equal(model.state_dict()["stem.convolution.weight"], start["stem.convolution.weight"])


def test_frozen_parameters_are_left_out():
    model = network()
    model.head.requires_grad_(False)
    groups = build_optimizer(model, AdamW(learning_rate=0.1)).param_groups
    grouped = {id(parameter) for group in groups for parameter in group["params"]}
    assert grouped == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert not grouped & {id(parameter) for parameter in model.head.parameters()}


@pytest.mark.parametrize(
    ("config", "peaks"), [(SGD(learning_rate=0.1), [0.1, 0.1]), (MUON, [0.04, 0.03])], ids=["sgd", "muon"]
)
def test_a_learning_rate_is_set_for_all_groups_as_a_share_of_their_peaks(config, peaks):
    model = network()
    optimizer = build_optimizer(model, config)
    before = copy.deepcopy(model.state_dict())
    for factor in (1.0, 0.25, 0.5, 0.0):
        set_learning_rate(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == [peak * factor for peak in peaks]
    one_step(model, optimizer, 0)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize(
    "config",
    [
        SGD(learning_rate=0.1),
        SGD(learning_rate=0.1, momentum=0.5),
        Adam(learning_rate=0.1),
        AdamW(learning_rate=0.1),
        MUON,
    ],
    ids=["sgd", "sgd with momentum", "adam", "adamw", "muon"],
)
def test_the_keys_of_the_state_are_those_that_the_optimizer_has_after_a_step(config):
    model = network()
    optimizer = build_optimizer(model, config)
    one_step(model, optimizer, 1)
    for parameter in model.parameters():
        found = optimizer.state.get(parameter, {})
        assert set(found) == (set(optimizer_state_keys(config)) if parameter.requires_grad else set())


# ---- Learning rates --------------------------------------------------------------------------------------

STEPS = (1, 2, 3, 4, 5, 7, 10, 20, 98, 351)


def factors(schedule: Constant | Cosine | OneCycle, total_steps: int) -> list[float]:
    return [learning_rate_factor(schedule, step, total_steps) for step in range(total_steps)]


def rates(make: type[lr_scheduler.LRScheduler], steps: int, **options: object) -> list[float]:
    """What a scheduler of torch gives each step, with a peak of 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer, **options)
    result = []
    for step in range(steps):
        result.append(scheduler.get_last_lr()[0])
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    return result


@pytest.mark.parametrize("total_steps", STEPS)
def test_constant_stays_at_the_peak(total_steps):
    assert factors(Constant(), total_steps) == [1.0] * total_steps


@pytest.mark.parametrize("total_steps", STEPS)
def test_cosine_is_torchs(total_steps):
    expected = rates(lr_scheduler.CosineAnnealingLR, total_steps, T_max=total_steps)
    assert factors(Cosine(), total_steps) == pytest.approx(expected, rel=0, abs=1e-9)


@pytest.mark.parametrize("total_steps", STEPS)
@pytest.mark.parametrize("warmup", [0.01, 0.23, 0.37, 0.9, 0.99])
def test_one_cycle_is_torchs(total_steps, warmup):
    for start, end in [(0.2, 0.01), (1.0, 0.5), (0.04, 1e-4)]:
        expected = rates(
            lr_scheduler.OneCycleLR,
            total_steps,
            max_lr=1.0,
            total_steps=total_steps,
            pct_start=warmup,
            anneal_strategy="linear",
            cycle_momentum=False,
            div_factor=1 / start,
            final_div_factor=start / end,
        )
        schedule = OneCycle(warmup=warmup, start=start, end=end)
        assert factors(schedule, total_steps) == pytest.approx(expected, rel=0, abs=1e-9)


@pytest.mark.parametrize(("warmup", "total_steps"), [(0.5, 2), (0.25, 4), (0.2, 5), (0.1, 10)])
def test_one_cycle_whose_peak_is_the_first_step_begins_there(warmup, total_steps):
    # Torch divides by zero here.
    expected = [1 - 0.9 * step / (total_steps - 1) for step in range(total_steps)]
    assert factors(OneCycle(warmup=warmup, end=0.1), total_steps) == pytest.approx(expected)


@pytest.mark.parametrize("total_steps", STEPS[1:])
def test_one_cycle_without_an_end_comes_down_to_0(total_steps):
    assert factors(OneCycle(end=0.0), total_steps)[-1] == pytest.approx(0.0, abs=1e-12)


def test_muon_steps_do_not_depend_on_the_memory_format_of_filters():
    stepped = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 4, 2))
        model = model.to(memory_format=memory_format)
        optimizer = build_optimizer(model, MUON)
        for _ in range(3):
            optimizer.zero_grad()
            torch.autograd.backward(model(torch.rand(2, 3, 4, 4)).square().sum())
            optimizer.step()
        stepped.append(model[0].weight.detach())
    torch.testing.assert_close(stepped[0], stepped[1], rtol=0.0, atol=2e-3)  # computed in bfloat16


def test_a_tensor_that_two_layers_share_enters_the_average_once():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    averaged = copy.deepcopy(model)
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        averaged[0].weight.fill_(0.0)
    update_average(averaged, model, 1.0, 1, 2)
    torch.testing.assert_close(averaged[1].weight, torch.full((2, 2), 0.5))
