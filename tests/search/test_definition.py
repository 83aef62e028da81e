"""Loading study definitions."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import FixedTrial

from mc1opt.dataset import CIFAR10_DATA
from mc1opt.errors import StudyFileError
from mc1opt.search.definition import list_definitions, load_definition, shipped_folder
from mc1opt.spec import Fidelity

MINIMAL = '''"""Mine.

More.
"""
from mc1opt.config import MLP, SGD, Config

EPOCHS = 3
TRAIN_IMAGES = 50


def search_space(trial):
    rate = trial.suggest_float("rate", 0.1, 1.0)
    return Config(architecture=MLP(layers=()), optimizer=SGD(learning_rate=rate), batch_size=10)
'''

GREY = CIFAR10_DATA.model_copy(update={"channels": 1, "size": 28, "class_names": ("a", "b", "c")})


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_name_is_looked_up_in_the_own_folder_first() -> None:
    own = write(Path("studies/cnn.py"), MINIMAL)
    assert load_definition("cnn").path.resolve() == own.resolve()
    assert load_definition("mlp").path == shipped_folder() / "mlp.py"


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    definition = load_definition(str(write(tmp_path / "else" / "mine.py", MINIMAL)))
    assert definition.name == "mine"
    assert definition.description == "Mine."
    assert definition.fidelity == Fidelity(train_images=50, epochs=3)
    assert definition.config(FixedTrial({"rate": 0.5})).optimizer.learning_rate == 0.5


def test_a_definition_may_choose_sampler_pruner_and_grid() -> None:
    plain = load_definition(str(write(Path("plain.py"), MINIMAL)))
    assert (plain.sampler, plain.pruner, plain.grid) == ("local", "narrowing", {})
    own = MINIMAL + "\nSAMPLER = 'grid'\nPRUNER = 'none'\nGRID = {'rate': [0.1, 0.5]}\n"
    chosen = load_definition(str(write(Path("own.py"), own)))
    assert (chosen.sampler, chosen.pruner, chosen.grid) == ("grid", "none", {"rate": [0.1, 0.5]})


def test_numpys_values_become_pythons() -> None:
    own = MINIMAL.replace("EPOCHS = 3", "import numpy as np\nEPOCHS = np.int64(3)\nMAX_MACS = np.int32(7)")
    own += "\nGRID = {'rate': np.array([0.5, 1.0])}\nSTARTING_POINTS = {'a': {'rate': np.float32(0.5)}}\n"
    definition = load_definition(str(write(Path("own.py"), own)))
    kept = [definition.max_macs, definition.grid, definition.starting_points]
    assert kept == [7, {"rate": [0.5, 1.0]}, {"a": {"rate": 0.5}}]
    assert json.loads(json.dumps(kept)) == kept
    assert definition.fidelity.epochs == 3


def test_the_shipped_definitions_are_listed() -> None:
    assert {"cnn", "mlp", "published", "published_grid"} <= list_definitions().keys()


@pytest.mark.parametrize("name", ["._mine.py", ".mine.py", "_mine.py", "mine.txt", "folder.py/mine.txt"])
def test_what_is_hidden_or_no_python_file_is_no_definition(name: str) -> None:
    shipped = list_definitions()
    write(Path("studies") / name, MINIMAL)
    assert list_definitions() == shipped


@pytest.mark.parametrize("name", ["mine", "studies/mine.py"])
@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,  # which would be waited for
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("nowhere.py"),
        lambda path: path.symlink_to("mine.py"),
    ],
    ids=["pipe", "device", "link to nothing", "link to itself"],
)
def test_what_is_no_file_is_not_loaded(make: Callable[[Path], object], name: str) -> None:
    Path("studies").mkdir()
    make(Path("studies/mine.py"))
    with pytest.raises(StudyFileError, match=r"no study file studies/mine\.py"):
        load_definition(name)


def test_what_a_definition_prints_is_not_the_commands_output(capsys: pytest.CaptureFixture[str]) -> None:
    load_definition(str(write(Path("mine.py"), MINIMAL + "\nprint('hello')\n")))
    assert capsys.readouterr() == ("", "hello\n")


@pytest.mark.parametrize(("name", "named"), [("cn", "'cn'.*cnn, cnn_large"), ("no/mine.py", r"no/mine\.py")])
def test_an_unknown_name_or_file_is_named(name: str, named: str) -> None:
    with pytest.raises(StudyFileError, match=named):
        load_definition(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def search_space(trial:\n", r"mine\.py, line 1"),
        ("x = 1\n", "search_space"),
        ("import nothing_of_that_name\n", r"ModuleNotFoundError.*\(line 1\)"),
        ("import sys\nsys.exit(3)\n", r"SystemExit: 3 \(line 2\)"),
        ("x = '\0'\n", r"mine\.py.*null bytes"),
        (MINIMAL.replace("EPOCHS = 3", "EPOCHS = 0"), "epochs.* 1"),
        (MINIMAL + "\nDATA = 5\n", "DATA.* 5"),
        (MINIMAL + "\nGRID = {'rate': []}\n", "GRID"),
        (MINIMAL + "\nGRID = ['rate']\n", "GRID"),
        (MINIMAL + "\nGRID = {'rate': '0.1'}\n", "GRID"),
        (MINIMAL + "\nGRID = {'rate': [(1, 2)]}\n", "'rate' of GRID.* tuple"),
        (MINIMAL + "\nGRID = {'rate': [float('nan')]}\n", "'rate' of GRID.* nan"),
        (MINIMAL + "\nSTARTING_POINTS = [{'rate': 0.1}]\n", "STARTING_POINTS"),
        (MINIMAL + "\nSTARTING_POINTS = {'a': 0.1}\n", "STARTING_POINTS"),
        (MINIMAL + "\nSTARTING_POINTS = {'a': {'rate': [1]}}\n", "'rate' of starting point 'a'"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(text: str, message: str) -> None:
    write(Path("studies/mine.py"), text)
    with pytest.raises(StudyFileError, match=message):
        load_definition("mine")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1 / 0", r"ZeroDivisionError.* \(line 4\)"),
        ("return 5", "int.* Config"),
        (
            "return Config(architecture=ConvNet(blocks=(ConvBlock(width=4, kernel_size=11),) * 4), "
            "optimizer=SGD(learning_rate=0.1), batch_size=1)",
            "block 4.* 11 .*2x2",
        ),
    ],
)
def test_a_search_space_that_raises_says_where_and_for_what(body: str, message: str) -> None:
    write(
        Path("studies/mine.py"),
        "from mc1opt.config import *\n\ndef search_space(trial):\n    " + body + "\n",
    )
    with pytest.raises(StudyFileError, match=message):
        load_definition("mine").config(FixedTrial({}))


def test_a_search_space_may_ask_for_the_data_that_it_is_for() -> None:
    text = MINIMAL.replace("search_space(trial)", "search_space(trial, data)")
    text = text.replace(
        "    return Config", "    assert data.shape == (1, 28, 3), data.shape\n    return Config"
    )
    definition = load_definition(str(write(Path("mine.py"), text)))
    with pytest.raises(StudyFileError, match=r"AssertionError.*channels=3, size=32, classes=10"):
        definition.config(FixedTrial({"rate": 0.5}))  # until it is known, it is CIFAR-10
    assert definition.on(GREY).config(FixedTrial({"rate": 0.5}))


def test_a_network_that_fits_large_images_alone_is_found_with_them_alone() -> None:
    blocks = "return Config(architecture=ConvNet(blocks=(ConvBlock(width=4, kernel_size=11),) * 4), "
    text = f"from mc1opt.config import *\n\ndef search_space(trial):\n    {blocks}"
    text += "optimizer=SGD(learning_rate=0.1), batch_size=1)\n"
    definition = load_definition(str(write(Path("mine.py"), text)))
    with pytest.raises(StudyFileError, match="block 3"):
        definition.on(GREY).config(FixedTrial({}))
    assert definition.on(GREY.model_copy(update={"size": 64})).config(FixedTrial({}))


def test_a_combination_that_is_no_network_is_optunas_own_exception() -> None:
    fast = '    if rate > 0.5:\n        raise optuna.TrialPruned("fast")\n'
    text = "import optuna\n" + MINIMAL.replace("    return Config", f"{fast}    return Config")
    definition = load_definition(str(write(Path("mine.py"), text)))
    assert definition.config(FixedTrial({"rate": 0.5})).optimizer.learning_rate == 0.5
    with pytest.raises(optuna.TrialPruned, match="fast"):
        definition.config(FixedTrial({"rate": 0.6}))


# ---- Modules beside a study file -------------------------------------------------------------------------

AT_THE_TOP = MINIMAL.replace("EPOCHS = 3", "from helper import RATES\n\nEPOCHS = 3")
AT_THE_TOP = AT_THE_TOP.replace('suggest_float("rate", 0.1, 1.0)', 'suggest_categorical("rate", RATES)')
INSIDE = MINIMAL.replace("rate = trial", "from helper import RATES\n    rate = trial")
INSIDE = INSIDE.replace('suggest_float("rate", 0.1, 1.0)', 'suggest_categorical("rate", RATES)')
both_places = pytest.mark.parametrize("text", [AT_THE_TOP, INSIDE], ids=["at the top", "inside"])


def with_helper(folder: str, rates: str, text: str = AT_THE_TOP) -> Path:
    write(Path(folder, "helper.py"), f"RATES = {rates}\n")
    return write(Path(folder, "mine.py"), text)


@both_places
def test_a_module_beside_a_study_file_is_imported_wherever_the_command_is_given(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a relative path, and from another folder later."""
    modules, path = set(sys.modules), list(sys.path)
    definition = load_definition(str(with_helper("folder", "[0.5]", text)))
    write(Path("elsewhere/helper.py"), "RATES = [0.25]\n")
    monkeypatch.chdir("elsewhere")
    assert definition.config(FixedTrial({"rate": 0.5})).optimizer.learning_rate == 0.5
    assert (set(sys.modules) - modules, sys.path) == (set(), path)


