"""`mc1opt.run` and `mc1opt.load_study`: what the command does, from Python."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import mc1opt
from mc1opt.cli.api import LEAST, SearchOptions, search_command
from mc1opt.config import config_from_json, config_id
from mc1opt.database.location import files_folder
from mc1opt.errors import SearchStoppedError, StorageError, UsageError
from mc1opt.search import command
from tests.support import curves
from tests.support.command import stored_study

OPTIONS: dict[str, Any] = {"workers": "1", "pruner": "none", "data": "images", "confirm": 0}


# ---- Options ---------------------------------------------------------------------------------------------


def test_nothing_heavy_is_imported_with_the_package() -> None:
    code = "import sys, mc1opt; sys.exit(bool({'torch', 'optuna', 'pydantic'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_options_are_those_of_the_command() -> None:
    from typer.main import get_command

    from mc1opt.cli.main import app

    (run,) = [each for name, each in get_command(app).commands.items() if name == "run"]
    names = {parameter.name for parameter in run.params}
    assert names == SearchOptions.__annotations__.keys() | {"study", "trials", "wandb", "as_json"}
    assert names > LEAST.keys()


def test_times_and_paths_are_as_on_the_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = search_command("cnn", timeout="8m", max_trial_time="1h", storage="~/s.db", data="~/images")
    assert (made.timeout, made.max_trial_seconds, made.trials) == (480.0, 3600.0, 100)
    assert (made.storage, made.data) == (str(tmp_path / "s.db"), tmp_path / "images")
    assert files_folder(search_command("cnn", storage="s.db", files="~/files").storage) == tmp_path / "files"


@pytest.mark.usefixtures("tiny", "curve_pool")
def test_database_and_files_of_the_variables_are_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MC1OPT_STORAGE", "elsewhere/s.db")
    monkeypatch.setenv("MC1OPT_FILES", str(tmp_path / "shared"))
    study = mc1opt.run("tiny", 1, **OPTIONS)
    assert study == mc1opt.load_study("tiny") == mc1opt.load_study("tiny", "elsewhere/s.db")
    assert list((tmp_path / "shared/checkpoints/tiny").glob("*.safetensors"))
    assert {path.name for path in Path("elsewhere").iterdir()} == {"s.db", ".s.db.lock"}
    assert not Path("storage").exists()


@pytest.mark.parametrize("name", LEAST)
def test_values_that_are_too_small_are_refused(name: str) -> None:
    options: dict[str, Any] = {name: LEAST[name] - 1}
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} {LEAST[name] - 1}"):
        mc1opt.run("cnn", **options)


def test_an_unknown_option_is_an_error_of_pythons() -> None:
    with pytest.raises(TypeError, match="epoch"):
        mc1opt.run("cnn", epoch=3)  # type: ignore[call-arg]


# ---- Searches --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny", "curve_pool")
def test_a_search_returns_the_study_that_is_stored_and_prints_its_progress(
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = mc1opt.run("tiny", 3, **OPTIONS)
    assert study == mc1opt.load_study("tiny")
    assert json.loads(json.dumps(study.to_json())) == stored_study("tiny")
    assert sum(trial.outcome == "complete" for trial in study.trials) == 3
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "3/3" in printed.out
    assert "Done" in printed.out
    assert config_id(config_from_json(study.best.config or {})) == study.best.config_id
    assert mc1opt.run("tiny", 4, **OPTIONS).trials[: len(study.trials)] == study.trials


@pytest.mark.usefixtures("tiny", "curve_pool")
def test_a_search_works_in_a_thread_too() -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(mc1opt.run("tiny", 1, **OPTIONS)))
    thread.start()
    thread.join()
    assert found == [mc1opt.load_study("tiny")]


@pytest.mark.usefixtures("tiny", "curve_pool")
def test_an_interrupt_keeps_everything_and_the_same_call_goes_on(
    switches: curves.Switches, capsys: pytest.CaptureFixture[str]
) -> None:
    switches.add("hang", epoch=1, times=1)
    before = signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        switches.wait_for_epochs(2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        mc1opt.run("tiny", 2, **OPTIONS)
    thread.join()
    assert signal.getsignal(signal.SIGINT) == before
    assert "SIGINT" in capsys.readouterr().out
    (begun,) = [trial for trial in mc1opt.load_study("tiny").trials if trial.config]
    assert (begun.outcome, len(begun.values_by_epoch)) == ("waiting", 1)
    study = mc1opt.run("tiny", 2, **OPTIONS)
    assert (study.trials[begun.number].outcome, study.trials[begun.number].interrupted) == ("complete", 1)


@pytest.mark.usefixtures("tiny")
def test_an_interrupt_before_the_search_begins_is_python_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_data", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        mc1opt.run("tiny", 2, **OPTIONS)
    assert not Path("storage").exists()


@pytest.mark.usefixtures("tiny", "curve_pool")
def test_errors_are_raised(switches: curves.Switches) -> None:
    with pytest.raises(UsageError, match="nope"):
        mc1opt.run("nope", **OPTIONS)
    with pytest.raises(StorageError, match=r"storage/mc1opt\.db"):
        mc1opt.load_study("tiny")
    switches.add("diverge")
    with pytest.raises(SearchStoppedError, match="3 trials in a row failed"):
        mc1opt.run("tiny", max_failures=3, **OPTIONS)
