"""One worker process as its parent sees it: started, spoken to, listened to, killed and reaped.

Not here: assigning trainings and replacing dead workers (`pool.py`), and what happens inside the worker
(`process.py`). No torch.
"""

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time

from mc1opt.machine.resources import memory_kills
from mc1opt.program import search_path
from mc1opt.spec import FailureKind
from mc1opt.workers.protocol import (
    INTERRUPT_SIGNAL,
    Command,
    Failed,
    Finished,
    LineBuffer,
    Message,
    Ready,
    Train,
    Warned,
    decode_message,
    encode,
    write_all,
)

logger = logging.getLogger(__name__)

TAIL_BYTES = 4096
"""Bytes of a worker's standard error, from its end, that are kept for the message about its death."""

REAP_SECONDS = 10.0
"""Seconds that a killed process has to end: it takes long only if it hangs in a system call."""

# After these failures the process is not used again: most errors break a CUDA context, and a full heap is
# fragmented.
_SPOILING: tuple[FailureKind, ...] = ("crashed", "out_of_memory")


def leaves_usable(message: Message | None) -> bool:
    """Whether a training has ended with this message in a way that the worker can take another one."""
    return isinstance(message, Finished) or (isinstance(message, Failed) and message.kind not in _SPOILING)


class WorkerDied(Exception):  # noqa: N818  (caught by the pool, which makes a result or an error of it)
    """A worker process ended, or sent an invalid message."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind: FailureKind = kind
        self.message = message


class Child:
    """A worker process and the pipes to it. Only one thread at a time may use it; any may `kill` it.

    The thread that creates it must outlive the worker: on Linux the process is killed when the thread that
    started it ends (prctl's PR_SET_PDEATHSIG refers to the thread, not the process).

    Args:
        trainer: "module:function", imported by the worker.
        threads: number of threads for OpenMP and MKL, set before torch is imported.
        gpu: the only GPU that it sees, in the words of CUDA_VISIBLE_DEVICES; None for what this process sees.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(self, trainer: str, threads: int, gpu: str | None = None) -> None:
        self.gpu = gpu
        self.ready = False
        """Whether it has sent `Ready`."""
        self.busy = False
        """In a training, or made unusable by one."""
        self._kills = memory_kills()
        self._lines = LineBuffer()
        self._tail = bytearray()
        self._lock = threading.Lock()
        count = str(threads)
        self._process = subprocess.Popen(
            # -P: search the current folder for modules only if `search_path` has it.
            [
                sys.executable,
                "-P",
                "-m",
                "mc1opt.workers.process",
                "--trainer",
                trainer,
                "--parent",
                str(os.getpid()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=os.environ
            | {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "PYTHONPATH": search_path()}
            | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}),
            # Its own session: Ctrl-C does not reach it, and its whole process group can be killed.
            start_new_session=True,
        )
        pipes = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._stdin, self._stdout, self._stderr = (pipe for pipe in pipes if pipe is not None)
        os.set_blocking(self._stderr.fileno(), False)
        self._poll = select.poll()
        self._poll.register(self._stdout, select.POLLIN)
        self._poll.register(self._stderr, select.POLLIN)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def closed(self) -> bool:
        """Whether its pipes are closed: it has ended, or will now."""
        return self._stdout.closed

    @property
    def usable(self) -> bool:
        """Whether it can take a training."""
        return self.ready and not self.busy and not self.closed

    def send(self, command: Command) -> None:
        """Sends a command.

        Raises:
            WorkerDied: the process has ended.
        """
        if isinstance(command, Train):
            self.busy = True
            self._kills = memory_kills()
            self._tail.clear()
        try:
            write_all(self._stdin.fileno(), encode(command))
        except (OSError, ValueError):  # ValueError: this process has closed the pipe
            raise self._death() from None

    def receive(self, seconds: float) -> Message | None:
        """Waits for the next message; None if none came within `seconds`. Warnings go to the log.

        Raises:
            WorkerDied: the process has ended or sent an invalid message. It is then reaped, and its pipes
                are closed.
        """
        deadline = time.monotonic() + seconds
        while isinstance(message := self._next_message(deadline), Warned):
            logger.warning("%s", message.message)
        self.ready |= isinstance(message, Ready)
        if leaves_usable(message):
            self.busy = False
        return message

    def _next_message(self, deadline: float) -> Message | None:
        while (line := self._lines.next_line()) is None:
            if self._stdout.closed:
                raise self._death()
            ready = self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                return None
            descriptors = {fd for fd, _ in ready}
            if self._stderr.fileno() in descriptors and not self._read_stderr():
                self._poll.unregister(self._stderr)
            if self._stdout.fileno() in descriptors:
                piece = os.read(self._stdout.fileno(), 65536)
                if not piece:
                    raise self._death()
                self._lines.feed(piece)
        try:
            return decode_message(line)
        except ValueError:
            self.close()
            raise WorkerDied("crashed", f"the worker sent an invalid message: {line[:200]!r}") from None

    def interrupt(self, seconds: float) -> None:
        """Makes the worker write its training's checkpoint and end; kills it after `seconds`, and closes."""
        with self._lock:
            if self._process.returncode is None:
                self._process.send_signal(INTERRUPT_SIGNAL)
        self.wait_for_end(seconds)

    def kill(self) -> None:
        """Kills the process and all that it started, from any thread, without closing or reaping."""
        with self._lock:
            # Until the process is reaped, its id is not reused.
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Kills the process if it is alive, and reaps it. Safe to repeat."""
        # The signal does not change the exit status of a process that is already ending.
        self.kill()
        with self._lock, contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(REAP_SECONDS)

    def close(self) -> None:
        """Kills and reaps the process and closes the pipes. Safe to repeat."""
        self.reap()
        if not self._stdout.closed:
            self._read_stderr()
        for pipe in (self._stdin, self._stdout, self._stderr):
            pipe.close()

    def hang_up(self) -> None:
        """Asks the process to end, by closing its standard input; `close` must follow."""
        self._stdin.close()

    def wait_for_end(self, seconds: float) -> None:
        """Waits up to `seconds` for the process to end by itself, then closes."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(WorkerDied):
            while (left := deadline - time.monotonic()) > 0:
                self.receive(left)
        self.close()

    def _read_stderr(self) -> bool:
        """Reads what is available; False at the end of the pipe."""
        try:
            while piece := os.read(self._stderr.fileno(), 65536):
                self._tail += piece
                del self._tail[:-TAIL_BYTES]
        except BlockingIOError:
            return True
        return False

    def _death(self) -> WorkerDied:
        """Closes, and describes how the process ended."""
        self.close()
        status = self._process.returncode
        kind: FailureKind = "crashed"
        if status is None:
            text = f"the worker (process {self.pid}) does not respond, and does not end when killed"
        elif status < 0:
            text = f"the worker (process {self.pid}) was ended by {_signal_name(-status)}"
            if status == -signal.SIGKILL and memory_kills() != self._kills:
                kind = "out_of_memory"
                text += ", because the system or its memory limit ran out of memory"
            elif status == -signal.SIGKILL:
                kind = "killed"
                text += ", by a person or another program"
        else:
            text = f"the worker (process {self.pid}) ended with exit code {status}"
        tail = self._tail.decode(errors="replace").strip()
        return WorkerDied(kind, f"{text}; its last output:\n{tail}" if tail else text)


def block_signals() -> None:
    """For the thread that starts children: they ignore SIGINT and SIGTERM before Python has started, too."""
    # A process inherits the signal mask of the thread that starts it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
