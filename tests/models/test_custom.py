"""Networks that a function of a study file builds: the code that is run, what is refused, what they cost."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mc1opt.config import ConvBlock, ConvNet, CustomNetwork, Pooling
from mc1opt.dataset import CIFAR10_SHAPE, DataShape
from mc1opt.errors import NetworkError, StudyFileError
from mc1opt.models.build import build_layers, build_model
from mc1opt.models.cost import cost
from mc1opt.study_file import code_hash

FILE = """
import torch
from torch import nn

def build(data, width=4):
    return nn.Sequential(
        nn.Conv2d(data.channels, width, 3, padding=1, bias=False), nn.MaxPool2d(2),
        nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(),
        nn.Linear(width * (data.size // 2) ** 2, data.classes),
    )
"""
GREY = DataShape(channels=1, size=8, classes=3)


def network(code: str = FILE, name: str = "net.py", **arguments: Any) -> CustomNetwork:
    path = Path(name)
    path.write_text(code)
    return CustomNetwork(arguments=arguments, code=code_hash(path, "build"), path=str(path.resolve()))


def body(text: str) -> str:
    """A study file whose function has this body."""
    return "import torch\nfrom torch import nn\n\ndef build(data, **arguments):\n" + "".join(
        f"    {line}\n" for line in text.splitlines()
    )


LINEAR = "nn.Sequential(nn.Flatten(), nn.LazyLinear(data.classes))"


# ---- What is built ---------------------------------------------------------------------------------------


def test_a_network_has_the_weights_that_its_function_drew_after_the_normalisation():
    torch.manual_seed(3)
    model = build_model(network(width=5), GREY, mean=torch.tensor([7.0]))
    torch.manual_seed(3)
    expected = nn.Conv2d(1, 5, 3, padding=1, bias=False)
    assert torch.equal(model.network[0].weight, expected.weight)
    assert [name for name, _ in model.named_children()] == ["normalisation", "network"]
    images = torch.full((2, 1, 8, 8), 7, dtype=torch.uint8)
    assert torch.equal(model.eval()(images), model.network(torch.zeros(2, 1, 8, 8)))


def test_the_function_may_import_the_files_neighbours_when_it_is_called():
    Path("_part.py").write_text("from torch import nn\nclass Part(nn.Flatten): ...\n")
    made = network(body("from _part import Part\nreturn nn.Sequential(Part(), nn.Linear(64, 3))"))
    assert build_model(made, GREY)(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_a_file_that_has_moved_is_found_in_the_folder_of_studies_and_no_other_code_is_run():
    made = network()
    Path("studies").mkdir()
    Path("studies/net.py").write_text("raise SystemExit('run')\n" + FILE)
    Path("net.py").unlink()
    with pytest.raises(StudyFileError, match="changed"):
        build_model(made, GREY)
    Path("studies/net.py").write_text(FILE)
    assert build_model(made, GREY)(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_a_file_that_is_missing_or_has_changed_is_refused():
    made = network(FILE.replace("ReLU", "GELU"))
    Path("net.py").write_text(FILE)
    with pytest.raises(StudyFileError, match="changed") as changed:
        build_model(made, GREY)
    Path("net.py").unlink()
    with pytest.raises(StudyFileError, match="not there") as missing:
        build_model(made, GREY)
    assert not isinstance(changed.value, NetworkError)
    assert not isinstance(missing.value, NetworkError)


# ---- What is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (body("return 3"), "int"),
        (body("return nn.Linear(1, 0 / 0)"), "ZeroDivisionError.*line 5"),
        ("def build(data): pass\n", "unexpected keyword"),
        (body("return nn.Linear(7, 3)"), "cannot be multiplied"),
        (body(f"return {LINEAR[:-1].replace('data.classes', '4')})"), r"\(2, 4\)"),
        (body("return nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Flatten(0))"), r"\(6,\)"),
        (body("return nn.Sequential(nn.Flatten(), nn.Linear(64, 3).requires_grad_(False))"), "to train"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused_with_the_call(code, said):
    with pytest.raises(NetworkError, match=f"(?s){said}") as raised:
        cost(network(code, wide=True), GREY)
    assert "build(data, wide=True)" in str(raised.value)


# ---- What it costs ---------------------------------------------------------------------------------------


def test_a_custom_network_costs_what_the_same_network_of_ours_does():
    """Its activation is an output like others; ours that work in place are not counted."""
    same = ConvNet(blocks=(ConvBlock(width=4, padding=1, norm="batch", pooling=Pooling(kind="max")),))
    own, ours = cost(network(), CIFAR10_SHAPE), cost(same, CIFAR10_SHAPE)
    assert (own.parameters, own.macs) == (ours.parameters, ours.macs)
    activation = 4 * 16 * 16
    assert own.values == ours.values + activation
    assert sum(p.numel() for p in build_layers(same, CIFAR10_SHAPE).parameters()) == own.parameters


def test_counting_computes_nothing_and_draws_nothing():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    code = body(
        "return nn.Sequential(nn.Flatten(), nn.Linear(64, 1 << 34), nn.Linear(1 << 34, data.classes))"
    )
    assert cost(network(code), GREY).macs == (64 + 3) << 34
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_that_looks_at_values_is_counted_on_the_cpu():
    code = body(f"assert float(torch.rand(1)) < 1.0\nreturn {LINEAR}")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert cost(network(code), GREY) == cost(network(body(f"return {LINEAR}"), "other.py"), GREY)
    assert torch.equal(torch.get_rng_state(), before)
