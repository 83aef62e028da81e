"""Files belong to a study, not to its name: after renaming, after copying, beside files of others."""

from pathlib import Path

import optuna
import pytest
from sqlalchemy import text

from mc1opt.database import study_attributes
from mc1opt.database.location import checkpoints_folder, files_folder
from mc1opt.database.opening import load_study
from mc1opt.database.studies import claim_study, delete_study, open_for_deletion
from mc1opt.database.trial_files import kept_weights
from tests.support.command import files_below
from tests.support.pages import Pages
from tests.support.studies import ONE_EPOCH, new_storage, run_study, stored

WEIGHTS = checkpoints_folder("s.db")
URL = "sqlite:///s.db"


def folder(name: str = "s") -> Path:
    return WEIGHTS / stored(name=name).folder


def kept(name: str = "s") -> list[int]:
    """The trials of a study whose weights are where the study says."""
    return list(kept_weights(folder(name)))


def forget_folders() -> None:
    """Studies as they were stored before they had folders of their own."""
    with new_storage().engine.begin() as connection:
        connection.execute(
            text("DELETE FROM study_user_attributes WHERE key = :key"), {"key": study_attributes.STUDY_FOLDER}
        )


def copy(name: str = "copy", storage: str = URL) -> None:
    optuna.copy_study(from_study_name="s", from_storage=URL, to_storage=storage, to_study_name=name)


# ---- New studies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "given"),
    [("models", "s", "s-2"), ("exports", "s", "s-2"), ("checkpoints", "s", "s-2"), ("models", "t", "s")],
)
def test_a_new_study_takes_over_no_files_that_lie_there(kind: str, name: str, given: str) -> None:
    left = files_folder("s.db") / kind / name / "model.safetensors"
    left.parent.mkdir(parents=True)
    left.write_text("of a study that was deleted")
    run_study(1, fidelity=ONE_EPOCH)
    assert stored().folder == given
    assert left.read_text() == "of a study that was deleted"


def test_names_that_differ_only_in_case_have_folders_that_differ_in_more() -> None:
    for name in ("s", "S", "a/b", "A/B", "s-2"):
        run_study(1, study=name, fidelity=ONE_EPOCH)
    folders = [stored(name=name).folder for name in ("s", "S", "a/b", "A/B", "s-2")]
    assert len({found.casefold() for found in folders}) == len(folders)
    assert [folders[index] for index in (0, 1, 4)] == ["s", "S-2", "s-2-2"]


@pytest.mark.parametrize("stored_name", ["../s", "/tmp", "", "..", "a/b", 7, None])
def test_a_folder_elsewhere_is_not_believed(stored_name: object) -> None:
    assert study_attributes.study_folder_name("s", {study_attributes.STUDY_FOLDER: stored_name}) == "s"


# ---- Renaming --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["S", "../größer"])
def test_a_study_renamed_in_the_dashboard_keeps_its_files_and_goes_on(name: str) -> None:
    run_study(3, sampler="random", pruner="none", fidelity=ONE_EPOCH)
    before = files_below(WEIGHTS)
    Pages().rename("s", name)
    assert kept(name) == list(kept_weights(WEIGHTS / "s"))
    assert files_below(WEIGHTS) == before
    run_study(5, study=name, sampler="random", pruner="none", fidelity=ONE_EPOCH)
    assert [path.name for path in WEIGHTS.iterdir()] == ["s"]
    assert any(number >= 3 for number in kept(name))


def test_a_new_study_of_the_old_name_leaves_the_renamed_ones_files() -> None:
    run_study(3, sampler="random", pruner="none", fidelity=ONE_EPOCH)
    Pages().rename("s", "final")
    before = files_below(folder("final"))
    run_study(2, sampler="random", pruner="none", seed=9, fidelity=ONE_EPOCH)
    assert (folder("final"), folder("s")) == (WEIGHTS / "s", WEIGHTS / "s-2")
    assert files_below(folder("final")) == before
    delete_study(open_for_deletion("s.db", "s"))
    assert files_below(WEIGHTS) == {"s": None, **{f"s/{name}": content for name, content in before.items()}}


def test_a_study_of_before_keeps_the_folder_of_its_name_from_its_next_start() -> None:
    run_study(2, sampler="random", pruner="none", fidelity=ONE_EPOCH)
    forget_folders()
    assert kept()
    run_study(3, sampler="random", pruner="none", fidelity=ONE_EPOCH)
    Pages().rename("s", "final")
    assert folder("final") == WEIGHTS / "s"
    assert len(list(WEIGHTS.iterdir())) == 1


