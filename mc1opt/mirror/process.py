"""The process that speaks to W&B, as its parent sees it: started, listened to, killed at its limit.

wandb has hung for good, also offline. So nothing of it runs here: a process of its own writes the runs and
says what it did, and it ends at the limit with all that it started.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from mc1opt.mirror.messages import SCRATCH, MirrorEvent, MirrorTask
from mc1opt.mirror.process_tree import kill_tree
from mc1opt.workers.child import search_path
from mc1opt.workers.protocol import LineBuffer

MODULE = "mc1opt.mirror.writer"
POLL_SECONDS = 0.02
REAP_SECONDS = 1.0
"""How long a killed process may take to end: only one that hangs inside the system takes any time."""
TAIL_BYTES = 2000

PASSED_ON = (
    "WANDB_API_KEY",
    "WANDB_APP_URL",
    "WANDB_BASE_URL",
    "WANDB_CONFIG_DIR",
    "WANDB_CREDENTIALS_FILE",
    "WANDB_ENTITY",
    "WANDB_IDENTITY_TOKEN_FILE",
    "WANDB_INSECURE_DISABLE_SSL",
)
"""W&B's environment variables that count for a mirror: whose account, and on which server. The others would
move the runs, rename them, or have a script's code and console uploaded."""


@dataclass(frozen=True)
class Limits:
    """How long a mirroring may take, in seconds."""

    step: float
    """Without any progress: until it has begun, for each run, for each upload."""
    total: float | None = None
    """In all; None where it may go on as long as it makes progress."""


@dataclass
class MirrorOutcome:
    """What a mirroring has done."""

    written: list[str] = field(default_factory=list)
    """Ids of runs, in their order."""
    uploaded: list[str] = field(default_factory=list)
    no_login: bool = False
    """Whether it stayed offline for want of a login."""
    error: str | None = None
    """Why not all was done, as a part of a sentence; None if it was."""


class MirrorProcess:
    """A mirroring in progress. Nothing but `finish` waits for it.

    Args:
        task: what it shall do.
        limits: when it is killed.
        module: what is run; tests put another one in its place.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, task: MirrorTask, limits: Limits, *, module: str = MODULE) -> None:
        self._limits = limits
        self._started = self._heard = time.monotonic()
        self._lines = LineBuffer()
        self._tail = b""
        self._done = False
        self._finished = False
        self._outcome = MirrorOutcome()
        self._scratch = tempfile.mkdtemp(prefix=SCRATCH)
        try:
            # A file rather than a pipe: it holds a task of any size, and nobody waits for a reader.
            path = Path(self._scratch, "task.json")
            path.write_text(task.model_dump_json())
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, "--task", str(path)],
                # Never written to: its end tells the process that this one is gone.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                cwd=self._scratch,  # W&B reads config-defaults.yaml and more, if it lies where it is started
                env=environment(Path(task.folder), self._scratch),
                # Its own session: a terminal's Ctrl-C does not reach it.
                start_new_session=True,
            )
        except OSError:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdout.fileno(), False)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def poll(self) -> MirrorOutcome | None:
        """What it has done, once it has ended; None while it works. Kills it at its limit. Does not wait."""
        if self._finished:
            return self._outcome
        # Its end is no end of the pipe where a child of it lives on.
        exited = self._process.poll() is not None
        ended = self._listen() or self._done or exited
        now = time.monotonic()
        total = self._limits.total
        if ended:
            self._end(None)
        elif total is not None and now - self._started >= total:
            self._end(f"it took longer than {total:g} s")
        elif now - self._heard >= self._limits.step:
            self._end(f"there was no progress for {self._limits.step:g} s")
        return self._outcome if self._finished else None

    def finish(self) -> MirrorOutcome:
        """Waits for its end, which comes at its limit at the latest."""
        while (outcome := self.poll()) is None:
            time.sleep(POLL_SECONDS)
        return outcome

    def kill(self) -> None:
        """Ends it at once, with all that it started. Safe to repeat."""
        if not self._finished:
            self._end("it was stopped")

    def _listen(self) -> bool:
        """Takes what it has said; True if it says nothing more."""
        try:
            while piece := os.read(self._stdout.fileno(), 65536):
                self._lines.feed(piece)
                self._take_lines()
        except BlockingIOError:
            return False
        return True

    def _take_lines(self) -> None:
        while (line := self._lines.next_line()) is not None:
            try:
                event = MirrorEvent.model_validate_json(line)
            except ValidationError:
                self._tail = (self._tail + line + b"\n")[-TAIL_BYTES:]  # a traceback, from before its start
                continue
            self._heard = time.monotonic()
            self._take(event)

    def _take(self, event: MirrorEvent) -> None:
        outcome = self._outcome
        if event.what == "written" and event.run is not None:
            outcome.written.append(event.run)
        elif event.what == "uploaded" and event.run is not None:
            outcome.uploaded.append(event.run)
        elif event.what == "no_login":
            outcome.no_login = True
        elif event.what == "failed":
            outcome.error = event.message
        elif event.what == "done":
            self._done = True

    def _end(self, error: str | None) -> None:
        """Kills what is left, reaps the process, and settles what came of it."""
        self._finished = True
        if self._process.poll() is None:
            kill_tree(self._process.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(REAP_SECONDS)
        for pipe in (self._stdin, self._stdout):
            pipe.close()
        shutil.rmtree(self._scratch, ignore_errors=True)
        if self._done:
            return
        last = self._tail.decode(errors="replace").strip().split("\n")[-1]
        unsaid = error or f"it ended before its work was done{f' ({last})' if last else ''}"
        self._outcome.error = self._outcome.error or unsaid


def environment(folder: Path, scratch: str) -> dict[str, str]:
    """The environment of the mirroring process: ours, with W&B's own variables as a mirror needs them.

    Args:
        folder: where the runs lie.
        scratch: a folder for what is of no use afterwards.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("WANDB_") or name in PASSED_ON
    }
    return kept | {
        "PYTHONPATH": search_path(),
        "TMPDIR": scratch,
        "WANDB_DIR": str(folder.parent),
        "WANDB_CACHE_DIR": scratch,
        "WANDB_DATA_DIR": scratch,
        "WANDB_ARTIFACT_DIR": scratch,
        "WANDB_CONSOLE": "off",
        "WANDB_DISABLE_CODE": "true",
        "WANDB_DISABLE_GIT": "true",
        "WANDB_ERROR_REPORTING": "false",  # which go over the network
        "WANDB_SILENT": "true",
    }
