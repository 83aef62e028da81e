"""One process at a time in a folder."""

import fcntl
from pathlib import Path

import pytest

from mc1opt.errors import StorageError, UsageError
from mc1opt.exclusive import exclusive

FOLDER = Path("a/b")


def test_a_folder_that_another_process_holds_is_refused_and_free_afterwards() -> None:
    FOLDER.mkdir(parents=True)
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="they are busy"), exclusive(FOLDER, "they are busy"):
            pass
    with exclusive(FOLDER, "they are busy"):
        pass


def test_it_is_made_if_need_be_and_held_within_the_context_only() -> None:
    with exclusive(FOLDER, "busy"):
        assert FOLDER.is_dir()
        with pytest.raises(UsageError), exclusive(FOLDER, "busy"):
            pass
    with exclusive(FOLDER, "busy"):
        pass


def test_a_folder_that_cannot_be_made_is_named() -> None:
    Path("a").write_text("")
    with pytest.raises(StorageError, match="a/b cannot be written"), exclusive(FOLDER, "busy"):
        pass
