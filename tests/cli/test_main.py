"""The command as a whole: help, version, and how errors end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mc1opt
from tests.support.command import COMMAND, output_of
from tests.support.command import mc1opt as mc1opt_command

NAMES = [
    "run",
    "show",
    "dashboard",
    "retrain",
    "explain",
    "report",
    "mirror",
    "export",
    "predict",
    "evaluate",
    "replay",
    "data",
    "doctor",
    "studies",
    "presets",
]
BELOW = [["studies", "delete"], ["presets", "show"], ["presets", "run"]]
COMMANDS = [[], *([name] for name in NAMES), *BELOW]

ALL_HELP = """
import sys
from mc1opt.cli.main import main
for command in {commands}:
    sys.argv = ["mc1opt", *command, "--help"]
    try:
        main()
    except SystemExit as end:
        assert end.code == 0
heavy = {{
    "torch", "torchvision", "optuna", "optuna_dashboard", "plotly", "matplotlib", "wandb", "numpy", "ray"
}}
print("HEAVY", sorted(heavy & set(sys.modules)))
import numpy
import threadpoolctl
print("THREADS", {{pool["num_threads"] for pool in threadpoolctl.threadpool_info()}})
"""


def test_no_help_imports_what_takes_seconds_and_numpy_gets_one_thread(monkeypatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    code = ALL_HELP.format(commands=COMMANDS)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("HEAVY []\nTHREADS {1}\n")
    assert result.stdout.count("Usage: mc1opt") == len(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_has_examples_of_the_command(mc1opt_here, command: list[str]) -> None:
    shown = output_of(mc1opt_here(*command, "--help"))
    assert f"  Examples:\n    {' '.join(['mc1opt', *command])}" in shown


def test_the_list_of_commands_says_each_in_a_whole_line(mc1opt_here) -> None:
    listed = mc1opt_here("--help").stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == NAMES
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)


def test_the_version_is_that_of_the_package(mc1opt_here) -> None:
    shown = mc1opt_here("--version")
    assert (shown.returncode, shown.stdout) == (0, f"mc1opt {mc1opt.__version__}\n")


def test_no_command_at_all_shows_the_help(mc1opt_here) -> None:
    shown = mc1opt_here()
    assert shown.returncode == 2
    assert "Examples:" in shown.stdout + shown.stderr


@pytest.mark.parametrize("place", [0, 1, 3], ids=["before", "behind", "last"])
def test_debug_shows_the_traceback_wherever_it_stands(mc1opt_here, place: int) -> None:
    arguments = ["show", "--study", "mlp"]
    arguments.insert(place, "--debug")
    shown = mc1opt_here(*arguments)
    assert shown.returncode == 1
    assert shown.stderr.startswith("Traceback")
    assert shown.stderr.splitlines()[-1].startswith("Error: ")


def test_an_error_is_one_message_on_standard_error() -> None:
    shown = mc1opt_command("show", "--study", "mlp")
    assert shown.returncode == 1
    assert shown.stdout == ""
    (line,) = shown.stderr.splitlines()
    assert line.startswith("Error: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' device that is always full")
@pytest.mark.parametrize(
    ("command", "unbuffered"), [(["presets", "--json"], ""), (["--help"], ""), (["--help"], "1")]
)
def test_an_unexpected_error_asks_for_the_traceback(
    monkeypatch: pytest.MonkeyPatch, command: list[str], unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [COMMAND, *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "OSError: [Errno 28]" in line
    assert "--debug" in line


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_gone_is_not_complained_of(
    monkeypatch: pytest.MonkeyPatch, unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([COMMAND, "--help"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, b"")
