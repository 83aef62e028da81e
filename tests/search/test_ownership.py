"""Who runs a trial, and whether it lives."""

import subprocess
import sys

from mc1opt.search.ownership import is_dead, this_owner


def test_this_process_lives() -> None:
    assert is_dead(this_owner()) is False


def test_nobody_is_dead() -> None:
    assert is_dead(None) is True


def test_an_ended_process_is_dead() -> None:
    code = "import json; from mc1opt.search.ownership import this_owner; print(json.dumps(this_owner()))"
    import json

    owner = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert is_dead(owner) is True


def test_a_killed_process_that_nobody_waited_for_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    owner = {**this_owner(), "pid": process.pid, "started": None}
    process.kill()
    try:
        # A zombie has no start time of a living process.
        import time

        deadline = time.monotonic() + 10
        started = {**owner, "started": 1}
        while is_dead(started) is False and time.monotonic() < deadline:
            time.sleep(0.01)
        assert is_dead(started) is True
    finally:
        process.wait()


def test_a_process_id_that_was_used_again_is_another_process() -> None:
    owner = this_owner()
    assert is_dead({**owner, "started": (owner["started"] or 0) - 1}) is True


def test_an_owner_before_the_last_boot_is_dead() -> None:
    assert is_dead({**this_owner(), "boot": "another boot"}) is True


def test_nothing_is_said_of_another_host() -> None:
    assert is_dead({**this_owner(), "host": "elsewhere.example"}) is None
