"""Paths behind options, in variables and in arguments: `~` is the home folder, in every one of them."""

import json
import shlex
import shutil
import typing
from pathlib import Path

import pytest
import typer
from PIL import Image

from mc1opt.cli.main import app
from tests.support.command import resume_command


def commands(group: typer.Typer) -> list[typing.Any]:
    """The functions of all commands, those of groups among them."""
    found = [command.callback for command in group.registered_commands]
    for below in group.registered_groups:
        found += [below.typer_instance.registered_callback.callback, *commands(below.typer_instance)]
    return found


def test_every_option_and_argument_that_takes_a_path_knows_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = 0
    for command in commands(app):
        for name, hint in typing.get_type_hints(command, include_extras=True).items():
            if "Path" not in str(typing.get_args(hint)[:1]) and name != "storage":
                continue
            (info,) = typing.get_args(hint)[1:]
            assert str(info.parser("~/x")) == str(tmp_path / "home/x"), (command, name)
            found += 1
    assert found >= 20


@pytest.fixture
def home(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with all that the commands need; beside it, they are given in a folder without any."""
    home = finished / "me at home"
    home.mkdir()
    for name in ("images", "studies", "storage", "cache"):
        shutil.move(finished / name, home / name)
    (finished / "here").mkdir()
    monkeypatch.chdir(finished / "here")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MC1OPT_DATA", "~/cache")
    return home


@pytest.mark.slow
def test_a_search_with_everything_at_home_goes_on_there(home: Path, mc1opt_here: typing.Any) -> None:
    search = ("run", "--study", "~/studies/tiny.py", "--workers=1", "--confirm=0", "--pruner=none")
    place = ("--storage=sqlite:///~/new.db", "--data=~/images")
    stopped = mc1opt_here(*search, *place, "--trials=1", "--json")
    assert json.loads(stopped.stdout)["study"] == "tiny"
    assert (home / "new.db").exists()
    assert list((home / "new.db.files/checkpoints/tiny").iterdir())
    assert list(Path().iterdir()) == []
    shown = mc1opt_here("show", "--study", "tiny", "--storage=~/new.db", "--json")
    assert json.loads(shown.stdout)["trials"] == json.loads(stopped.stdout)["trials"]


def test_exports_and_images_are_at_home(home: Path, mc1opt_here: typing.Any) -> None:
    Image.new("RGB", (32, 32)).save(home / "black.png")
    place = "--storage=~/storage/mc1opt.db"
    export = ("export", "--study", "tiny", "--format", "safetensors", "--output=~/out", "--data=~/images")
    (file,) = json.loads(mc1opt_here(*export, place, "--json").stdout)
    assert Path(file["path"]).parent == home / "out"
    told = mc1opt_here("predict", "~/out/" + Path(file["path"]).name, "~/black.png", place, "--json")
    (prediction,) = json.loads(told.stdout)
    assert prediction["image"] == str(home / "black.png")
    assert list(Path().iterdir()) == []


def test_a_command_to_copy_that_was_given_with_a_tilde_is_quoted_and_works(
    home: Path, mc1opt_here: typing.Any
) -> None:
    result = mc1opt_here(
        *("run", "--study=~/studies/tiny.py", "--storage=~/storage/mc1opt.db", "--data=~/images"),
        *("--trials=50", "--workers=1", "--timeout=1s", "--pruner=none"),
    )
    assert "'--storage=~/storage/mc1opt.db'" in result.stdout  # which a shell leaves as it is
    assert "--data=~/images" in resume_command(result.stdout)
    place = shlex.quote(str(home / "storage/mc1opt.db"))
    assert f"--storage {place}" in result.stdout  # of the commands that go on from there
    assert list(Path().iterdir()) == []


def test_a_folder_that_is_called_tilde_is_reached_by_a_dot(tmp_path: Path, mc1opt_here: typing.Any) -> None:
    (tmp_path / "~").mkdir()
    result = mc1opt_here("show", "--study=s", "--storage=./~/x.db")
    assert f" {tmp_path}/~/x.db" in result.stderr