@both_places
def test_two_study_files_have_their_own_modules_of_the_same_name(text: str) -> None:
    first, second = (load_definition(str(with_helper(name, f"[{name}]", text))) for name in ("0.5", "0.25"))
    for _ in range(2):
        assert first.config(FixedTrial({"rate": 0.5})).optimizer.learning_rate == 0.5
        assert second.config(FixedTrial({"rate": 0.25})).optimizer.learning_rate == 0.25


def test_a_module_beside_a_study_file_may_be_a_package_and_import_others() -> None:
    write(Path("rates/__init__.py"), "from rates.two import RATES\n")
    write(Path("rates/two.py"), "from three import RATES\n")
    write(Path("three.py"), "RATES = [0.5]\n")
    definition = load_definition(str(write(Path("mine.py"), INSIDE.replace("helper", "rates"))))
    assert definition.config(FixedTrial({"rate": 0.5})).optimizer.learning_rate == 0.5
    assert not {"rates", "rates.two", "three"} & set(sys.modules)


@both_places
def test_modules_with_the_names_of_installed_ones_are_not_taken_for_them(text: str, tmp_path: Path) -> None:
    """In a process of its own, which has imported nothing of them yet."""
    with_helper(".", "[0.5]", text.replace("import RATES", "import RATES; import rich, random, optuna"))
    for name in ("random", "rich", "numpy", "typing", "mc1opt", "optuna"):
        write(Path(f"{name}.py"), "raise RuntimeError('the neighbour')\n")
    code = (
        f"import sys; sys.path = [entry for entry in sys.path if entry not in ('', {str(tmp_path)!r})]\n"
        "from mc1opt.search.definition import load_definition\n"
        "from optuna.trial import FixedTrial\n"
        f"definition = load_definition({str(tmp_path / 'mine.py')!r})\n"
        "print(definition.config(FixedTrial({'rate': 0.5})).optimizer.learning_rate)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.stdout, result.stderr) == ("0.5\n", "")


@pytest.mark.parametrize(
    ("helper", "message"),
    [
        ("RATES = [1 / 0]\n", r"ZeroDivisionError.*\(helper\.py, line 1\)"),
        ("def rates():\n    return [1 / 0]\nRATES = rates()\n", r"ZeroDivisionError.*\(helper\.py, line 2\)"),
        ("\nRATES = [0.5\n", r"helper\.py, line 2"),
        ("import nothing_of_that_name\n", r"ModuleNotFoundError.*\(helper\.py, line 1\)"),
        ("", r"ImportError.*'RATES'.*\(line \d+\)"),
    ],
    ids=["raises", "function raises", "syntax", "import", "no such name"],
)
@both_places
def test_a_module_beside_a_study_file_that_cannot_be_used_is_named_with_the_line(
    text: str, helper: str, message: str
) -> None:
    with_helper(".", "", text)
    write(Path("helper.py"), helper)
    with pytest.raises(StudyFileError, match=message):
        load_definition("./mine.py").config(FixedTrial({"rate": 0.5}))


def test_a_choice_that_cannot_be_stored_is_named_with_the_line() -> None:
    write(Path("mine.py"), INSIDE.replace("from helper import RATES", "RATES = [(1,)]"))
    with (
        pytest.warns(UserWarning, match="Choices for a categorical"),
        pytest.raises(StudyFileError, match=r"mine\.py \(line 13\): .*choices of 'rate'"),
    ):
        load_definition("./mine.py").config(FixedTrial({"rate": 0.5}))


def test_a_file_changed_within_the_same_second_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for rate in (0.5, 0.7):
        path = with_helper(".", f"[{rate}]")
        for file in (path, Path("helper.py")):
            os.utime(file, (1e9, 1e9))
        assert load_definition("./mine.py").config(FixedTrial({"rate": rate})).optimizer.learning_rate == rate
    assert not Path("__pycache__").exists()
