import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mc1opt.errors import UsageError
from mc1opt.machine import devices
from mc1opt.machine.devices import cpu_flags, resolve_device, resolve_precision


@pytest.fixture
def machine(monkeypatch):
    """Sets what torch finds."""

    def set_machine(cuda: bool = False, mps: bool = False, cuda_build: str | None = None) -> None:
        monkeypatch.setattr(devices, "_may_have_accelerator", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.version, "cuda", cuda_build)

    return set_machine


@pytest.mark.parametrize(
    ("cuda", "mps", "device"), [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_best_that_is_there(machine, cuda, mps, device):
    machine(cuda=cuda, mps=mps)
    assert resolve_device("auto") == device


def test_a_device_that_is_there_is_taken(machine):
    machine(cuda=True, mps=True)
    assert [resolve_device(name) for name in ("cpu", "cuda", "mps")] == ["cpu", "cuda", "mps"]


def test_an_unknown_device_is_named_with_what_is_allowed():
    with pytest.raises(UsageError, match=r"'tpu'.*auto, cpu, cuda, mps"):
        resolve_device("tpu")


@pytest.mark.parametrize(("build", "text"), [("12.8", r"CUDA 12\.8"), (None, "no CUDA")])
def test_cuda_that_is_absent_is_an_error_that_says_how_torch_was_built(machine, build, text):
    machine(cuda_build=build)
    with pytest.raises(UsageError, match=f"--device cuda.*{text}"):
        resolve_device("cuda")


def test_mps_that_is_absent_is_an_error(machine):
    machine()
    with pytest.raises(UsageError, match="--device mps"):
        resolve_device("mps")


@pytest.mark.parametrize("node", ["/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg", None])
def test_auto_asks_torch_where_linux_shows_the_node_of_a_driver(monkeypatch, node):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == node)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == ("cpu" if node is None else "cuda")


def test_the_cpu_is_found_without_torch():
    code = (
        "import sys\n"
        "from mc1opt.machine import devices\n"
        "devices._may_have_accelerator = lambda: False\n"
        "assert devices.resolve_device('cpu') == devices.resolve_device('auto') == 'cpu'\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


AMD, INTEL = "AuthenticAMD", "GenuineIntel"


@pytest.mark.parametrize(
    ("vendor", "flags", "precision"),
    [
        (AMD, "avx512f avx512_bf16", "bfloat16"),
        (INTEL, "avx512f avx512_bf16", "float32"),  # as many products a cycle as in float32
        (INTEL, "avx512f avx512_bf16 amx_bf16", "bfloat16"),
        (AMD, "avx2 fma", "float32"),
    ],
)
def test_a_cpu_trains_in_what_it_multiplies_fastest(cpuinfo, vendor, flags, precision):
    one = f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\nvmx flags\t: amx_bf16\n\n"
    cpuinfo(one + one)
    assert cpu_flags() == set(flags.split())
    assert resolve_precision("cpu") == precision


def test_without_a_word_of_linux_a_cpu_trains_in_float32(cpuinfo):
    cpuinfo(None)
    assert (cpu_flags(), resolve_precision("cpu")) == (frozenset(), "float32")
