"""The packages and the arrows between them, held by reading every import; and what else the tree promises."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mc1opt"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")

GROUND = "the ground"
"""The modules directly below mc1opt, which all packages may import."""
ARROWS = {
    GROUND: "",
    "models": "",
    "machine": "models",
    "data": "",
    "database": "",
    "training": "data models machine",
    "workers": "machine models",
    "search": "database workers data models machine",
    "measurement": "workers training data machine models",
    "inference": "training models data machine database",
    "display": "search database models",
    "retraining": "LIBRARY",
    "explanation": "LIBRARY",
    "published": "LIBRARY",
    "export": "LIBRARY",
    "dashboard": "LIBRARY",
    "mirror": "LIBRARY",
    "doctor": "LIBRARY",
    "report": "LIBRARY retraining explanation",
    "cli": "LIBRARY retraining published explanation export dashboard mirror doctor report",
}
"""What each package imports beside itself and the ground. The features never import each other, but for the
report, which tells what they have found."""
LIBRARY = "models machine data database training workers search measurement inference display"

TORCH = {"data", "models", "training"}
"""Packages that import torch when they are imported."""
TORCH_LAZILY = {
    "dashboard",
    "display",
    "doctor",
    "export",
    "inference",
    "machine",
    "measurement",
    "published",
    "retraining",
}
TORCH_FILES = {"workers/process.py", "export/script_layers.py", "export/script_template.py"}
"""Files elsewhere that import it; nothing imports them but a worker's own process and tests."""
TORCH_FREE_FILES = {
    "models/cost.py",
    "models/layers.py",
    "dataset.py",
    "spec.py",
    "workers/pool.py",
    "workers/protocol.py",
}
OPTUNA = {"database", "search", "dashboard"}
OPTUNA_TYPES = {"suggest.py"}
"""Files that name its types, and no more."""
PRIVATE = re.compile(
    r"optuna(\.\w+)*\._|(?<!self)\._storage\b|\._(trial_id|study_id|cached_frozen_trial|contains)\b"
)
"""Optuna's private members."""
DRAWING = {"matplotlib", "plotly", "optuna_dashboard", "bottle"}
"""Imported where something is drawn or served, so that a search does not wait for them."""
ONE_FILE = {"wandb": "mirror/writer.py", "ray": "workers/ray_pool.py"}
LONGEST_FUNCTION = 60
"""Lines below the docstring; commands, whose options are lines of their own, are left out."""
LONGEST_FILE = 400


def package(name: str) -> str:
    """The package of a dotted module name below mc1opt."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else GROUND


def allowed(own: str) -> set[str]:
    """The packages that a package may import."""
    return {own, GROUND, *ARROWS[own].replace("LIBRARY", LIBRARY).split()}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """All modules that a file imports, dotted."""
    tree = parsed(path)
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


def test_a_package_imports_only_what_its_arrows_allow() -> None:
    for path in MODULES:
        own = package("mc1opt." + name_of(path).removesuffix(".py").replace("/", "."))
        for module in imports(path):
            if module.startswith("mc1opt."):
                assert package(module) in allowed(own), f"{name_of(path)} imports {module}"


def test_every_package_has_its_arrows() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders | {GROUND} == ARROWS.keys()


def test_heavy_packages_stay_where_they_belong() -> None:
    for path in MODULES:
        name = name_of(path)
        roots = {module.split(".")[0] for module in imports(path)}
        top = {module.split(".")[0] for module in imports(path, top_level_only=True)}
        own = name.split("/")[0]
        if roots & {"torch", "torchvision"}:
            assert own in TORCH | TORCH_LAZILY or name in TORCH_FILES, name
            assert name not in TORCH_FREE_FILES, name
        if top & {"torch", "torchvision"}:
            assert own in TORCH or name in TORCH_FILES, name
        if "optuna" in roots and name not in OPTUNA_TYPES:
            assert own in OPTUNA, name
        if roots & DRAWING:
            assert own in ("dashboard", "display"), name
            assert not top & DRAWING, name
        for heavy, file in ONE_FILE.items():
            if heavy in roots:
                assert name == file, name


def test_only_three_packages_import_torch_when_they_are_imported() -> None:
    """It takes seconds, which the process that searches does not wait for."""
    names = [name_of(path) for path in MODULES if name_of(path) not in TORCH_FILES]
    modules = ["mc1opt." + name[:-3].replace("/", ".") for name in names]
    others = [module for module in modules if package(module) not in TORCH]
    load = f"for name in {others}: importlib.import_module(name)"
    code = f"import importlib, sys\n{load}\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_optunas_private_members_are_named_in_the_database_alone() -> None:
    outside = [
        f"{name_of(path)}: {line.strip()}"
        for path in MODULES
        if not name_of(path).startswith("database/")
        for line in path.read_text().splitlines()
        if PRIVATE.search(line)
    ]
    assert not outside


def test_files_and_functions_are_read_at_one_go() -> None:
    for path in MODULES:
        assert len(path.read_text().splitlines()) <= LONGEST_FILE, name_of(path)
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef) and not name_of(path).startswith("cli/"):
                begin = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno - 1
                length = (node.end_lineno or 0) - (begin or 0)
                assert length <= LONGEST_FUNCTION, f"{name_of(path)}: {node.name} has {length} lines"


def test_studies_import_only_what_a_study_needs() -> None:
    for path in (ROOT / "studies").glob("*.py"):
        for module in imports(path):
            if module.startswith("mc1opt."):
                assert module.split(".")[1] in ("suggest", "config", "dataset", "presets"), module


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


def test_each_module_has_its_tests_or_is_tested_beside() -> None:
    """A test file a module, in the same place below tests/."""
    tests = [ROOT / "tests" / Path(name_of(path)).with_name(f"test_{path.name}") for path in MODULES]
    assert [str(test.relative_to(ROOT)) for test in tests if not test.is_file()] == []


def listed(docstring: str | None) -> set[str]:
    """The names that a package's docstring lists: those of its files."""
    return set(re.findall(r"^ *(\w+)  +\S", docstring or "", re.MULTILINE))


def test_the_docstring_of_a_package_has_a_line_for_each_of_its_files() -> None:
    for init in (*PACKAGE.rglob("__init__.py"), ROOT / "studies/__init__.py"):
        files = {path.stem for path in init.parent.glob("*.py")} - {"__init__"}
        assert listed(ast.get_docstring(parsed(init), clean=False)) == files, init


def test_the_map_in_the_readme_has_a_line_for_each_folder() -> None:
    named = re.findall(r"^\| `([\w/]+/)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    there = {f"mc1opt/{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    assert set(named) == there | {"studies/", "benchmarks/", "tests/"}
    assert len(named) == len(set(named))


def test_the_readme_of_the_benchmarks_has_a_line_for_each_file() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    named = re.findall(r"^\| `(\w+\.py)` \| .{10,} \|$", text, re.MULTILINE)
    assert sorted(named) == sorted(path.name for path in (ROOT / "benchmarks").glob("*.py"))


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
