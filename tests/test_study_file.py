"""Loading study files. What is said of faults in them is tested beside the study definitions."""

import sys
from pathlib import Path

import pytest

from mc1opt.errors import StudyFileError
from mc1opt.study_file import StudyFile, code_hash, where_in


def test_files_of_the_same_name_have_neighbours_of_their_own():
    for folder in ("one", "two"):
        Path(folder).mkdir()
        Path(folder, "_near.py").write_text(f"NAME = {folder!r}\n")
        Path(folder, "s.py").write_text(
            "import _near\n\ndef name():\n    import _near\n    return _near.NAME\n"
        )
    files = [StudyFile(Path(folder, "s.py")) for folder in ("one", "two")]
    for file, folder in zip(files, ("one", "two"), strict=True):
        with file.neighbours.importable():
            assert file.module.name() == file.module._near.NAME == folder
    assert "_near" not in sys.modules


def test_the_line_of_an_error_is_that_of_the_study_file():
    path = Path("s.py")
    path.write_text("def fails():\n    return int('x')\n")
    with pytest.raises(ValueError, match="invalid literal") as raised:
        StudyFile(path).module.fails()
    assert where_in(raised.value, path) == " (line 2)"


# ---- The code of a network -------------------------------------------------------------------------------

NETWORK = '''"""A network."""
import math
import _near
from _search import suggest

SIZES = [1, 2]
EPOCHS = 3

class Layer:
    size = SIZES[0]

@staticmethod
def build(data):
    from _lazily import far
    return Layer(), math.pi, _near.NAME, far

def search_space(trial):
    return suggest(trial, EPOCHS)
'''


def written(replaced: str = "", by: str = "", *, near: str = "NAME = 1\n", far: str = "far = 1\n") -> str:
    """The hash of `build` of a study file with a change."""
    for name, text in {"_near": near, "_lazily": far, "_search": "suggest = 1\n"}.items():
        Path(f"{name}.py").write_text(text)
    assert replaced in NETWORK
    Path("s.py").write_text(NETWORK.replace(replaced, by))
    return code_hash(Path("s.py"), "build")


@pytest.mark.parametrize(
    ("replaced", "by"),
    [
        ("EPOCHS = 3", "EPOCHS = 4"),
        ("suggest(trial, EPOCHS)", "None"),
        ('"""A network."""', '"""Another text."""\n\n# a comment\n'),
        ("from _search import suggest", "suggest = print"),
        ("def search_space", "class New: ...\n\ndef search_space"),
    ],
)
def test_what_a_network_does_not_reach_leaves_its_hash_as_it_is(replaced, by):
    assert written(replaced, by) == written()


@pytest.mark.parametrize(
    ("replaced", "by"),
    [
        ("math.pi", "math.e"),
        ("SIZES[0]", "SIZES[1]"),
        ("SIZES = [1, 2]", "SIZES = [3, 2]"),
        ("EPOCHS = 3", "SIZES.append(3)"),
        ("EPOCHS = 3", "SIZES[0] = 3"),
        ("EPOCHS = 3", "SIZES += [3]"),
        ("@staticmethod", "@property"),
        ("import math", "import cmath as math"),
        ("EPOCHS = 3", "from _near import *"),
    ],
)
def test_what_a_network_reaches_changes_its_hash(replaced, by):
    assert written(replaced, by) != written()


def test_modules_beside_the_file_are_part_of_the_hash_with_what_they_import():
    hashes = {
        written(),
        written(near="NAME = 2\n"),
        written(far="far = 2\n"),
        written(near="NAME = 1\nimport _deep\n"),
    }
    Path("_deep").mkdir()
    Path("_deep/__init__.py").write_text("")
    hashes.add(written(near="NAME = 1\nimport _deep\n"))
    Path("_deep/inner.py").write_text("import _near\n")
    hashes.add(written(near="NAME = 1\nimport _deep\n"))
    assert len(hashes) == 6


def test_the_hash_is_the_same_in_another_folder():
    one = written()
    Path("elsewhere").mkdir()
    for name in ("s", "_near", "_lazily", "_search"):
        Path(f"{name}.py").rename(f"elsewhere/{name}.py")
    assert code_hash(Path("elsewhere/s.py"), "build") == one


def test_a_file_that_is_not_python_has_no_hash():
    with pytest.raises(StudyFileError, match="_near"):
        written(near="def\n")
