"""Study files as Python modules: loading, hashing, saying where their code went wrong. No Optuna here.

What they may contain is said in `mc1opt.search.definition`.
"""

import ast
import contextlib
import functools
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from mc1opt.errors import StudyFileError


class StudyFile:
    """A study file, loaded.

    Args:
        path: the file.

    Raises:
        StudyFileError: it cannot be loaded; the message names the line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.neighbours = Neighbours(path)
        with self.neighbours.importable():
            self.module = _load_module(path)

    @functools.cache  # noqa: B019  (a study file lives as long as its study)
    def code_hash(self, function: str) -> str:
        """See the function `code_hash`; of the file as it was when this was first asked."""
        return code_hash(self.path, function)


class Neighbours(MetaPathFinder):
    """The modules in a study file's folder: importable while its code runs, from any current folder.

    They are searched last, so a neighbour called torch.py hides no installed package. Each study file has
    its own: neighbours of two files may share a name.
    """

    def __init__(self, study: Path) -> None:
        self._folder = str(study.resolve().parent)
        self._names = {_module_name(study)}
        self._modules: dict[str, ModuleType] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Python's hook for a module that no other finder has found."""
        if path is not None:  # a submodule: its package finds it
            return None
        spec = PathFinder.find_spec(fullname, [self._folder], target)
        if spec is not None:
            self._names.add(fullname)
        return spec

    @contextlib.contextmanager
    def importable(self) -> Iterator[None]:
        """Makes the neighbours importable inside the block, and restores those imported before."""
        sys.modules.update(self._modules)
        sys.meta_path.append(self)
        # Cached bytecode is matched by seconds and size alone, and would litter people's folders.
        written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        try:
            yield
        finally:
            sys.dont_write_bytecode = written
            sys.meta_path.remove(self)
            there = self._names & sys.modules.keys()  # mostly none: then the thousands are not looked through
            own = [name for name in list(sys.modules) if name.partition(".")[0] in there] if there else []
            # Another thread's search may have taken one: two of them may be of files of one name.
            popped = {name: sys.modules.pop(name, None) for name in own}
            self._modules = {name: module for name, module in popped.items() if module is not None}


# ---- The code of a network -------------------------------------------------------------------------------


def code_hash(path: Path, function: str) -> str:
    """A hash of the code that a function of a study file reaches: 16 hexadecimal digits of a SHA-256.

    That is the function itself, whatever else at the top level of the file it names, directly or not, and all
    of the modules beside the file that these import. So the search space and the settings may change, and the
    function stays the same. Names that are looked up as text (`globals()["Net"]`) are not seen.

    Raises:
        StudyFileError: a file cannot be read, or is not Python.
    """
    digest = hashlib.sha256()
    folder = path.resolve().parent
    text, tree = _parsed(path)
    lines = text.splitlines(keepends=True)
    reached = _reached(tree.body, function)
    for node in reached:
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
        digest.update("".join(lines[first - 1 : node.end_lineno]).rstrip().encode() + b"\n")
    todo, seen = _beside(reached, folder), set[Path]()
    while todo:
        file = min(todo)
        seen.add(file)
        text, tree = _parsed(file)
        digest.update(f"{file.relative_to(folder)}\n{text}\n".encode())
        todo = (todo | _beside(tree.body, folder)) - seen
    return digest.hexdigest()[:16]


def _parsed(path: Path) -> tuple[str, ast.Module]:
    try:
        text = path.read_text(encoding="utf-8")
        return text, ast.parse(text)
    except (OSError, SyntaxError, ValueError) as error:
        raise StudyFileError(f"{path} cannot be read as a Python file: {error}") from error


def _reached(body: list[ast.stmt], function: str) -> list[ast.stmt]:
    """The statements that define the function or what it names, directly or not, and those without a name."""
    names, reached = {function}, set[int]()
    while True:
        more = {
            number
            for number, node in enumerate(body)
            if number not in reached and ((defined := _defined(node)) is None or defined & names)
        }
        if not more:
            return [body[number] for number in sorted(reached)]
        reached |= more
        for number in more:
            names |= {node.id for node in ast.walk(body[number]) if isinstance(node, ast.Name)}


def _defined(node: ast.stmt) -> set[str] | None:
    """The names that a statement does nothing but define; None if it does something else."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        return None if "*" in names else names
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # a docstring
        return set()
    if not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return None
    names = set()
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        for part in target.elts if isinstance(target, ast.Tuple) else [target]:
            if not isinstance(part, ast.Name):  # such as an attribute
                return None
            names.add(part.id)
    return names


def _beside(body: list[ast.stmt], folder: Path) -> set[Path]:
    """The files of modules in a folder that statements import, also within functions; of packages all."""
    found = set[Path]()
    for node in (inner for each in body for inner in ast.walk(each)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in {name.partition(".")[0] for name in names}:
            if (folder / f"{name}.py").is_file():
                found.add(folder / f"{name}.py")
            found |= {file for file in (folder / name).rglob("*.py") if file.is_file()}
    return found


# ---- Loading ---------------------------------------------------------------------------------------------


def _module_name(path: Path) -> str:
    return f"mc1opt_study_{path.stem.replace('.', '_')}"


def _load_module(path: Path) -> Any:
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise StudyFileError(f"{path} cannot be loaded as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses in the file look their module up
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the command's standard output may be JSON
            spec.loader.exec_module(module)
    except SyntaxError as error:
        where = error.filename if error.filename not in (None, str(path.resolve())) else path
        raise StudyFileError(
            f"{where}, line {error.lineno}: {error.msg}: {(error.text or '').strip()}"
        ) from error
    except (Exception, SystemExit) as error:  # an ordinary script may call sys.exit
        raise StudyFileError(f"{path} raised {what(error, path)} when it was loaded") from error
    return module


def what(error: BaseException, path: Path) -> str:
    """An exception in one line, with the line of the user's code that raised it."""
    return f"{type(error).__name__}: {error}{where_in(error, path)}"


def where_in(error: BaseException, path: Path) -> str:
    """The last line in an exception's traceback that is in the study file or one of its neighbours."""
    study = path.resolve()
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        module = study.parent.joinpath(*str(frame.f_globals.get("__name__")).split("."))
        if file == study:
            found = f" (line {line})"
        elif module.relative_to(study.parent).parts[0] != "mc1opt" and file in (
            module.with_suffix(".py"),
            module / "__init__.py",
        ):
            found = f" ({file.relative_to(study.parent)}, line {line})"
    return found
