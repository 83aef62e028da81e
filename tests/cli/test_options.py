"""What several commands share: how W&B is switched on."""

import json
import math
from pathlib import Path

import pytest

from mc1opt.cli import options
from mc1opt.cli.options import WANDB_MODES, print_json, wandb_mode
from mc1opt.errors import UsageError


@pytest.mark.parametrize(
    ("option", "mode"), [("off", None), ("offline", "offline"), ("online", "online"), (None, None)]
)
def test_without_the_variable_the_option_says_how_to_mirror(
    option: str | None, mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for unset in ("", None):
        monkeypatch.delenv("WANDB_MODE", raising=False)
        if unset is not None:
            monkeypatch.setenv("WANDB_MODE", unset)
        assert wandb_mode(option) == mode
        assert wandb_mode(option, default="online") == (mode if option else "online")


@pytest.mark.parametrize("variable", WANDB_MODES)
def test_the_variable_counts_where_the_option_is_not_given(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", variable)
    assert wandb_mode(None) == WANDB_MODES[variable]
    assert wandb_mode(None, default="online") == WANDB_MODES[variable]
    assert wandb_mode("off") is None
    assert wandb_mode("offline") == "offline"


def test_what_is_no_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--wandb 'on'"):
        wandb_mode("on")
    monkeypatch.setenv("WANDB_MODE", "often")
    with pytest.raises(UsageError, match="WANDB_MODE 'often'"):
        wandb_mode(None)


def test_every_command_that_takes_a_database_takes_the_folder_of_its_files() -> None:
    """Commands to copy have both options."""
    from typer.main import get_command

    from mc1opt.cli.main import app

    commands = [get_command(app)]
    taken = []
    for command in commands:
        commands += getattr(command, "commands", {}).values()
        names = {name for parameter in command.params for name in parameter.opts}
        if "--storage" in names:
            taken.append(command.name)
            assert "--files" in names, command.name
    assert len(taken) >= 12


def test_json_has_null_where_a_number_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [math.nan, (1.5, math.inf), {"b": -math.inf}], "c": None, "d": "NaN", "e": True})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    printed = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert printed == {"a": [None, [1.5, None], {"b": None}], "c": None, "d": "NaN", "e": True}


def test_every_command_prints_json_by_it() -> None:
    folder = Path(options.__file__).parent
    assert [path.name for path in folder.glob("*.py") if "json.dumps" in path.read_text()] == ["options.py"]
