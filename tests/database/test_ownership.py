"""Who runs a trial, and whether it lives."""

import json
import subprocess
import sys
import time

import pytest

from mc1opt.database import ownership
from mc1opt.database.ownership import is_dead, this_owner


def test_this_process_lives() -> None:
    assert is_dead(this_owner()) is False


def test_nobody_is_dead() -> None:
    assert is_dead(None) is True


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


def test_a_process_id_that_was_used_again_is_another_process() -> None:
    owner = this_owner()
    assert is_dead({**owner, "started": (owner["started"] or 0) - 1}) is True


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


def test_nothing_is_said_of_another_container_where_the_same_id_is_another_process() -> None:
    assert is_dead({**this_owner(), "pid_namespace": "pid:[1]", "started": 1}) is None


def test_an_owner_of_an_older_mc1opt_is_told_by_its_process() -> None:
    owner = {key: value for key, value in this_owner().items() if key != "pid_namespace"}
    assert is_dead(owner) is False
    assert is_dead({**owner, "started": (owner["started"] or 0) - 1}) is True


def test_nothing_is_said_where_start_times_are_not_told() -> None:
    assert is_dead({**this_owner(), "started": None}) is None


def test_nothing_is_said_of_another_host() -> None:
    assert is_dead({**this_owner(), "host": "elsewhere.example"}) is None
