"""What a trial was trained with."""

import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import mc1opt
from mc1opt.config import MLP, SGD, Config, LinearLayer, Muon
from mc1opt.machine import devices, environment
from mc1opt.machine.environment import cpu_capability, gpu_model, versions

COMMIT = "from mc1opt.machine.environment import commit; print(commit())"


def output(*command: str, folder: Path) -> str:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with a copy of the package; Python started there imports that one."""
    folder = tmp_path / "copy"
    shutil.copytree(
        Path(mc1opt.__file__).parent, folder / "mc1opt", ignore=shutil.ignore_patterns("__pycache__")
    )
    return folder


def test_versions_are_those_of_the_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_flags", lambda: frozenset({"avx512_bf16", "amx_bf16", "sse"}))
    found = versions(threads=3, precision="bfloat16")
    assert found == {
        "mc1opt": mc1opt.__version__,
        "python": platform.python_version(),
        "torch": version("torch"),
        "optuna": version("optuna"),
        "cpu": f"{cpu_capability()} amx_bf16 avx512_bf16",
        "threads": 3,
        "precision": "bfloat16",
    }
    assert versions(threads=3, precision="float32")["cpu"] == cpu_capability()
    muon, sgd = (
        Config(architecture=MLP(layers=(LinearLayer(width=4),)), optimizer=optimizer, batch_size=2)
        for optimizer in (Muon(learning_rate=0.02, sgd_learning_rate=0.1), SGD(learning_rate=0.1))
    )
    assert versions(3, "float32", config=muon)["cpu"] == found["cpu"]
    assert versions(3, "float32", "cuda", muon)["cpu"] == cpu_capability()
    assert versions(3, "float32", config=sgd)["cpu"] == cpu_capability()
    assert versions(threads=3, precision="bfloat16", device="cuda")["cpu"] == cpu_capability()


def test_the_gpu_is_named_by_its_driver_and_only_where_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_model(Path("none")) is None
    for place, model in (("0000:01:00.0", "NVIDIA H100"), ("0000:02:00.0", "NVIDIA H100")):
        folder = Path("gpus", place)
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 42\nGPU UUID: \t x\n")
    assert gpu_model(Path("gpus")) == "NVIDIA H100"
    monkeypatch.setattr(environment, "gpu_model", lambda: "NVIDIA H100")
    assert versions(1, "bfloat16", "cuda")["gpu"] == "NVIDIA H100"
    assert "gpu" not in versions(1, "bfloat16", "cpu")


def test_the_cpu_capability_is_the_one_that_torch_chose() -> None:
    import torch

    chosen = torch.backends.cpu.get_cpu_capability()
    if chosen == "DEFAULT":
        chosen = platform.machine()
    assert cpu_capability() == chosen


def test_a_forced_cpu_capability_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert cpu_capability.__wrapped__() == "AVX2"


def test_torch_is_not_imported_for_it(tmp_path: Path) -> None:
    code = (
        "import sys; from mc1opt.machine.environment import *; versions(1, 'float32'); commit(); "
        "print('torch' in sys.modules)"
    )
    assert output(sys.executable, "-c", code, folder=tmp_path) == "False"


def new_checkout(folder: Path) -> str:
    """Makes a folder a checkout with a commit, and gives that."""
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    output("git", "init", "--quiet", folder=folder)
    output("git", *identity, "commit", "--quiet", "--allow-empty", "-m", "first", folder=folder)
    return output("git", "rev-parse", "HEAD", folder=folder)


def test_in_a_checkout_the_commit_is_its_head(copy: Path) -> None:
    head = new_checkout(copy)
    assert output(sys.executable, "-c", COMMIT, folder=copy) == head


def test_in_a_checkout_without_a_commit_there_is_none(copy: Path) -> None:
    output("git", "init", "--quiet", folder=copy)
    assert output(sys.executable, "-c", COMMIT, folder=copy) == "None"


def test_a_checkout_around_the_installed_package_is_not_its_own(copy: Path) -> None:
    new_checkout(copy.parent)
    assert output(sys.executable, "-c", COMMIT, folder=copy) == "None"
