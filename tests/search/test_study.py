"""Going on with a study: the same one or none, and the trials that dead processes have left."""

import dataclasses
import sqlite3
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna import TrialPruned
from optuna.trial import BaseTrial

from mc1opt.config import Config
from mc1opt.database import records, study_attributes
from mc1opt.database.opening import load_study
from mc1opt.database.storage import StudyStorage
from mc1opt.dataset import DataSet
from mc1opt.errors import StorageError, StudyFileError, UsageError
from mc1opt.search.definition import StudyDefinition, load_definition
from mc1opt.search.settings import SearchSettings
from mc1opt.search.study import SPACE_DRAWS, open_study, space_fingerprint
from mc1opt.spec import Fidelity
from tests.support.forking import fork_searches
from tests.support.studies import (
    DATA,
    STARTING_POINTS,
    definition_of,
    new_storage,
    small_definition,
    smooth_space,
    stored,
    tiny_space,
)

SETTINGS = SearchSettings(
    study="s",
    trials=1,
    device="cpu",
    fidelity=Fidelity(train_images=1000, epochs=4),
    seed=0,
    max_macs=6_000_000,
    sampler="tpe",
    pruner="narrowing",
)


def opened(
    definition: StudyDefinition | None = None,
    storage: StudyStorage | None = None,
    data: DataSet = DATA,
    **changes: Any,
) -> optuna.Study:
    settings = dataclasses.replace(SETTINGS, **changes)
    return open_study(definition or small_definition(), settings, storage or new_storage(), data)


# ---- The same study, or none -----------------------------------------------------------------------------


def test_a_study_is_created_with_what_makes_it_that_study() -> None:
    study = opened()
    record = stored()
    assert (record.definition, record.seed, record.direction) == ("small", 0, "maximize")
    assert record.fidelity == SETTINGS.fidelity
    assert record.data == {"name": DATA.name, "sha256": DATA.sha256}
    assert study.metric_names == ["validation accuracy"]
    assert [trial.starting_point for trial in record.trials] == ["narrow", "wide"]
    assert {trial.outcome for trial in record.trials} == {"waiting"}


def test_opening_it_again_adds_nothing() -> None:
    opened()
    assert len(opened().trials) == 2
    assert len(opened(sampler="random", pruner="none").trials) == 2


def test_own_data_is_known_by_its_name_which_holds_its_hash() -> None:
    """What is hashed besides has changed once; studies from before go on."""
    storage = new_storage()
    first = opened(storage=storage)
    again = opened(storage=storage, data=DATA.model_copy(update={"sha256": "1" * 64}))
    assert again._study_id == first._study_id
    assert stored().data == {"name": DATA.name, "sha256": DATA.sha256}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"fidelity": Fidelity(train_images=1000, epochs=5)}, r'fidelity.*"epochs": 4'),
        ({"seed": 1}, r"seed.* 0\b.* 1\b"),
        ({"max_macs": 7_000_000}, "--max-macs.* 6000000.* 7000000"),
        ({"data": DATA.model_copy(update={"name": "own-1"})}, "data.*curves.*own-1"),
        ({"definition": small_definition(name="other")}, 'definition.*"small".*"other"'),
        ({"definition": definition_of(smooth_space)}, "search space"),
    ],
    ids=["fidelity", "seed", "max_macs", "data", "definition", "search space"],
)
def test_another_study_of_that_name_is_refused_with_commands_to_copy(
    changes: dict[str, Any], what: str
) -> None:
    storage = new_storage("a b.db")
    opened(storage=storage, study="my study")
    before = stored("a b.db", "my study")
    with pytest.raises(UsageError, match=what) as caught:
        opened(storage=storage, study="my study", **changes)
    assert "--name 'my study-2'\n" in str(caught.value)
    assert str(caught.value).endswith("mc1opt studies delete 'my study' --storage 'a b.db'")
    assert stored("a b.db", "my study") == before


STUDY_FILE = '''"""A study."""
from mc1opt.config import MLP, SGD, Config, LinearLayer
def search_space(trial):
    width = trial.suggest_int("width", 16, 64)
    norm = trial.suggest_categorical("norm", ["none", "batch"])
    layer = LinearLayer(width=width, norm=norm)
    return Config(architecture=MLP(layers=(layer,)), optimizer=SGD(learning_rate=0.1), batch_size=64)
'''


GRID_FILE = STUDY_FILE + "GRID = {'width': [16, 32], 'norm': ['none']}\n"


def fingerprint(text: str = STUDY_FILE) -> str:
    """The fingerprint of a study file with this text."""
    Path("mine.py").write_text(text)
    return space_fingerprint(load_definition("./mine.py"))


def test_another_grid_is_another_search_space() -> None:
    assert fingerprint(GRID_FILE) == fingerprint(GRID_FILE)
    assert fingerprint(GRID_FILE) != fingerprint(STUDY_FILE)
    assert fingerprint(GRID_FILE) != fingerprint(GRID_FILE.replace("32]", "33]"))


