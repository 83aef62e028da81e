"""Stands in for the process that speaks to W&B: does what the project of its task names. Run with `-m`."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from mc1opt.mirror.messages import MirrorEvent, MirrorTask

PIECES = 3


def tell(**fields: object) -> None:
    print(MirrorEvent(**fields).model_dump_json(), flush=True)


def hang() -> NoReturn:
    while True:
        time.sleep(60.0)


def main() -> None:
    task = MirrorTask.model_validate_json(Path(sys.argv[2]).read_text())
    folder, act = Path(task.folder), task.project
    tell(what="begun")
    if act == "hangs":
        # As wandb does it: in a session of its own.
        waits = [sys.executable, "-c", "import time; time.sleep(600)"]
        child = subprocess.Popen(waits, start_new_session=True)
        (folder / "pids").write_text(f"{os.getpid()} {child.pid}")
        tell(what="written", run="first")
        hang()
    if act in ("makes progress", "is slow"):
        for number in range(PIECES):
            time.sleep(2.5 if act == "is slow" else 0.1)
            tell(what="written", run=str(number))
    if act == "breaks":
        raise RuntimeError("no such thing")
    if act == "chatters":
        print("wandb: loading\n{}\n[1, 2", flush=True)
        print("wandb: an error", file=sys.stderr, flush=True)
    if act == "fails":
        tell(what="uploaded", run="first")
        tell(what="no_login")
        tell(what="failed", message="the disk is full")
    if act == "shows its environment":
        (folder / "environment").write_text(json.dumps(dict(os.environ)))
    if act == "shows its task":
        (folder / "task").write_text(task.model_dump_json())
    tell(what="done")
    if act == "hangs at its end":
        hang()


if __name__ == "__main__":
    main()
