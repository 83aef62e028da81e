"""The program's name in commands to copy: one that a shell finds; the start of the machine it runs in."""

import shlex
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from mc1opt.program import boot_id, installed, program


def make_program(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "mc1opt"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path.absolute()


@pytest.mark.parametrize("called", ["pytest", "/usr/lib/python3/ipykernel_launcher.py", "-c", ""])
def test_outside_of_the_command_it_is_the_bare_name(monkeypatch: pytest.MonkeyPatch, called: str) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    assert program() == "mc1opt"


def test_where_the_shell_finds_it_it_is_the_bare_name(monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_program(Path("bin"))
    monkeypatch.setenv("PATH", str(path.parent))
    monkeypatch.setattr(sys, "argv", [str(path)])
    assert program() == "mc1opt"


@pytest.mark.parametrize("name", ["other", "with space"])
def test_where_the_shell_finds_none_or_another_one_it_is_the_path(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = make_program(Path(name))
    monkeypatch.setattr(sys, "argv", [str(path)])
    for folders in ("", str(make_program(Path("bin")).parent)):
        monkeypatch.setenv("PATH", folders)
        assert shlex.split(program()) == [str(path)]


def test_a_path_that_was_given_relatively_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    make_program(Path("bin"))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["bin/mc1opt"])
    assert program() == "bin/mc1opt"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells its starts apart")
def test_the_start_of_the_machine_is_the_same_in_all_processes() -> None:
    command = [sys.executable, "-c", "from mc1opt.program import boot_id; print(boot_id())"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == boot_id()
    assert boot_id()


def test_the_version_of_a_package_is_that_of_its_metadata() -> None:
    assert installed("optuna") == optuna.__version__
    assert installed("mc1opt-of-another-name") is None
