"""`mc1opt studies`: definitions, stored studies, and deleting one."""

import json
import os
import re
from pathlib import Path

import optuna
import pytest

from mc1opt.database.opening import open_storage
from mc1opt.database.ownership import this_owner
from tests.support.command import files_below, output_of


def names(result, of: str) -> list[str]:
    return [entry["name"] for entry in json.loads(result.stdout)[of]]


def test_listing_makes_no_database(tmp_path: Path, mc1opt_here) -> None:
    mc1opt_here("studies")
    mc1opt_here("studies", "--storage", "new/study.db")
    assert files_below(tmp_path) == {}


def test_own_definitions_and_stored_studies_are_listed(finished: Path, mc1opt_here) -> None:
    text = mc1opt_here("studies")
    assert re.search(r"tiny +Networks that train in a moment\.  \(studies/tiny\.py\)", text.stdout)
    assert "3 complete" in text.stdout
    listed = mc1opt_here("studies", "--json")
    assert listed.stderr == ""
    assert set(names(listed, "definitions")) == {
        "cnn",
        "cnn_large",
        "mlp",
        "published",
        "published_grid",
        "tiny",
    }
    (study,) = json.loads(listed.stdout)["studies"]
    assert (study["name"], study["definition"], study["complete"]) == ("tiny", "tiny", 3)
    assert study["best"] == json.loads((finished / "stdout").read_text())["best"]["value"]


def test_a_definition_that_cannot_be_used_is_listed_with_the_reason(tiny: Path, mc1opt_here) -> None:
    (tiny / "studies/broken.py").write_text("def search_space(trial:\n")
    result = mc1opt_here("studies")
    assert result.returncode == 0
    assert re.search(r"broken +cannot be used: studies/broken\.py, line 1", result.stdout)
    assert "tiny" in result.stdout


def test_files_that_are_no_definitions_hide_none_of_the_others(tiny: Path, mc1opt_here) -> None:
    listed = names(mc1opt_here("studies", "--json"), "definitions")
    studies = tiny / "studies"
    (studies / "._tiny.py").write_bytes(b"\0\5\x16\7Mac OS X")
    (studies / "script.py").write_text("import sys\nprint('a script')\nsys.exit(3)\n")
    (studies / "bytes.py").write_bytes(b"\xff\xfe\0")
    (studies / "gone.py").symlink_to("nowhere.py")
    os.mkfifo(studies / "pipe.py")
    (studies / "folder.py").mkdir()
    result = mc1opt_here("studies", "--json")
    assert result.returncode == 0
    assert set(names(result, "definitions")) == {*listed, "script", "bytes", "gone", "pipe"}
    for entry in json.loads(result.stdout)["definitions"]:
        assert entry["description"].startswith("cannot be used") == (entry["name"] not in listed)


def test_deleting_removes_the_study_and_its_weights(finished: Path, mc1opt_here) -> None:
    assert list(finished.glob("storage/checkpoints/tiny/*.safetensors"))
    output_of(mc1opt_here("studies", "delete", "tiny", answer="y\n"))
    assert names(mc1opt_here("studies", "--json"), "studies") == []
    assert not list(finished.glob("storage/checkpoints/tiny*"))
    assert (finished / "studies/tiny.py").exists()


def test_what_was_retrained_stays_and_is_named(finished: Path, mc1opt_here) -> None:
    card = finished / "storage/models/tiny/model_card.md"
    card.parent.mkdir(parents=True)
    card.write_text("a model")
    result = mc1opt_here("studies", "delete", "tiny", "--yes")
    assert "storage/models/tiny" in result.stdout
    assert card.exists()


def store_study(path: str) -> optuna.Study:
    storage = open_storage(path, create=True, owner=this_owner())
    return optuna.create_study(storage=storage, study_name="s", direction="maximize")


def test_a_study_that_is_being_run_cannot_be_deleted(mc1opt_here) -> None:
    study = store_study("study.db")
    trial = study.ask()
    delete = ("studies", "delete", "s", "--yes", "--storage", "study.db")
    result = mc1opt_here(*delete)
    assert result.returncode == 1
    assert f" {this_owner()['pid']} " in result.stderr
    study.tell(trial, 0.5)
    assert mc1opt_here(*delete).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [("--storage", "a.db", "delete", "s"), ("delete", "s", "--storage", "a.db")],
    ids=["before", "behind"],
)
def test_a_study_is_deleted_from_the_database_that_is_named(mc1opt_here, arguments: tuple[str, ...]) -> None:
    for path in ("a.db", "storage/mc1opt.db"):
        store_study(path)
    assert mc1opt_here("studies", *arguments, "--yes").returncode == 0
    assert names(mc1opt_here("studies", "--json", "--storage", "a.db"), "studies") == []
    assert names(mc1opt_here("studies", "--json"), "studies") == ["s"]
