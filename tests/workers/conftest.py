from pathlib import Path

import pytest

from tests.curves import SWITCHES_VARIABLE, Switches


@pytest.fixture
def switches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Switches:
    """Rules for the learning curves, in force for this test and the processes that it starts."""
    folder = tmp_path / "switches"
    folder.mkdir()
    monkeypatch.setenv(SWITCHES_VARIABLE, str(folder))
    return Switches(folder)
