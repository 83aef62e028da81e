"""A process is ended with all that it started, wherever that has gone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from mc1opt.mirror.process_tree import descendants, kill_descendants, kill_tree

SECONDS = 30.0
FAMILY = """
import subprocess, sys, time
grandchild = "import time; print('grown', flush=True); time.sleep(600)"
child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
time.sleep(600)
"""
"""A process whose child is in a session of its own, as wandb's service is, and has a child itself."""


@pytest.fixture
def family() -> Iterator["subprocess.Popen[str]"]:
    parent = subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "grown\n"
    yield parent
    kill_tree(parent.pid)
    parent.wait()
    parent.stdout.close()


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + SECONDS
    while alive := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"still there: {alive}"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """A zombie has ended: nobody has asked for its exit status yet."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(shown.stdout.strip()) and not shown.stdout.strip().startswith("Z")


def test_descendants_are_found_across_groups(family: "subprocess.Popen[str]") -> None:
    child, grandchild = descendants(family.pid)
    assert os.getpgid(child) == child != os.getpgid(family.pid)
    assert descendants(child) == [grandchild]


def test_a_tree_is_killed_to_the_last_process(family: "subprocess.Popen[str]") -> None:
    below = descendants(family.pid)
    kill_tree(family.pid)
    assert family.wait(SECONDS) == -signal.SIGKILL
    wait_until_gone(below)


def test_a_process_that_kills_what_it_started_goes_on(family: "subprocess.Popen[str]") -> None:
    below = descendants(family.pid)
    kill_descendants(family.pid)
    wait_until_gone(below)
    assert is_alive(family.pid)


def test_a_process_whose_name_is_no_text_disturbs_nobody() -> None:
    """The kernel cuts a name off after 15 bytes, perhaps within a character."""
    name = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'caf\\xc3', 0, 0, 0); print(flush=True)"
    child = subprocess.Popen([sys.executable, "-c", f"{name}; time.sleep(60)"], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in descendants(os.getpid())
    finally:
        child.kill()
        child.communicate()


def test_one_that_has_ended_has_no_descendants() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert descendants(ended.pid) == []
    kill_tree(ended.pid)
