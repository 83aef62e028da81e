"""The worker process: trains what it is told over its standard input, and tells what came of it.

Started by `child.py` as `python -m mc1opt.workers.process --trainer module:function`. It serves many
trainings one after the other, so that the import of torch is paid once. It ignores SIGINT and SIGTERM, since
its parent decides when it ends, and it ends with its parent, also in the middle of an epoch. At
`INTERRUPT_SIGNAL` it raises KeyboardInterrupt in the trainer, which may write a checkpoint, and ends. Not
here: how to train (the trainer), and what to do about a failure (the pool).
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

from mc1opt.errors import Mc1optError
from mc1opt.spec import EpochResult, Training, TrainingFailed
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
"""So much of a traceback's end is sent: recursion makes them long."""

OOM_SCORE = 500
"""Of 1000 points: as if the worker held half of the machine's memory beside what it holds."""

_PR_SET_PDEATHSIG = 1  # from Linux' <sys/prctl.h>

# torch says that memory is short in different ways; these texts are parts of a RuntimeError's message.
_OUT_OF_MEMORY_TEXTS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)


class Link:
    """The two pipes to the parent, taken away from standard input and output.

    What libraries print goes to standard error then, and what reads standard input finds it empty. From its
    making on a thread reads the commands; when the parent closes the pipe, or ends, the thread ends this
    process at once.
    """

    def __init__(self) -> None:
        # Plain descriptors: a file object would be closed while the interpreter ends, and the parent takes
        # the end of the message pipe for the end of the process. `os.dup` makes copies that children don't
        # inherit.
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
    """Sends warnings of mc1opt's own code to the parent, which people look at."""

    def __init__(self, link: Link) -> None:
        super().__init__(logging.WARNING)
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        self._link.send(Warned(message=record.getMessage()))


def load_trainer(name: str) -> Trainer:
    """Imports the function that `module:function` names.

    Raises:
        ImportError, AttributeError: there is no such module or function; whatever the module raises.
    """
    module, _, function = name.partition(":")
    trainer: Trainer = getattr(importlib.import_module(module), function)
    return trainer


def serve(link: Link, trainer: Trainer) -> NoReturn:
    """Trains what the parent asks for, one training after the other, until the parent ends the process."""
    link.send(Ready())
    while True:
        command = link.next_command()
        if not isinstance(command, Train):
            raise RuntimeError(f"got {command.type!r} while no training is in progress")
        outcome = _train(link, trainer, command.training)
        # The frames of the training are gone here, so that this frees its tensors.
        del command
        try:
            _free_memory()
        finally:
            link.send(outcome)  # also where the GPU is in no state to go on: this process ends then


def _train(link: Link, trainer: Trainer, training: Training) -> Message:
    epochs: Iterator[EpochResult] = iter(())
    try:
        epochs = trainer(training)
        for result in epochs:
            link.send(EpochDone(result=result))
            if isinstance(link.next_command(), Stop):
                # A generator's own clean-up runs now, not when it happens to be collected.
                if (close := getattr(epochs, "close", None)) is not None:
                    close()
                break
    except TrainingFailed as error:
        return Failed(kind=error.kind, message=error.message)
    except Mc1optError as error:
        return Failed(kind="crashed", message=str(error))
    except Exception as error:
        kind = "out_of_memory" if _is_out_of_memory(error) else "crashed"
        text = "".join(traceback.format_exception(error))[-TRACEBACK_CHARACTERS:]
        return Failed(kind=kind, message=f"{type(error).__name__}: {error}", traceback=text)
    except KeyboardInterrupt as interrupt:
        # It may have come between two epochs; the trainer shall know of it then, too.
        if (throw := getattr(epochs, "throw", None)) is not None:
            with contextlib.suppress(BaseException):
                throw(interrupt)
        raise
    return Finished()


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")  # a trainer that has not imported it has not raised its errors
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _interrupt(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once: a second one would end the writing that the first began
    raise KeyboardInterrupt


def _end_with(parent: int) -> None:
    """Has Linux kill this process when its parent ends, should the end of its input come too late.

    That is the case when some other process holds the pipe open, or when a computation does not let the
    thread that reads it run.
    """
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        except (OSError, AttributeError):
            return
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)


def _be_the_first_to_go() -> None:
    """Where memory runs out, Linux shall kill a worker, and not the process that knows of all trials."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def main() -> NoReturn:
    """Loads the trainer and serves; ends with exit code 1 and the reason on standard error if it cannot."""
    parser = argparse.ArgumentParser(description="A worker process of mc1opt; started by it, not by people.")
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
        stdout.reconfigure(line_buffering=True)  # what was printed last is wanted when the process dies
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
    os._exit(1)  # without the interpreter's slow and, with threads of libraries, risky way out


if __name__ == "__main__":
    main()
