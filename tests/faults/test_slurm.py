"""Fault 22: Slurm ends the tasks of an array before their time is up, and puts them into its queue again.

`sbatch` is a stand-in: the batch script of the documentation runs in a real bash, each task as a process. As
`--signal=B:TERM@120` says, SIGTERM reaches that bash alone, and not what it has started.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mc1opt.database.studies import read_study
from tests.faults.checker import wait_for_processes
from tests.faults.conftest import CURVES, ROOT, SEARCH, SECONDS, Commands
from tests.support.curves import Switches
from tests.support.postgresql import new_database
from tests.support.studies import counted

TASKS = 3
TOTAL = 12
SCRIPT = f"""#!/bin/bash
mc1opt {" ".join(SEARCH)} --trials {TOTAL} --workers 1 --timeout 10m &
trap 'kill -TERM $!' TERM
wait $!; code=$?
[ $code -gt 128 ] && {{ wait $!; code=$?; }}
[ $code -eq 143 ] && scontrol requeue "$SLURM_JOB_ID"
exit $code
"""


class Slurm:
    """Runs the tasks of an array at once, each in a bash."""

    def __init__(self, folder: Path, storage: str) -> None:
        self._folder = folder
        programs = folder / "bin"
        programs.mkdir()
        driver = f"exec {sys.executable} -m tests.faults.driver '{json.dumps(CURVES)}' \"$@\""
        self._write(programs / "mc1opt", f"#!/bin/sh\n{driver}\n")
        self._write(programs / "scontrol", f'#!/bin/sh\necho "$1 $2" >> {folder}/requeued\n')
        self._write(folder / "search.sbatch", SCRIPT)
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "MC1OPT_STORAGE": storage,
            "MC1OPT_FILES": str(folder / "shared"),
        }

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def start(self, task: int) -> "subprocess.Popen[str]":
        with (self._folder / f"task-{task}.out").open("a") as out:  # --open-mode=append
            return subprocess.Popen(
                [self._folder / "search.sbatch"],
                env=self._environment | {"SLURM_JOB_ID": str(task)},
                stdout=out,
                stderr=out,
                text=True,
                start_new_session=True,
            )

    def requeued(self) -> list[str]:
        """The tasks that have asked for it, since the last call."""
        path = self._folder / "requeued"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return sorted(lines)


@pytest.mark.slow
@pytest.mark.postgresql
def test_an_array_that_slurm_stops_and_requeues_loses_nothing(
    commands: Commands, switches: Switches, postgresql: str
) -> None:
    url = new_database(postgresql)
    slurm = Slurm(commands.folder, url)
    switches.add("sleep", epoch=None, value=0.3)
    tasks = [slurm.start(task) for task in range(TASKS)]
    switches.wait_for_epochs(8, SECONDS)
    for task in tasks:
        task.send_signal(signal.SIGTERM)
    # One that had not begun to search is stopped before it begins, with the same code.
    assert [task.wait(SECONDS) for task in tasks] == [143] * TASKS
    assert slurm.requeued() == [f"requeue {task}" for task in range(TASKS)]
    stopped = read_study(url, "small")
    assert "running" not in {trial.outcome for trial in stopped.trials}
    assert sum(trial.interrupted for trial in stopped.trials) <= TASKS
    switches.clear()
    tasks = [slurm.start(task) for task in range(TASKS)]
    assert [task.wait(SECONDS) for task in tasks] == [0] * TASKS
    assert slurm.requeued() == []
    assert wait_for_processes(commands.folder) == []
    record = read_study(url, "small")
    assert len(counted(record)) == TOTAL
    assert {trial.outcome for trial in record.trials} <= {"complete", "pruned", "duplicate", "too_large"}
    begun = Counter((epoch["seed"], epoch["epoch"]) for epoch in switches.epochs())
    assert sum(begun.values()) - len(begun) <= TASKS  # the epochs within which they were stopped
    assert [*(commands.folder / "shared/checkpoints/small").glob("*.safetensors")]
    assert not [*(commands.folder / "shared").rglob("*.checkpoint")]
    assert not (commands.folder / "storage").exists()
