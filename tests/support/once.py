"""Folders that are filled once for a whole run of the tests, however many processes run them."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, fill: Callable[[Path], object]) -> Path:
    """The folder `name`, which `fill` has filled as the current folder: not to be changed.

    The processes of pytest-xdist wait for the first of them instead of doing its work again. One that fails
    leaves its folder as it is, and the next one tries in another.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / f"{name}-once"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(unfinished)
                patch.setenv("MC1OPT_DATA", str(unfinished / "cache"))
                fill(unfinished)
            unfinished.rename(folder)
    return folder
