"""Loading study files. What is said of faults in them is tested beside the study definitions."""

import sys
from pathlib import Path

import pytest

from mc1opt.study_file import StudyFile, where_in


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
