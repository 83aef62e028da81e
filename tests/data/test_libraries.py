"""torch and torchvision that do not match: told by their metadata, and when torchvision's import fails."""

import subprocess
import sys
from pathlib import Path

import pytest

from mc1opt.data.libraries import check_libraries, importing_torchvision
from mc1opt.errors import Mc1optError

PIP = "pip install --force-reinstall torch torchvision"


def install(folder: Path, package: str, version: str, *, requires: str | None = None, code: str = "") -> None:
    """A package as pip leaves it: its metadata, and a module that holds `code`."""
    metadata = folder / f"{package}-{version}.dist-info"
    metadata.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {package}", f"Version: {version}", "Requires-Dist: numpy"]
    lines += [f"Requires-Dist: {requires}"] if requires else []
    (metadata / "METADATA").write_text("\n".join(lines) + "\n")
    (folder / f"{package}.py").write_text(code)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that goes before all others where Python looks for packages."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_installed_pair_matches() -> None:
    check_libraries()


@pytest.mark.parametrize(
    ("torch", "torchvision", "requires"),
    [
        ("2.10.0", "0.25.0", None),
        ("2.10.0+cpu", "0.25.0+cpu", None),
        ("2.10.0+cpu", "0.25.0", None),
        ("2.10.0+cu130", "0.25.0+cu130", "torch==2.10.0"),
        ("2.10.1", "0.25.0", "torch==2.10.0"),
        ("2.11.0", "0.25.0", "torch>=2.10.0"),
        ("2.11.0", "0.25.0", "torch (>=2.10.0)"),
        ("2.12.0.dev20260101+cpu", "0.27.0.dev20260102+cpu", "torch==2.12.0.dev20260101"),
        ("unheard-of", "0.25.0", None),
    ],
)
def test_a_pair_that_matches_is_let_through(
    packages: Path, torch: str, torchvision: str, requires: str | None
) -> None:
    install(packages, "torch", torch)
    install(packages, "torchvision", torchvision, requires=requires)
    check_libraries()


@pytest.mark.parametrize(
    ("torch", "torchvision", "requires"),
    [
        ("2.10.0+cpu", "0.25.0+cu130", None),
        ("2.10.0+cu126", "0.25.0+cu130", "torch==2.10.0"),
        ("2.11.0", "0.25.0", "torch==2.10.0"),
        ("2.9.1", "0.25.0", "torch>=2.10.0"),
    ],
)
def test_a_pair_that_does_not_match_is_an_error_with_both_versions(
    packages: Path, torch: str, torchvision: str, requires: str | None
) -> None:
    install(packages, "torch", torch)
    install(packages, "torchvision", torchvision, requires=requires)
    with pytest.raises(Mc1optError) as caught:
        check_libraries()
    assert f"torch {torch} and torchvision {torchvision} " in str(caught.value)
    assert PIP in str(caught.value)


@pytest.mark.parametrize(
    "code",
    [
        "raise RuntimeError('operator torchvision::nms does not exist')",
        "raise OSError('undefined symbol: _ZN3c10')",
        "raise ImportError('cannot import name _C')",
    ],
    ids=["operator", "symbol", "import"],
)
def test_an_import_that_fails_says_why_and_what_to_do(
    packages: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    install(packages, "torch", "2.10.0")
    install(packages, "torchvision", "0.25.0", code=code)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(Mc1optError) as caught, importing_torchvision():
        import torchvision  # noqa: F401
    assert "torch 2.10.0 and torchvision 0.25.0 " in str(caught.value)
    assert code.split("'")[1] in str(caught.value)
    assert PIP in str(caught.value)


def test_a_torchvision_that_is_missing_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    check_libraries()
    with pytest.raises(Mc1optError) as caught, importing_torchvision():
        import torchvision  # noqa: F401
    assert "No module named 'torchvision'" in str(caught.value)


def test_other_errors_go_through() -> None:
    with pytest.raises(KeyError), importing_torchvision():
        raise KeyError


def test_the_command_refuses_before_anything_is_made(packages: Path) -> None:
    install(packages, "torch", "2.10.0")
    install(packages, "torchvision", "0.24.0", requires="torch==2.9.0")
    code = (
        f"import sys; sys.path.insert(0, {str(packages)!r}); sys.argv = ['mc1opt', 'run', '--study', 'mlp']\n"
        "from mc1opt.cli.main import main\n"
        "main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "torchvision 0.24.0" in ended.stderr
    assert not (packages / "storage").exists()
    assert not (packages / "cache").exists()
