"""Who runs a trial, and whether it lives."""

import json
import subprocess
import sys
from typing import Any

import pytest

from mc1opt.database import ownership
from mc1opt.database.ownership import is_dead, this_owner
from tests.support.command import wait_until

STARTED = this_owner()["started"] or 0


@pytest.mark.parametrize(
    ("changes", "dead"),
    [
        ({}, False),
        ({"started": STARTED - 1}, True),  # its id was used again
        ({"started": None}, None),
        ({"host": "elsewhere.example"}, None),
        ({"pid_namespace": "pid:[1]", "started": 1}, None),  # in another container the id is another process
        ({"pid_namespace": ...}, False),  # as an older mc1opt stored it
        ({"pid_namespace": ..., "started": STARTED - 1}, True),
    ],
    ids=["itself", "id used again", "no start time", "host", "container", "older", "older, id used again"],
)
def test_a_process_that_differs_from_this_one(changes: dict[str, Any], dead: bool | None) -> None:
    owner = {key: value for key, value in (this_owner() | changes).items() if value is not ...}
    assert is_dead(owner) is dead


def test_nobody_is_dead() -> None:
    assert is_dead(None) is True


def test_an_ended_process_is_dead_and_a_killed_one_before_it_is_waited_for() -> None:
    tell = "import json; from mc1opt.database.ownership import this_owner; print(json.dumps(this_owner()))"
    owner = json.loads(subprocess.run([sys.executable, "-c", tell], capture_output=True, check=True).stdout)
    assert is_dead(owner) is True
    code = f"{tell}; import sys; sys.stdout.flush(); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        owner = json.loads(process.stdout.readline())
        assert is_dead(owner) is False
        process.kill()
        wait_until(lambda: is_dead(owner) is True)
    finally:
        process.communicate()


def test_an_owner_before_the_last_boot_of_the_same_machine_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "_machine_id", lambda: "this one")
    before = {**this_owner(), "boot": "another boot"}
    older = {key: value for key, value in before.items() if key != "machine"}  # as an older mc1opt stored it
    assert is_dead(before) is is_dead(older) is True
    assert is_dead({**before, "machine": "another"}) is None  # with the same name
    monkeypatch.setattr(ownership, "_machine_id", lambda: None)
    assert is_dead(before) is None