# ---- Copying ---------------------------------------------------------------------------------------------


def test_a_copy_reads_the_originals_weights_and_has_files_of_its_own_when_it_goes_on() -> None:
    changes = {"sampler": "random", "pruner": "none", "keep": 9, "fidelity": ONE_EPOCH}
    run_study(3, **changes)
    copy()
    assert kept("copy") == kept("s") != []
    run_study(5, **changes)
    before = files_below(WEIGHTS / "s")
    record = run_study(6, study="copy", **changes).record
    assert files_below(WEIGHTS / "s") == before
    assert folder("copy") == WEIGHTS / "copy"
    complete = [trial.number for trial in record.trials if trial.state == "COMPLETE"]
    assert kept("copy") == complete
    first = kept("copy")[0]
    assert kept_weights(folder("copy"))[first].read_bytes() == kept_weights(folder())[first].read_bytes()


def test_a_copy_gets_what_its_own_trials_have_and_records_but_no_model() -> None:
    run_study(3, sampler="random", pruner="none", keep=9, fidelity=ONE_EPOCH)
    copy()
    run_study(5, sampler="random", pruner="none", keep=9, fidelity=ONE_EPOCH)
    models = files_folder("s.db") / "models"
    (models / "s").mkdir(parents=True)
    for name in ("trainings.jsonl", "test_openings.jsonl", "model.safetensors", "metrics.json"):
        (models / "s" / name).write_text("{}\n")
    claim_study("s.db", "copy")
    assert max(kept("copy")) < len(stored(name="copy").trials) <= max(kept("s"))
    assert sorted(path.name for path in (models / "copy").iterdir()) == [
        "test_openings.jsonl",
        "trainings.jsonl",
    ]
    with (models / "copy/trainings.jsonl").open("a") as file:
        file.write("{}\n")
    assert (models / "s/trainings.jsonl").read_text() == "{}\n"


def test_a_copy_claims_once_and_the_original_stays_where_it_is() -> None:
    run_study(2, sampler="random", pruner="none", fidelity=ONE_EPOCH)
    copy()
    for name in ("s", "copy", "copy", "s"):
        claim_study("s.db", name)
    assert (folder("s"), folder("copy")) == (WEIGHTS / "s", WEIGHTS / "copy")


def test_a_study_of_another_program_is_claimed_by_nobody() -> None:
    optuna.create_study(study_name="theirs", storage=new_storage())
    claim_study("s.db", "theirs")
    assert load_study(new_storage(), "theirs").user_attrs == {}


@pytest.mark.parametrize("names", [("s", "copy"), ("copy", "s")])
def test_of_two_that_share_files_the_last_to_be_deleted_takes_them(names: tuple[str, str]) -> None:
    run_study(2, sampler="random", pruner="none", fidelity=ONE_EPOCH)
    copy()
    before = files_below(WEIGHTS)
    assert delete_study(open_for_deletion("s.db", names[0])) == [names[1]]
    assert files_below(WEIGHTS) == before
    assert delete_study(open_for_deletion("s.db", names[1])) == []
    assert files_below(WEIGHTS) == {}


def test_once_the_original_is_deleted_the_copy_goes_on_with_its_files() -> None:
    run_study(2, sampler="random", pruner="none", fidelity=ONE_EPOCH)
    copy()
    delete_study(open_for_deletion("s.db", "s"))
    run_study(4, study="copy", sampler="random", pruner="none", fidelity=ONE_EPOCH)
    assert [path.name for path in WEIGHTS.iterdir()] == ["s"]


def test_a_file_system_without_links_gets_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    run_study(2, sampler="random", pruner="none", fidelity=ONE_EPOCH)
    copy()
    monkeypatch.setattr("os.link", refuse)
    claim_study("s.db", "copy")
    assert kept("copy") == kept("s") != []


def test_a_copy_in_another_database_starts_in_the_folder_beside_that() -> None:
    run_study(2, sampler="random", pruner="none", fidelity=ONE_EPOCH)
    copy("s", "sqlite:///other.db")
    before = files_below(WEIGHTS)
    run_study(4, path="other.db", sampler="random", pruner="none", fidelity=ONE_EPOCH)
    assert files_below(WEIGHTS) == before
    assert (checkpoints_folder("other.db") / "s").is_dir()
