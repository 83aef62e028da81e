"""The tree of errors: as drawn, with the exit codes that it says, and no error outside it."""

import ast
import inspect
import re
from pathlib import Path

from mc1opt import errors
from mc1opt.errors import Mc1optError
from mc1opt.spec import TrainingFailed

PACKAGE = Path(errors.__file__).parent

DRAWN = re.compile(r"^ {4}([│├└─ ]*)(\w+) +(.+)$", re.MULTILINE)
"""A line of the tree: what indents the name, the name, what is said of it."""


def drawn() -> list[tuple[int, str, str]]:
    """Depth, name and text of each line of the tree in the docstring."""
    return [(len(indent) // 4, name, text) for indent, name, text in DRAWN.findall(errors.__doc__)]


def drawn_parents() -> dict[str, str | None]:
    parents: dict[str, str | None] = {}
    trail: list[str] = []
    for depth, name, _ in drawn():
        del trail[depth:]
        parents[name] = trail[-1] if trail else None
        trail.append(name)
    return parents


def classes() -> dict[str, type[Mc1optError]]:
    return {
        name: member
        for name, member in inspect.getmembers(errors, inspect.isclass)
        if member.__module__ == errors.__name__
    }


def test_the_drawn_tree_is_the_true_tree():
    true = {
        name: base.__name__ if (base := member.__base__) is not Exception else None
        for name, member in classes().items()
    }
    assert drawn_parents() == true


def test_exit_codes_are_the_drawn_ones_and_those_below_inherit_them():
    parents = drawn_parents()
    said = {name: int(code[1]) for _, name, text in drawn() if (code := re.match(r"exit code (\d)", text))}
    assert said == {"Mc1optError": 1, "UsageError": 2}
    for name, member in classes().items():
        above: str | None = name
        while above not in said:
            above = parents[above]
        assert member.exit_code == said[above], name


def test_an_error_says_its_message_and_is_no_other_of_python():
    message = "unknown study 'x'. Allowed: mlp, cnn."
    for error in classes().values():
        assert str(error(message)) == message
        assert not issubclass(error, OSError | ValueError | ArithmeticError | LookupError | RuntimeError)


def test_no_other_module_adds_to_the_tree():
    """But the one error that is Optuna's as well, which `errors` must not import."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if path == Path(errors.__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                if bases & classes().keys():
                    found.add((path.name, node.name, frozenset(bases)))
    both = frozenset({"StorageError", "StorageInternalError"})
    assert found == {("retry.py", "DatabaseError", both)}


def test_a_training_that_failed_is_not_an_error_of_the_program():
    assert not issubclass(TrainingFailed, Mc1optError)
