"""What there is to search and to look at."""

from pathlib import Path

import pytest

from mc1opt.search.catalogue import catalogue, catalogue_lines
from mc1opt.search.definition import shipped_folder
from tests.support.studies import run_study, stored

OWN = '"""[red]Mine[/red] :smile:."""\ndef search_space(trial):\n    return None\n'


def write_study_file(name: str, text: str) -> None:
    path = Path("studies") / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_definitions_of_the_own_folder_come_before_the_shipped_ones() -> None:
    write_study_file("mlp", OWN)
    found = {entry.name: entry for entry in catalogue("s.db").definitions}
    assert Path(found["mlp"].path).resolve() == Path("studies/mlp.py").resolve()
    assert found["mlp"].description == "[red]Mine[/red] :smile:."
    assert found["cnn"].path == str(shipped_folder() / "cnn.py")
    assert [line for line in catalogue_lines(catalogue("s.db")) if "[red]Mine[/red] :smile:." in line]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def search_space(trial:\n", "line 1"),
        ("import nothing_of_that_name\n", "ModuleNotFoundError"),
        ("EPOCHS = 3\n", "search_space"),
    ],
)
def test_a_broken_study_file_is_listed_with_the_reason(text: str, reason: str) -> None:
    write_study_file("broken", text)
    found = catalogue("s.db")
    (entry,) = (entry for entry in found.definitions if entry.name == "broken")
    assert reason in entry.description
    assert {"cnn", "mlp"} <= {entry.name for entry in found.definitions}


def test_a_missing_database_holds_no_studies_and_is_not_made() -> None:
    found = catalogue("missing/s.db")
    assert found.studies == []
    assert catalogue_lines(found)[-1] == "No stored studies yet."
    assert not Path("missing").exists()


def test_stored_studies_are_listed_with_their_counts_and_best() -> None:
    run_study(3)
    run_study(1, study="[red] 'x' 🙂")  # its other starting point waits
    record = stored()
    one, other = catalogue("s.db").studies
    assert (one.name, one.definition, one.trials) == ("s", "small", len(record.trials))
    assert one.complete == sum(trial.outcome == "complete" for trial in record.trials)
    assert record.best is not None
    assert one.best == record.best.value
    lines = catalogue_lines(catalogue("s.db"))
    assert lines[-1].startswith("  [red] 'x' 🙂  2 trials, 1 complete, best ")
    assert (other.trials, other.complete) == (2, 1)
