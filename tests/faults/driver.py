"""The command `mc1opt` as a process, changed where a fault cannot be had otherwise, or costs less.

    python -m tests.faults.driver '{"trainer": "tests.support.curves:train"}' run --study small ...

The first argument, JSON, says what is changed; all else is the real command:

    trainer              what the workers train with; the real one if it is not given
    checkpoint_seconds   how often a running trial's state is written, at most
    dashboard            false: nothing is written for the dashboard, which takes seconds of every search
    modules              {"module": {"NAME": value}}: constants that are waiting times
    host                 the host's name, as if this process ran on another machine
"""

import dataclasses
import importlib
import json
import socket
import sys
from typing import Any


def change(changes: dict[str, Any]) -> None:
    """Makes the changes in this process."""
    if "host" in changes:
        socket.gethostname = lambda: changes["host"]
    for module, constants in changes.get("modules", {}).items():
        for name, value in constants.items():
            assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"
            setattr(sys.modules[module], name, value)
    change_search(changes)


def change_search(changes: dict[str, Any]) -> None:
    """Has `search` called with other arguments than the command line gives it."""
    from mc1opt.search import command

    search, run_search = command.search, command.run_search

    def search_with(*arguments: Any, **more: Any) -> Any:
        if "trainer" in changes:
            more["trainer"] = changes["trainer"]
        if not changes.get("dashboard", True):
            more["observers"] = ()
        return search(*arguments, **more)

    def run_with(definition: Any, settings: Any, *rest: Any, **more: Any) -> Any:
        if "checkpoint_seconds" in changes:
            settings = dataclasses.replace(settings, checkpoint_seconds=changes["checkpoint_seconds"])
        return run_search(definition, settings, *rest, **more)

    command.search, command.run_search = search_with, run_with


if __name__ == "__main__":
    change(json.loads(sys.argv[1]))
    sys.argv = ["mc1opt", *sys.argv[2:]]
    from mc1opt.cli.main import main

    main()
