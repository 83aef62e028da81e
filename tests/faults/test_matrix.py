"""The table of the fault matrix is whole, and the tests that it names are there."""

import ast
import re
from pathlib import Path

README = Path(__file__).with_name("README.md").read_text()
ROOT = Path(__file__).parents[2]


def rows() -> list[list[str]]:
    lines = README.partition("## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in cells if len(row) == 4][2:]


def test_every_fault_has_a_row_with_a_promise_and_a_test() -> None:
    assert [int(number) for number, *_ in rows() if number] == list(range(1, 24))
    assert all(fault and promise and "::test_" in test for _, fault, promise, test in rows())


def test_the_named_tests_are_there_and_all_of_this_folder_are_named() -> None:
    named = set(re.findall(r"`([\w/]+\.py)::(test_\w+)`", README))
    here = {
        (path.name, test)
        for path in Path(__file__).parent.glob("test_*.py")
        for test in names_of_tests(path)
        if path.name != Path(__file__).name
    }
    for file, test in named:
        path = ROOT / file if file.startswith("tests/") else Path(__file__).with_name(file)
        assert test in names_of_tests(path), f"{file}::{test}"
    helpers = {("test_clocks.py", "test_the_wall_clock_of_the_test_really_jumps")}
    assert here - {pair for pair in named if "/" not in pair[0]} == helpers


def names_of_tests(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
