"""Networks that a function of a study file builds: finding and calling it, and what the network costs.

Not here: what the function is told, and what it must return (`mc1opt.config.CustomNetwork`).
"""

import functools
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mc1opt.config import CustomNetwork
from mc1opt.dataset import DataShape
from mc1opt.errors import NetworkError, StudyFileError
from mc1opt.models.cost import Cost
from mc1opt.study_file import StudyFile, code_hash, what

CUSTOM = "network"
"""The name of a custom network in the model that `mc1opt.models.build.build_model` makes."""
IMAGES = 2
"""A batch on which a network is tried: one image may lose its dimension on the way."""


def build_custom(network: CustomNetwork, data: DataShape) -> nn.Module:
    """Calls the function; its network has the weights that it drew from torch's global generator.

    Raises:
        StudyFileError: the study file is not there, or its code has changed.
        NetworkError: the function raised, or returned no module.
    """
    file = _file(network.path, network.code, network.function)
    try:
        with file.neighbours.importable():
            module = getattr(file.module, network.function)(data, **network.arguments)
    except Exception as error:
        raise NetworkError(f"{_call(network)} of {file.path} raised {what(error, file.path)}") from error
    if not isinstance(module, nn.Module):
        raise NetworkError(
            f"{_call(network)} of {file.path} returned {type(module).__name__}; it must return a "
            "torch.nn.Module"
        )
    return module


@functools.lru_cache(maxsize=4096)
def custom_cost(network: CustomNetwork, data: DataShape) -> Cost:
    """What a custom network costs, counted in one forward pass on the meta device, which computes nothing.

    A network that cannot be built there is built and run on the CPU.

    Raises:
        StudyFileError: see `build_custom`.
        NetworkError: the same; or the network raised, its output is not one logit a class, or it has nothing
            to train.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            return _counted(network, data, "meta")
        except NetworkError:
            return _counted(network, data, "cpu")


def _counted(network: CustomNetwork, data: DataShape, device: str) -> Cost:
    flops, values = FlopCounterMode(display=False), _Values()  # type: ignore[no-untyped-call]
    with torch.device(device), torch.no_grad():
        module = build_custom(network, data).eval()
        images = torch.zeros(IMAGES, data.channels, data.size, data.size)
        try:
            with flops, values:
                logits = module(images)
        except Exception as error:
            raise NetworkError(network_raised(network, error)) from error
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (IMAGES, data.classes):
        raise NetworkError(
            f"the network of {_call(network)} gives {shape} for {IMAGES} images; it must give one logit a "
            f"class: {(IMAGES, data.classes)}"
        )
    parameters = sum(each.numel() for each in module.parameters() if each.requires_grad)
    if not parameters:
        raise NetworkError(f"the network of {_call(network)} has no parameters to train")
    # A multiply-accumulate is two operations to PyTorch's counter.
    return Cost(parameters, flops.get_total_flops() // (2 * IMAGES), values.count // IMAGES)


def network_raised(network: CustomNetwork, error: BaseException) -> str:
    """What an exception while a custom network was used says, with its place in the study file."""
    return f"the network of {_call(network)} of {network.path} raised {what(error, Path(network.path))}"


class _Values(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the values that operations put out, views and changes in place aside."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if all(each.alias_info is None for each in func._schema.returns):
            first = result[0] if isinstance(result, tuple | list) and result else result
            self.count += first.numel() if isinstance(first, torch.Tensor) else 0
        return result


def _call(network: CustomNetwork) -> str:
    """As it would be written, such as "build(data, depth=3)"."""
    arguments = "".join(f", {name}={value!r}" for name, value in network.arguments.items())
    return f"{network.function}(data{arguments})"


@functools.lru_cache(maxsize=8)
def _file(path: str, code: str, function: str) -> StudyFile:
    """The study file with that code, loaded: where it was, or of the same name in ./studies."""
    changed = []
    for place in (Path(path), Path("studies") / Path(path).name):
        if place.is_file():
            if code_hash(place, function) == code:
                return StudyFile(place)
            changed.append(place)
    name = f"the network is built by `{function}` of {path}"
    if changed:
        raise StudyFileError(
            f"{name}, whose code has changed since: {changed[0]} is not what built it. Bring the old code "
            "back, or start another study with --name."
        )
    raise StudyFileError(f"{name}, which is not there. Put the file back, or into ./studies.")