@pytest.mark.parametrize(
    ("old", "new", "point"),
    [
        ("[16, 32]", "[16, 128]", r"{'width': 128, 'norm': 'none'} of GRID"),
        ("'norm': ['none']", "'norm': ['layer']", r"'layer'} of GRID"),
        (", 'norm': ['none']", "", r"{'width': 16} of GRID.*norm"),
    ],
    ids=["out of range", "no such choice", "a parameter left out"],
)
def test_a_grid_that_does_not_fit_the_search_space_is_refused(old: str, new: str, point: str) -> None:
    with pytest.raises(StudyFileError, match=point):
        fingerprint(GRID_FILE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("    width =", "    # How wide.\n\n    width  =", True),
        ('"""A study."""', '"""Another text."""', True),
        ("layer", "hidden", True),
        ("64)\n    norm", "65)\n    norm", False),
        ('["none", "batch"]', '["batch", "none"]', False),
        ('["none", "batch"]', '["none"]', False),
        ("16, 64", "16, 64, log=True", False),
        ("learning_rate=0.1", "learning_rate=0.2", False),
        ('"width", 16', '"size", 16', False),
    ],
    ids=["comment", "docstring", "name", "range", "order", "choice", "scale", "constant", "parameter"],
)
def test_what_a_search_space_gives_counts_and_not_how_it_is_written(old: str, new: str, same: bool) -> None:
    changed = STUDY_FILE.replace("search_space", "SPACE").replace(old, new).replace("SPACE", "search_space")
    changed = changed.replace("Linearhidden", "LinearLayer").replace("hiddens=", "layers=")
    assert changed != STUDY_FILE
    assert (fingerprint(changed) == fingerprint()) == same


@pytest.mark.parametrize(
    ("point", "why"),
    [
        ({"width": 65}, "65"),
        ({"width": 16, "norm": "group"}, "group"),
        ({"layers": 0}, "0"),
        ({"sgd_step": ...}, "sgd_step"),
    ],
)
def test_a_starting_point_that_does_not_fit_is_refused_by_name(point: dict[str, Any], why: str) -> None:
    odd = {key: value for key, value in (STARTING_POINTS["narrow"] | point).items() if value is not ...}
    with pytest.raises(StudyFileError, match=f"'odd'(.|\n)*{why}"):
        opened(small_definition(starting_points={**STARTING_POINTS, "odd": odd}))
    assert new_storage().get_all_studies() == []


def never(trial: BaseTrial) -> Config:
    trial.suggest_int("width", 1, 2)
    raise TrialPruned("it never fits")


@pytest.mark.parametrize("points", [{}, {"narrow": {"width": 1}}], ids=["none", "a starting point"])
def test_a_space_in_which_nothing_is_feasible_is_refused_with_the_reason(points: dict[str, Any]) -> None:
    with pytest.raises(StudyFileError, match=rf" {SPACE_DRAWS} .* it never fits\)"):
        opened(definition_of(never, starting_points=points))


def test_which_draws_are_infeasible_is_compared_and_not_the_words_for_it() -> None:
    def limited(limit: int, words: str) -> StudyDefinition:
        def space(trial: BaseTrial) -> Config:
            config = smooth_space(trial)
            if config.batch_size > limit:
                raise TrialPruned(words)
            return config

        return definition_of(space)

    fingerprint = space_fingerprint(limited(100, "too large"))
    assert space_fingerprint(limited(100, "larger than 100")) == fingerprint
    assert space_fingerprint(limited(200, "too large")) != fingerprint
    assert space_fingerprint(definition_of(smooth_space)) != fingerprint


def test_the_fingerprints_of_stored_studies_stay() -> None:
    assert space_fingerprint(definition_of(smooth_space)) == "dede74c0828e7dc6"
    assert space_fingerprint(small_definition()) == "282fa9894b84e486"


def test_a_search_space_that_warns_is_searched_from_its_starting_points() -> None:
    """A step that does not divide its range, a library of which a function will go."""

    def space(trial: BaseTrial) -> Config:
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        warnings.warn("slow", RuntimeWarning, stacklevel=1)
        trial.suggest_int("unused", 1, 9, step=3)
        trial.suggest_float("unused too", 0.0, 1.0, step=0.3)
        return tiny_space(trial)

    point = {"width": 16, "unused": 4, "unused too": 0.9}
    with pytest.warns() as seen:
        study = opened(definition_of(space, starting_points={"a": point}))
    assert {warning.category for warning in seen} == {DeprecationWarning, RuntimeWarning, UserWarning}
    assert [trial.starting_point for trial in stored().trials] == ["a"]
    assert study.trials[0].system_attrs["fixed_params"] == point


