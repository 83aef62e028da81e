"""Faults 19 and 20: a study's file changes between two runs; names that paths and shells misread."""

import json
import shlex
import signal
from pathlib import Path

import pytest

from mc1opt.database.records import StudyRecord
from tests.faults.checker import STORAGE, Expected, check
from tests.faults.conftest import SEARCH, SMALL, TRIALS, Commands
from tests.faults.test_processes import HANGS, VICTIM
from tests.support.command import resume_command, states
from tests.support.curves import Switches
from tests.support.studies import facts, wait_until_begun

# ---- 19: the study's file changes ------------------------------------------------------------------------

ANOTHER_SPACE = (
    SMALL + "search_space = lambda trial: small_space(trial).model_copy(update={'batch_size': 65})\n"
)
A_COMMENT = SMALL + "\n# This changes nothing.\n"


def stop_in_the_middle(commands: Commands, switches: Switches) -> None:
    switches.add("hang", **HANGS)
    search = commands.search()
    wait_until_begun(switches, VICTIM, 2)
    search.send_signal(signal.SIGTERM)
    assert commands.finish(search).code == 143
    assert states()[VICTIM] == "WAITING"


@pytest.mark.slow
def test_a_study_whose_file_changes_goes_on_only_as_the_same_study(
    commands: Commands, switches: Switches, undisturbed: StudyRecord
) -> None:
    file = Path("studies/small.py")
    stop_in_the_middle(commands, switches)
    before = Path(STORAGE).read_bytes()
    for content, message in (
        (ANOTHER_SPACE, "study 'small' exists, and the search space"),
        ("def search_space(trial:\n", "was never closed"),
        (None, "unknown study 'small'"),
    ):
        file.unlink() if content is None else file.write_text(content)
        ended = commands.finish(commands.search())
        assert (ended.code, ended.stdout) == (2, "")
        assert message in ended.stderr
        assert Path(STORAGE).read_bytes() == before
    file.write_text(A_COMMENT)
    commands.go_on()
    assert facts(check(commands.folder, "small", Expected(TRIALS))) == facts(undisturbed)


# ---- 20: names -------------------------------------------------------------------------------------------

NAMES = [
    "/absolute/../../outside",
    """'quotes" and `backticks`; $HOME && touch executed""",
    "--storage",
    "<img src=x onerror=alert(1)>\\b\tc 🐈 Größe 100 %" + "x" * 300,
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_only_a_name(commands: Commands, switches: Switches, mc1opt_here, name: str) -> None:
    around = {path.name for path in commands.folder.parent.iterdir()}
    switches.add("hang", **HANGS)
    search = commands.search(more=(f"--name={name}",))
    wait_until_begun(switches, VICTIM, 2)
    search.send_signal(signal.SIGINT)
    stopped = commands.finish(search)
    assert (stopped.code, stopped.stderr) == (130, "")
    # The command that it prints is one that a shell reads as it was given.
    command = resume_command(stopped.stdout)
    assert f"--name={name}" in command
    ended = commands.finish(commands.start(*command[1:]))
    assert (ended.code, ended.stderr) == (0, "")
    record = check(commands.folder, name, Expected(TRIALS))
    assert record.study == name

    shown = mc1opt_here("show", f"--study={name}", "--json")
    assert json.loads(shown.stdout)["study"] == name
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("Look at the best trial:")]
    assert mc1opt_here(*shlex.split(line.partition(":")[2])[1:]).returncode == 0
    for command in (("studies",), ("doctor", "--data", "images")):
        assert mc1opt_here(*command).returncode == 0
    assert {path.name for path in Path("storage").iterdir()} <= {
        "mc1opt.db",
        ".mc1opt.db.lock",
        "reports",
        "checkpoints",
    }
    assert {path.name for path in commands.folder.parent.iterdir()} == around
    assert not Path("executed").exists()
    deleted = mc1opt_here("studies", "delete", "--yes", "--", name)
    assert (deleted.returncode, deleted.stderr) == (0, "")
    assert list(Path("storage/checkpoints").iterdir()) == []
    assert (commands.folder / "images").exists()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["sub dir/'q\"uote'.db", "<b>🐈100%a?b#c.db", "./../other/s.db"])
def test_a_database_may_have_any_path(commands: Commands, mc1opt_here, path: str) -> None:
    Path("here").mkdir()
    ended = commands.finish(commands.search(more=("--storage", f"here/{path}"), trials=2), 60.0)
    assert (ended.code, ended.stderr) == (0, "")
    assert (Path("here") / path).is_file()
    check(commands.folder, "small", Expected(2), storage=f"here/{path}")
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("Look at the best trial:")]
    assert mc1opt_here(*shlex.split(line.partition(":")[2])[1:]).returncode == 0
    told = mc1opt_here("doctor", "--data", "images", "--storage", f"here/{path}")
    assert "1 study" in told.stdout


@pytest.mark.slow
def test_a_study_definition_may_have_any_file_name(commands: Commands, mc1opt_here) -> None:
    names = ['quote\'s "and" <b>', "🐈"]
    for name in names:
        (Path("studies") / f"{name}.py").write_text(SMALL)
        search = commands.start("run", "--study", name, *SEARCH[3:], "--trials", "2", "--workers", "1")
        ended = commands.finish(search)
        assert (ended.code, ended.stderr) == (0, "")
        check(commands.folder, name, Expected(2))
    listed = mc1opt_here("studies", "--json")
    assert set(names) <= {study["name"] for study in json.loads(listed.stdout)["studies"]}
