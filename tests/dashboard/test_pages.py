"""What the dashboard shows of a study: complete, made once, kept up to date, at no cost to the search."""

import json
import logging
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy.event
from optuna_dashboard import get_note, save_note
from sqlalchemy.engine import Engine

from mc1opt.dashboard import files
from mc1opt.dashboard import pages as dashboard
from mc1opt.dashboard.notes import END
from mc1opt.dashboard.pages import (
    LEAST_SECONDS,
    DashboardWriter,
    update_dashboard,
    update_or_warn,
)
from mc1opt.database.artifacts import artifacts_folder
from mc1opt.database.opening import load_study
from mc1opt.database.records import StudyRecord, TrialRecord
from mc1opt.database.studies import delete_study, open_for_deletion
from mc1opt.display.figures import FIGURES
from mc1opt.errors import StorageError
from tests.support.display import Clock, ended, started, study, trial
from tests.support.once import made_once
from tests.support.pages import Pages
from tests.support.retraining import MODELS, STORAGE, STUDY, retrain_curves, retrainable_folder
from tests.support.studies import facts, new_storage, run_study, stored

__all__ = ["retrainable_folder"]

PNG = b"\x89PNG\r\n"
FILES = {"learning_curve.png", "history.csv", "config.json"}


def opened(storage: str = "s.db", name: str = "s") -> optuna.Study:
    return load_study(new_storage(storage), name)


def with_files(detail: dict[str, Any]) -> set[int]:
    """The numbers of the trials that have files."""
    return {entry["number"] for entry in detail["trials"] if entry["artifacts"]}


def with_notes(detail: dict[str, Any]) -> set[int]:
    return {entry["number"] for entry in detail["trials"] if entry["note"]["body"]}


def ranking(record: StudyRecord) -> list[int]:
    complete = [entry for entry in record.trials if entry.value is not None]
    return [entry.number for entry in sorted(complete, key=lambda entry: (-(entry.value or 0), entry.number))]


@pytest.fixture(scope="module")
def updated_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of seven complete trials that is up to date: not to be changed."""

    def fill(_folder: Path) -> None:
        run_study(7, sampler="random", pruner="none")
        update_dashboard("s.db", "s")

    return made_once(tmp_path_factory, "updated", fill)


@pytest.fixture
def updated(updated_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyRecord:
    """The study in the test's own folder, and its record; further pictures are not drawn."""
    shutil.copytree(updated_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(files, "learning_curve_picture", lambda *_: PNG)
    return stored()


# ---- Bringing up to date ---------------------------------------------------------------------------------


def test_the_page_of_a_study_has_all_figures_its_note_and_the_files_of_the_best(
    updated: StudyRecord,
) -> None:
    pages = Pages()
    detail = pages.study()
    assert detail["objective_names"] == ["validation accuracy"]
    assert {figure["id"] for figure in detail["plotly_graph_objects"]} == set(FIGURES)
    for figure in detail["plotly_graph_objects"]:
        assert json.loads(figure["graph_object"])["data"]
    assert detail["note"]["body"].startswith("# `s`\n")
    best = set(ranking(updated)[:5])
    assert with_files(detail) == with_notes(detail) == best
    for number in best:
        files = pages.artifacts(detail["trials"][number])
        assert set(files) == FILES
        assert files["learning_curve.png"].startswith(PNG)


def test_an_update_of_what_is_up_to_date_writes_nothing(updated: StudyRecord) -> None:
    statements: list[str] = []

    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement.split(maxsplit=1)[0].upper())

    files = {path: path.stat() for path in artifacts_folder("s.db").iterdir()}
    sqlalchemy.event.listen(Engine, "before_cursor_execute", executed)
    try:
        update_dashboard("s.db", "s")
    finally:
        sqlalchemy.event.remove(Engine, "before_cursor_execute", executed)
    assert "SELECT" in statements
    assert not {"UPDATE", "INSERT", "DELETE"} & set(statements)
    assert {path: path.stat() for path in artifacts_folder("s.db").iterdir()} == files


def add_better_trials(name: str) -> None:
    """Five that are better than all others of a study."""
    study = opened(name=name)
    attributes = study.trials[0].user_attrs
    for value in (0.991, 0.992, 0.993, 0.994, 0.995):
        trial = optuna.create_trial(value=value, intermediate_values={0: value}, user_attrs=attributes)
        study.add_trial(trial)


def test_trials_that_leave_the_best_lose_note_and_files_but_not_what_a_person_wrote(
    updated: StudyRecord,
) -> None:
    first = opened().best_trial
    mine = optuna.trial.Trial(opened(), first._trial_id)
    save_note(mine, get_note(mine) + "\nLook at this one.")
    add_better_trials("s")
    update_dashboard("s.db", "s")
    detail = Pages().study()
    best = set(range(len(updated.trials), len(updated.trials) + 5))
    assert with_files(detail) == best
    assert with_notes(detail) == best | {first.number}
    assert detail["trials"][first.number]["note"]["body"] == f"{END}\nLook at this one."
    assert len(list(artifacts_folder("s.db").iterdir())) == 5 * len(FILES)


