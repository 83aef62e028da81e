"""Options that turn on what a plain `pytest` skips, the folder of each test, and facts of the machine.

Other kinds of machine, for all processes that tests start: `tests/machine.sh`.
"""

import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mc1opt.machine import resources
from mc1opt.machine.devices import cpu_flags

# Before torch is imported. The threads of two processes would wait for each other on two cores; a training
# in a process of its own has as many as it is given.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")

FIXTURES = (
    "tests.support.command_fixtures",
    "tests.support.model_fixtures",
    "tests.support.postgresql",
    "tests.support.study_fixtures",
)

ROOT = Path("/")
PLENTY = 64 << 30
"""Bytes: more than anything that is planned here takes."""
SWITCHES = {
    "real_data": ("--real-data", "needs the real CIFAR-10"),
    "postgresql": ("--postgresql", "needs PostgreSQL's server programs"),
    "browser": ("--browser", "needs Chromium and its driver"),
    "ray": ("--ray", "needs Ray"),
    "cuda": ("--cuda", "needs an NVIDIA GPU"),
    "slow": ("--slow", "takes long"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    for option, reason in SWITCHES.values():
        parser.addoption(
            option, action="store_true", help=f"run the tests that are skipped because: {reason}"
        )
    parser.addoption("--update-messages", action="store_true", help="write tests/messages.txt anew")
    parser.addoption(
        "--kills", type=int, default=3, help="how often tests/faults/test_chaos.py kills each of its searches"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Imports the fixtures, torch with them, but not in the process that only hands tests out to others.

    Ctrl-C reaches the commands that tests start; a shell's background jobs hand down to ignore it.
    """
    if config.getoption("dist", "no") == "no" or not config.getoption("tx"):
        for name in FIXTURES:
            config.pluginmanager.import_plugin(name)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What was imported is there to the end: no collection needs to walk through it."""
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for marker, (option, reason) in SWITCHES.items():
            if marker in item.keywords and not config.getoption(option):
                item.add_marker(pytest.mark.skip(reason=f"{reason}; turn on with {option}"))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Relative paths lead into the folder of the test, and images into a cache of its own.

    A terminal is of the same kind and, where there is none, as wide as everywhere.
    """
    monkeypatch.chdir(tmp_path)
    for name in (
        "MC1OPT_STORAGE",
        "MC1OPT_FILES",
        "WANDB_MODE",
        "FORCE_COLOR",
        "NO_COLOR",
    ):  # the first would mirror every search here
        monkeypatch.delenv(name, raising=False)
    for name, value in (("TERM", "xterm-256color"), ("COLUMNS", "80"), ("LINES", "24")):
        monkeypatch.setenv(name, value)
    if "real_data" not in request.keywords:
        monkeypatch.setenv("MC1OPT_DATA", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is free for whatever is planned in this process, however little of it the machine has."""
    measured = resources.available_memory

    def plenty() -> int:
        return PLENTY if resources._ROOT == ROOT else measured()

    for module in ("machine.resources", "doctor.checks", "published.measure"):
        monkeypatch.setattr(f"mc1opt.{module}.available_memory", plenty)


@pytest.fixture
def cpuinfo(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Sets what Linux says of the CPUs; None where there is no such file."""
    read_text = Path.read_text

    def set_text(text: str | None) -> None:
        def read(path: Path, *args: str, **kwargs: str) -> str:
            if str(path) != "/proc/cpuinfo":
                return read_text(path, *args, **kwargs)
            if text is None:
                raise FileNotFoundError(path)
            return text

        monkeypatch.setattr(Path, "read_text", read)

    return set_text


@pytest.fixture(params=["float32", "bfloat16"])
def precision(request: pytest.FixtureRequest, cpuinfo: Callable[[str | None], None]) -> str:
    """What the CPU trains in: a test that asks for it runs in both, whatever this machine's CPU is."""
    flags = cpu_flags() - {"amx_bf16"} | ({"amx_bf16"} if request.param == "bfloat16" else set())
    cpuinfo(f"vendor_id\t: GenuineIntel\nflags\t\t: {' '.join(sorted(flags))}\n")
    return request.param
