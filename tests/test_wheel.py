"""The wheel: what is installed from it works without the checkout."""

import importlib.util
import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.support.image_sets import write_binary_folder

ROOT = Path(__file__).parents[1]
COPIED = ["mc1opt", "studies", "pyproject.toml", "README.md", "LICENSE"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run(*command: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout gets no build folder."""
    if importlib.util.find_spec("build") is None:
        pytest.skip("needs the package build: pip install build")
    source = tmp_path_factory.mktemp("source")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    built = run(sys.executable, "-m", "build", "--wheel", "--outdir", source / "dist", source)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = (source / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a new environment with the wheel, and everything else from this environment."""
    environment = tmp_path_factory.mktemp("environment")
    made = run(sys.executable, "-m", "venv", "--without-pip", environment)
    assert made.returncode == 0, made.stderr
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = environment / "lib" / version / "site-packages"
    # A plain path, not `site.addsitedir`: .pth files of an editable install would lead to the checkout.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = environment / "bin/python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index")
    done = run(*pip, "--force-reinstall", "--prefix", environment, wheel)
    assert done.returncode == 0, done.stdout + done.stderr
    return environment / "bin/mc1opt"


def test_the_wheel_holds_the_study_definitions_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"mc1opt/studies/cnn.py", "mc1opt/studies/mlp.py", "mc1opt/py.typed"} <= set(names)
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"mc1opt"}


def test_every_module_of_the_checkout_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "mc1opt").rglob("*.py")} <= names


def test_the_installed_command_lists_the_shipped_studies(installed: Path, tmp_path: Path) -> None:
    listed = run(installed, "studies", "--json", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    definitions = json.loads(listed.stdout)["definitions"]
    assert [entry["name"] for entry in definitions] == [
        "cnn",
        "cnn_large",
        "mlp",
        "published",
        "published_grid",
    ]
    for entry in definitions:
        assert Path(entry["path"]).is_relative_to(installed.parents[1])
        assert not Path(entry["path"]).is_relative_to(ROOT)


def test_the_installed_command_searches(installed: Path, tmp_path: Path) -> None:
    write_binary_folder(tmp_path / "images")
    arguments = "--study mlp --trials 2 --epochs 1 --train-images 100 --workers 1 --confirm 0 --data images"
    ended = run(installed, "run", *arguments.split(), "--json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["best"]["value"] is not None
    assert (tmp_path / "storage/reports/mlp.html").exists()
