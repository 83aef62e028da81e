"""The layers of the design, held by reading every import; and what else the tree promises."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mc1opt"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")

# From the bottom; a layer imports only from those before it. models and data don't know each other.
LAYERS = [
    "errors",
    "paths",
    "json_lines",
    "program",
    "seeds",
    "config",
    "spec",
    "presets",
    "models",
    "data",
    "training",
    "workers",
    "search",
    "results",
    "cli",
]
APART = {("models", "data"), ("data", "models")}

TORCH_LAYERS = {"data", "models", "training"}
TORCH_FILES = {"workers/process.py"}
TORCH_FREE_FILES = {
    "models/cost.py",
    "spec.py",
    "workers/pool.py",
    "workers/protocol.py",
}
OPTUNA_LAYERS = {"search", "results"}
DRAWING = {"matplotlib", "plotly", "optuna_dashboard", "bottle"}
"""Imported where something is drawn or served, so that a search does not wait for them."""
ONE_FILE = {"wandb": "mirror/writer.py", "ray": "workers/ray_pool.py"}


def layer(name: str) -> str:
    """The layer of a dotted module name below mc1opt."""
    return name.split(".")[1]


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """All modules that a file imports, dotted."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_layer_imports_only_layers_below(path: Path) -> None:
    own = layer("mc1opt." + name_of(path).removesuffix(".py").replace("/", "."))
    for module in imports(path):
        if not module.startswith("mc1opt.") or layer(module) in ("__version__", "studies"):
            continue
        other = layer(module)
        assert LAYERS.index(other) <= LAYERS.index(own), f"{name_of(path)} imports {module}"
        assert (own, other) not in APART, f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_packages_stay_where_they_belong(path: Path) -> None:
    name = name_of(path)
    roots = {module.split(".")[0] for module in imports(path)}
    top = {module.split(".")[0] for module in imports(path, top_level_only=True)}
    own = name.split("/")[0]
    if "torch" in roots or "torchvision" in roots:
        assert own in TORCH_LAYERS or name in TORCH_FILES or own == "results", name
        assert name not in TORCH_FREE_FILES, name
        if own == "results":
            assert not top & {"torch", "torchvision"}, name
    if "optuna" in roots:
        assert own in OPTUNA_LAYERS, name
    if roots & DRAWING:
        assert own == "results", name
        assert not top & DRAWING, name
    for package, file in ONE_FILE.items():
        if package in roots:
            assert name == file, name


def test_studies_import_only_what_a_study_needs() -> None:
    for path in (ROOT / "studies").glob("*.py"):
        for module in imports(path):
            if module.startswith("mc1opt."):
                assert module.startswith(
                    ("mc1opt.search.definition.", "mc1opt.config.", "mc1opt.presets.")
                ), module


def test_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        name = "mc1opt." + name_of(path).removesuffix(".py").replace("/", ".")
        graph[name] = {
            ".".join(module.split(".")[:depth])
            for module in imports(path, top_level_only=True)
            for depth in range(2, 4)
        }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name in done or name not in graph:
            return
        for other in graph[name]:
            visit(other, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_help_imports_none_of_the_heavy_packages() -> None:
    code = (
        "import sys; sys.argv = ['mc1opt', '--help']\n"
        "from mc1opt.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('HEAVY', sorted({'torch', 'torchvision', 'optuna', 'wandb', 'ray'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "run" in result.stdout
    assert "HEAVY []" in result.stdout


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_each_module_has_its_tests_or_is_tested_beside(path: Path) -> None:
    """A test file a module, in the same place below tests/."""
    expected = ROOT / "tests" / Path(name_of(path)).with_name(f"test_{path.name}")
    assert expected.is_file(), f"{name_of(path)} has no {expected.relative_to(ROOT)}"


def test_the_map_in_the_readme_has_a_true_line_for_each_file() -> None:
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"^\| `([\w/]+\.py)` \|", readme, re.MULTILINE))
    there = {f"mc1opt/{name_of(path)}" for path in MODULES}
    there |= {str(path.relative_to(ROOT)) for path in (ROOT / "studies").glob("[!_]*.py")}
    there |= {str(path.relative_to(ROOT)) for path in (ROOT / "benchmarks").glob("*.py")}
    assert named == there
    for line in re.findall(r"^\| `[\w/]+\.py` \|(.*)\|$", readme, re.MULTILINE):
        assert len(line.strip()) > 10, line


def test_the_readme_says_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    for command in (
        "python3 -m venv .venv && .venv/bin/pip install -e . "
        "&& .venv/bin/mc1opt run --study cnn --trials 100",
        "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest",
    ):
        assert command in readme


def test_documents_keep_to_the_words() -> None:
    """One word per thing: study, not experiment; published models, layers, packages."""
    for path in [ROOT / "README.md", *MODULES]:
        words = set(re.findall(r"\b(experiments?|decks?|floors?|house)\b", path.read_text().lower()))
        assert not words, f"{path}: {words}"