def test_a_note_that_a_person_saves_while_files_are_made_stays(
    updated: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep_and_save(study: optuna.Study, *arguments: Any) -> None:
        keep_files(study, *arguments)
        by_person = load_study(new_storage(), "s")
        save_note(by_person, get_note(by_person) + "\n\nlook at #3")

    keep_files = dashboard.keep_files
    monkeypatch.setattr(dashboard, "keep_files", keep_and_save)
    run_study(9, sampler="random", pruner="none")
    update_dashboard("s.db", "s")
    note = get_note(load_study(new_storage(), "s"))
    assert note.endswith("look at #3")
    assert "9 complete" in note


def copy(name: str) -> None:
    url = "sqlite:///s.db"
    optuna.copy_study(from_study_name="s", from_storage=url, to_storage=url, to_study_name=name)


@pytest.mark.parametrize("left", ["s", "copy"])
def test_a_copy_has_a_page_of_its_own_and_deleting_one_of_both_leaves_that_of_the_other(
    updated: StudyRecord, left: str
) -> None:
    best, before = set(ranking(updated)[:5]), Pages().study()
    copy("copy")
    update_dashboard("s.db", "copy")
    assert Pages().study() == before
    delete_study(open_for_deletion("s.db", "copy" if left == "s" else "s"))
    pages = Pages()
    found = pages.study(left)
    assert with_files(found) == with_notes(found) == best
    assert [set(pages.artifacts(found["trials"][number])) for number in best] == [FILES] * 5
    assert len(list(artifacts_folder("s.db").iterdir())) == 5 * len(FILES)
    update_dashboard("s.db", left)
    assert Pages().study(left) == found


def test_a_renamed_study_has_notes_on_its_best_trials_alone(updated: StudyRecord) -> None:
    pages = Pages()
    pages.rename("s", "final")
    add_better_trials("final")
    update_dashboard("s.db", "final")
    found = Pages().study("final")
    best = set(range(len(updated.trials), len(updated.trials) + 5))
    assert with_files(found) == with_notes(found) == best
    assert found["note"]["body"].startswith("# `final`\n")


def test_trials_of_an_older_mc1opt_get_the_attributes_that_tell_them_apart(updated: StudyRecord) -> None:
    connection = sqlite3.connect("s.db")
    connection.execute("DELETE FROM trial_user_attributes WHERE key IN ('outcome', 'summary')")
    connection.commit()
    connection.close()
    update_dashboard("s.db", "s")
    attributes = [trial.user_attrs for trial in opened().trials]
    assert [entry["outcome"] for entry in attributes] == [trial.outcome for trial in updated.trials]
    assert all(entry["summary"].startswith("mlp ") for entry in attributes)


def test_a_database_that_is_missing_is_an_error_or_a_warning() -> None:
    with pytest.raises(StorageError, match=r"missing\.db"):
        update_dashboard("missing.db", "s")
    warnings: list[str] = []
    update_or_warn("missing.db", "s", warnings.append)
    (warning,) = warnings
    assert " 's' " in warning
    assert not Path("missing.db").exists()


# ---- After a retraining ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def retrained_folder(retrainable_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose worst trial was retrained, and which is up to date: not to be changed."""

    def fill(folder: Path) -> None:
        shutil.copytree(retrainable_folder, folder, dirs_exist_ok=True)
        retrain_curves(trial=ranking(stored(STORAGE, STUDY))[-1])
        update_dashboard(STORAGE, STUDY)

    return made_once(tmp_path_factory, "retrained", fill)


@pytest.fixture
def retrained(retrained_folder: Path, tmp_path: Path) -> StudyRecord:
    """The study in the test's own folder, and its record."""
    shutil.copytree(retrained_folder, tmp_path, dirs_exist_ok=True)
    return stored(STORAGE, STUDY)


def test_the_retrained_trial_shows_confusions_and_wrong_images_of_the_one_opening(
    retrained: StudyRecord,
) -> None:
    update_dashboard(STORAGE, STUDY)
    pages = Pages(STORAGE)
    detail = pages.study(STUDY)
    winner = detail["trials"][ranking(retrained)[-1]]
    files = pages.artifacts(winner)
    assert set(files) == FILES | {"confusion_matrix.png", "misclassified.png"}
    assert files["misclassified.png"].startswith(PNG)
    assert "0.8000" in winner["note"]["body"]
    assert "0.8000" in detail["note"]["body"]
    assert len((MODELS / "test_openings.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(("part", "key"), [("winner", "config_id"), ("data", "name")])
def test_the_model_of_an_earlier_study_of_that_name_is_not_taken_for_this_ones(
    retrained: StudyRecord, part: str, key: str
) -> None:
    path = MODELS / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics[part][key] = "another"
    path.write_text(json.dumps(metrics))
    update_dashboard(STORAGE, STUDY)
    detail = Pages(STORAGE).study(STUDY)
    assert "Retrained" not in detail["note"]["body"]
    assert with_files(detail) == with_notes(detail) == set(ranking(retrained)[:5])


# ---- During a search -------------------------------------------------------------------------------------


class CountedWriter(DashboardWriter):
    """Counts its updates, whose seconds are those of the test's clock; its search began long enough ago."""

    def __init__(self, clock: Clock, seconds: float = 0.0, error: Exception | None = None) -> None:
        super().__init__("s.db", clock, clock)
        self.updates: list[bool] = []
        self.clock, self.seconds, self.error = clock, seconds, error
        self.study_started(started())
        clock.seconds += LEAST_SECONDS

    def update(self, *, anew: bool) -> None:
        self.clock.seconds += self.seconds
        self.updates.append(anew)
        if self.error is not None:
            raise self.error

    def end_trials(self, *trials: TrialRecord) -> None:
        for entry in trials:
            self.trial_ended(entry)
            self.tick()
            settle()


def settle() -> None:
    """Waits for the writer's thread."""
    for thread in threading.enumerate():
        if thread.name == "dashboard":
            thread.join(60.0)
            assert not thread.is_alive()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_first_counted_trial_every_fifth_and_each_new_best_are_written(clock: Clock) -> None:
    writer = CountedWriter(clock)
    written = []
    for trials in (
        [trial(0, "too_large"), trial(1, "duplicate"), trial(2, "failed")],
        [trial(3, "pruned")],
        [trial(4, value=0.5)],
        [trial(number, value=0.4) for number in range(5, 9)],
        [trial(9, value=0.4)],
        [trial(10, value=0.6)],
    ):
        writer.end_trials(*trials)
        written.append(len(writer.updates))
    assert written == [0, 1, 2, 2, 3, 4]


def test_writing_takes_a_hundredth_of_the_time_at_most_and_what_waited_is_written_later(clock: Clock) -> None:
    writer = CountedWriter(clock, seconds=2.0)
    writer.end_trials(trial(0, value=0.5))
    clock.seconds += 190.0 - LEAST_SECONDS
    writer.end_trials(*(trial(number, value=0.5 + number / 100) for number in range(1, 12)))
    assert len(writer.updates) == 1
    clock.seconds += 10.0
    writer.end_trials(trial(12, "failed"))
    assert len(writer.updates) == 2


@pytest.mark.parametrize(("seconds", "updates"), [(0.0, [False, True]), (-1.0, [])])
def test_the_end_is_written_with_all_that_trials_have_gained_but_for_searches_of_seconds(
    clock: Clock, seconds: float, updates: list[bool]
) -> None:
    writer = CountedWriter(clock, seconds=1000.0)
    clock.seconds += seconds
    writer.end_trials(trial(0))
    writer.study_ended(ended(study(trial(0))))
    assert writer.updates == updates


def test_an_error_is_raised_once_where_observers_are_told(clock: Clock) -> None:
    writer = CountedWriter(clock, error=OSError("disk full"))
    writer.end_trials(trial(0))
    with pytest.raises(OSError, match="disk full"):
        writer.tick()
    writer.tick()


def test_the_end_does_not_wait_for_ever(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "LAST_SECONDS", 0.05)
    release = threading.Event()
    writer = CountedWriter(clock)
    monkeypatch.setattr(writer, "update", lambda **_: release.wait(60.0))
    with pytest.raises(TimeoutError, match="mc1opt dashboard"):
        writer.study_ended(ended(study()))
    release.set()
    settle()


def test_a_search_with_a_writer_is_the_same_search_and_its_page_is_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dashboard, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(files, "learning_curve_picture", lambda *_: PNG)
    record = run_study(6, confirm=1, observers=(DashboardWriter("s.db"),)).record
    Path("plain").mkdir()
    run_study(6, confirm=1, path="plain/s.db")
    assert facts(stored()) == facts(stored("plain/s.db"))
    detail = Pages().study()
    assert with_files(detail) == set(ranking(record)[:5])
    # The confirmations came after the trials had ended.
    assert "Trained again with new seeds" in detail["note"]["body"]


def test_a_writer_that_cannot_write_costs_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "LEAST_SECONDS", 0.0)
    with caplog.at_level(logging.WARNING):
        ended_search = run_study(3, observers=(DashboardWriter("missing.db"),))
    assert ended_search.reason == "finished"
    assert any("DashboardWriter" in message and "missing.db" in message for message in caplog.messages)
    assert not Path("missing.db").exists()
