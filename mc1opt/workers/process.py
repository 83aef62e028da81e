"""The worker process: reads trainings from standard input, trains them, and sends the results.

`child.py` starts it as `python -m mc1opt.workers.process --trainer module:function`. It trains many trainings
one after the other, so that torch is imported once. It ignores SIGINT and SIGTERM, since its parent decides
when it ends, and it ends with its parent, even in the middle of an epoch. On `INTERRUPT_SIGNAL` it raises
KeyboardInterrupt in the trainer, which may write a checkpoint, and ends. Not here: how to train (the
trainer), and what to do about a failure (the pool).
"""

import argparse
import contextlib
import ctypes
import faulthandler
import gc
import importlib
import logging
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from mc1opt.config import CustomNetwork
from mc1opt.errors import Mc1optError, NetworkError
from mc1opt.spec import EpochResult, FailureKind, Training, TrainingFailed
from mc1opt.workers.protocol import (
    INTERRUPT_SIGNAL,
    Command,
    EpochDone,
    Failed,
    Finished,
    LineBuffer,
    Message,
    Ready,
    Stop,
    Train,
    Warned,
    decode_command,
    encode,
    write_all,
)

Trainer = Callable[[Training], Iterator[EpochResult]]

TRACEBACK_CHARACTERS = 8000
"""Characters of a traceback, from its end, that are sent: recursion makes tracebacks long."""

OOM_SCORE = 500
"""Added to the worker's OOM score, in thousandths of the machine's memory."""

_PR_SET_PDEATHSIG = 1  # from Linux' <sys/prctl.h>

# torch reports out of memory in several ways; these are parts of a RuntimeError's message.
_OUT_OF_MEMORY_TEXTS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)


class Link:
    """The two pipes to the parent, taken from standard input and output.

    Libraries then print to standard error, and find standard input empty. A thread reads the commands, and
    ends this process at once when the parent closes the pipe or ends.
    """

    def __init__(self) -> None:
        # Plain descriptors: the interpreter would close a file object while it ends, and the parent takes the
        # end of the message pipe for the end of the process. Children do not inherit copies by `os.dup`.
        self._input = os.dup(0)
        self._output = os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        threading.Thread(target=self._read_commands, name="commands", daemon=True).start()

    def send(self, message: Message) -> None:
        """Sends a message; ends the process if the parent is gone."""
        try:
            write_all(self._output, encode(message))
        except OSError:
            os._exit(1)

    def next_command(self) -> Command:
        """Waits for the next command."""
        return self._commands.get()

    def _read_commands(self) -> None:
        lines = LineBuffer()
        try:
            while piece := os.read(self._input, 65536):
                lines.feed(piece)
                while (line := lines.next_line()) is not None:
                    self._commands.put(decode_command(line))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)


class _Forward(logging.Handler):
    """Sends warnings of mc1opt's own code to the parent."""

    def __init__(self, link: Link) -> None:
        super().__init__(logging.WARNING)
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        self._link.send(Warned(message=record.getMessage()))


def load_trainer(name: str) -> Trainer:
    """Imports the function that `module:function` names.

    Raises:
        ImportError, AttributeError: there is no such module or function.
        Exception: any that the module raises.
    """
    module, _, function = name.partition(":")
    trainer: Trainer = getattr(importlib.import_module(module), function)
    return trainer


def serve(link: Link, trainer: Trainer) -> NoReturn:
    """Trains the parent's trainings one after the other, until the parent ends the process."""
    link.send(Ready())
    while True:
        command = link.next_command()
        if not isinstance(command, Train):
            raise RuntimeError(f"got {command.type!r} while no training is in progress")
        outcome = _train(link, trainer, command.training)
        # The training's frames are gone, so this frees its tensors.
        del command
        try:
            _free_memory()
        finally:
            link.send(outcome)  # even if freeing failed because the GPU is broken, which ends this process


def _train(link: Link, trainer: Trainer, training: Training) -> Message:
    epochs: Iterator[EpochResult] = iter(())
    try:
        epochs = trainer(training)
        for result in epochs:
            link.send(EpochDone(result=result))
            if isinstance(link.next_command(), Stop):
                # A generator's clean-up runs now, not when it is garbage-collected.
                if (close := getattr(epochs, "close", None)) is not None:
                    close()
                break
    except TrainingFailed as error:
        return Failed(kind=error.kind, message=error.message)
    except NetworkError as error:
        return Failed(kind="network", message=str(error))
    except Mc1optError as error:
        return Failed(kind="crashed", message=str(error))
    except Exception as error:
        network = training.config.architecture
        if _is_out_of_memory(error):
            kind: FailureKind = "out_of_memory"
        elif isinstance(network, CustomNetwork) and not isinstance(error, OSError):
            from mc1opt.models.custom import network_raised

            return Failed(kind="network", message=network_raised(network, error))
        else:
            kind = "crashed"
        text = "".join(traceback.format_exception(error))[-TRACEBACK_CHARACTERS:]
        return Failed(kind=kind, message=f"{type(error).__name__}: {error}", traceback=text)
    except KeyboardInterrupt as interrupt:
        # Between two epochs the trainer has not seen the interrupt.
        if (throw := getattr(epochs, "throw", None)) is not None:
            with contextlib.suppress(BaseException):
                throw(interrupt)
        raise
    return Finished()


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")  # if it is not imported, the error is not torch's
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _interrupt(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one would interrupt the writing of the checkpoint
    raise KeyboardInterrupt


def _end_with(parent: int) -> None:
    """Makes Linux kill this process when its parent ends, in case the end of its input comes too late.

    That happens if another process holds the pipe open, or a computation blocks the thread that reads it.
    """
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        except (OSError, AttributeError):
            return
        if os.getppid() != parent:  # the parent ended before the call
            os._exit(1)


def _be_the_first_to_go() -> None:
    """Makes Linux, when out of memory, kill a worker rather than the process that runs the search."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def main() -> NoReturn:
    """Loads the trainer and serves; on failure, exits with code 1 and the reason on standard error."""
    parser = argparse.ArgumentParser(description="A worker process of mc1opt; not to be started by hand.")
    parser.add_argument("--trainer", required=True, metavar="MODULE:FUNCTION")
    parser.add_argument("--parent", required=True, type=int, metavar="PID")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(INTERRUPT_SIGNAL, _interrupt)
    _end_with(arguments.parent)
    _be_the_first_to_go()
    link = Link()
    stdout: TextIO = sys.stdout
    if hasattr(stdout, "reconfigure"):
        stdout.reconfigure(line_buffering=True)  # keeps the last output of a process that dies
    faulthandler.enable()
    logging.getLogger("mc1opt").addHandler(_Forward(link))
    try:
        serve(link, load_trainer(arguments.trainer))
    except Mc1optError as error:
        print(error, file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        os._exit(0)
    except Exception:
        traceback.print_exc()
    os._exit(1)  # the interpreter's own exit is slow, and risky with library threads


if __name__ == "__main__":
    main()