def test_a_helper_that_changes_is_a_change_of_the_search_space() -> None:
    def with_helper(helper: str) -> str:
        Path("helper.py").write_text(helper)
        return fingerprint("import helper\n" + STUDY_FILE.replace("16, 64", "*helper.WIDTHS"))

    same = with_helper("WIDTHS = (16, 64)\n")
    assert with_helper("# How wide.\nWIDTHS = (16, 64)\n") == same
    assert with_helper("WIDTHS = (16, 65)\n") != same


@pytest.mark.parametrize("name", ["widht", "adam_step", "a"])
def test_a_name_in_a_starting_point_that_is_not_asked_for_is_warned_of(name: str) -> None:
    """One that no branch knows, and one that another branch asks for."""
    points = {**STARTING_POINTS, "odd": STARTING_POINTS["narrow"] | {name: 2}}
    with pytest.warns(UserWarning, match=f"'{name}' in starting point 'odd'") as seen:
        opened(small_definition(starting_points=points))
    assert len(seen) == 1


def test_a_name_in_a_grid_is_warned_of_where_no_point_asks_for_it() -> None:
    def space(trial: BaseTrial) -> Config:
        config = tiny_space(trial)
        if config.architecture.layers[0].width == 16:
            trial.suggest_int("for the narrow", 1, 2)
        return config

    grid: dict[str, list[Any]] = {"width": [16, 32], "for the narrow": [1, 2]}
    space_fingerprint(definition_of(space, grid=grid))
    with pytest.warns(UserWarning, match="'depht' in GRID") as seen:
        space_fingerprint(definition_of(space, grid=grid | {"depht": [1, 2]}))
    assert len(seen) == 1


def test_choices_that_differ_from_trial_to_trial_are_refused_by_name() -> None:
    def space(trial: BaseTrial) -> Config:
        config = tiny_space(trial)
        trial.suggest_categorical("depth", [1, 2] if config.architecture.layers[0].width == 16 else [1, 2, 3])
        return config

    with pytest.raises(StudyFileError, match="'depth'"):
        opened(definition_of(space))
    assert new_storage().get_all_studies() == []


@pytest.mark.parametrize("directions", [["maximize"], ["minimize"], ["maximize", "minimize"]], ids=str)
def test_a_study_of_plain_optuna_is_refused_and_untouched(directions: list[str]) -> None:
    foreign = optuna.create_study(storage=new_storage(), study_name="s", directions=directions)
    foreign.tell(foreign.ask(), [0.5] * len(directions))
    with pytest.raises(UsageError, match=r"'s'.* --name"):
        opened()
    study = load_study(new_storage(), "s")
    assert len(study.trials) == 1
    assert study.user_attrs == {}


def test_a_study_whose_process_died_while_it_was_made_is_begun_again() -> None:
    """The steps of the making, each time one more of them."""
    opened(study="complete")
    expected = dataclasses.replace(stored(name="complete"), study="s", folder="s")
    storage = new_storage()
    for points in range(3):
        study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
        study.set_user_attr(study_attributes.STUDY_SEED, SETTINGS.seed)
        for name, params in list(STARTING_POINTS.items())[:points]:
            study.enqueue_trial(params, user_attrs={records.STARTING_POINT: name})
        opened()
        assert stored() == expected
        optuna.delete_study(study_name="s", storage=storage)


# ---- Databases that dead processes have left -------------------------------------------------------------

WRITER = """
import os, signal, sqlite3, sys
connection = sqlite3.connect("s.db", isolation_level=None)
connection.execute("PRAGMA cache_size = 1")  # so that pages are written before the end of the transaction
connection.execute("BEGIN")
for number in range(2000):
    connection.execute(sys.argv[1], (f"{number} " * 100,))
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_within_a_write(insert: str) -> None:
    before = Path("s.db").stat().st_size
    subprocess.run([sys.executable, "-c", WRITER, insert], check=False)
    assert Path("s.db-journal").stat().st_size > 0
    assert Path("s.db").stat().st_size > before


def test_a_database_whose_writer_was_killed_is_opened_with_what_was_finished() -> None:
    opened()
    before = stored()
    insert = "INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (1, ?, '1')"
    kill_within_a_write(insert)
    assert stored() == before
    kill_within_a_write(insert)
    assert len(opened().trials) == 2
    assert len(opened().user_attrs) < 20


def test_a_database_of_another_program_whose_writer_was_killed_stays_untouched() -> None:
    connection = sqlite3.connect("s.db")
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    kill_within_a_write("INSERT INTO recipes VALUES (?)")
    before = {path.name: path.read_bytes() for path in Path().glob("s.db*")}
    with pytest.raises(StorageError, match="recipes"):
        new_storage()
    assert {path.name: path.read_bytes() for path in Path().glob("s.db*")} == before


def test_a_database_whose_process_was_killed_while_it_was_made_is_made_again() -> None:
    fork_searches("create", 4)  # raises unless each one can be opened afterwards
    assert all(new_storage(f"{number}.db").get_all_studies() == [] for number in range(4))
