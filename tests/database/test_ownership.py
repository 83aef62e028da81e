"""Who runs a trial, and whether it lives."""

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from mc1opt.database import ownership
from mc1opt.database.ownership import alive, is_dead, this_owner


def test_nobody_is_dead() -> None:
    assert is_dead(None) is True


OTHER = {"started": (this_owner()["started"] or 0) - 1}
"""Another process, which had the id of this one."""


@pytest.mark.parametrize(
    ("changes", "dead"),
    [
        ({}, False),
        (OTHER, True),
        ({"started": None}, None),
        ({"host": "elsewhere.example"}, None),
        (OTHER | {"pid_namespace": "pid:[1]"}, None),
    ],
    ids=["this process", "the id used again", "no start times", "another host", "another container"],
)
def test_an_owner_is_judged_only_by_what_distinguishes_processes(
    changes: dict[str, Any], dead: bool | None
) -> None:
    assert is_dead(this_owner() | changes) is dead


@pytest.mark.parametrize(("changes", "dead"), [({}, False), (OTHER, True)])
def test_owners_that_were_stored_without_a_namespace_are_judged(changes: dict[str, Any], dead: bool) -> None:
    stored = {key: value for key, value in this_owner().items() if key != "pid_namespace"}
    assert is_dead(stored | changes) is dead


def test_an_ended_process_is_dead() -> None:
    code = "import json; from mc1opt.database.ownership import this_owner; print(json.dumps(this_owner()))"
    owner = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert is_dead(owner) is True


def test_a_killed_process_that_nobody_waited_for_is_dead() -> None:
    tell = "import json; from mc1opt.database.ownership import this_owner; print(json.dumps(this_owner()))"
    code = f"{tell}; import sys; sys.stdout.flush(); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        owner = json.loads(process.stdout.readline())
        assert is_dead(owner) is False
        process.kill()
        deadline = time.monotonic() + 10
        while not is_dead(owner) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert is_dead(owner) is True
    finally:
        process.communicate()


def test_an_owner_before_the_last_boot_of_the_same_machine_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "_machine_id", lambda: "this one")
    before = {**this_owner(), "boot": "another boot"}
    assert is_dead(before) is True
    assert (
        is_dead({key: value for key, value in before.items() if key != "machine"}) is True
    )  # an older mc1opt
    assert is_dead({**before, "machine": "another"}) is None  # with the same name


def test_where_machines_have_no_id_a_boot_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "_machine_id", lambda: None)
    assert is_dead({**this_owner(), "boot": "another boot"}) is None


def test_an_attempt_is_dead_once_it_has_ended_though_its_process_lives() -> None:
    first, second = this_owner(), this_owner()
    assert first != second
    with alive(first), alive(second):
        assert is_dead(first) is False
    assert is_dead(first) is True
    with alive(first):  # the same search goes on
        assert is_dead(first) is False
        assert is_dead(second) is True


def test_an_attempt_is_dead_after_an_error_too() -> None:
    owner = this_owner()
    with pytest.raises(ArithmeticError), alive(owner):
        raise ArithmeticError
    assert is_dead(owner) is True
    assert is_dead({key: value for key, value in owner.items() if key != "attempt"}) is False
