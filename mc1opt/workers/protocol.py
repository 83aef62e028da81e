"""What a pool and its worker processes say to each other: one JSON object a line, over two pipes.

The pool sends commands: `Train`, then `Continue` or `Stop` after each epoch. The worker sends messages:
`Ready` once, then for each training an `EpochDone` an epoch and at last `Finished` or `Failed`; `Warned` may
come at any time. Not here: who starts the processes (`child.py`), who trains (`process.py`), and anything
that needs torch.
"""

import os
import signal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from mc1opt.spec import EpochResult, FailureKind, Training

INTERRUPT_SIGNAL = signal.SIGUSR1
"""Has a worker give its training up, with its checkpoint written, and end. A command would come too late: it
is read between two epochs."""


class TrainingInterrupted(Exception):  # noqa: N818  (the pool was told to stop: nothing went wrong)
    """A training was given up because the pool was interrupted or closed. The config is not to blame."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


# ---- Commands: from the pool to the worker ---------------------------------------------------------------


class Train(_Line):
    """Begin a training. Sent only to a worker that is ready and not training."""

    type: Literal["train"] = "train"
    training: Training


class Continue(_Line):
    """Train the next epoch, or end if that was the last."""

    type: Literal["continue"] = "continue"


class Stop(_Line):
    """Give the training up; the worker answers `Finished`."""

    type: Literal["stop"] = "stop"


Command = Annotated[Train | Continue | Stop, Field(discriminator="type")]


# ---- Messages: from the worker to the pool ---------------------------------------------------------------


class Ready(_Line):
    """The worker has loaded its trainer and waits for its first training."""

    type: Literal["ready"] = "ready"


class EpochDone(_Line):
    """An epoch is trained; the worker waits for `Continue` or `Stop`."""

    type: Literal["epoch_done"] = "epoch_done"
    result: EpochResult


class Finished(_Line):
    """The training has ended, with its last epoch or by `Stop`, and its memory is free again."""

    type: Literal["finished"] = "finished"


class Warned(_Line):
    """Something that people shall know, and that ends nothing."""

    type: Literal["warned"] = "warned"
    message: str


class Failed(_Line):
    """The training has ended without a result."""

    type: Literal["failed"] = "failed"
    kind: FailureKind
    message: str
    """One line, for people."""
    traceback: str | None = None
    """Where the exception was raised, if it was one that nobody foresaw."""


Message = Annotated[Ready | EpochDone | Finished | Warned | Failed, Field(discriminator="type")]


# ---- Lines -----------------------------------------------------------------------------------------------

_COMMANDS: TypeAdapter[Command] = TypeAdapter(Command)
_MESSAGES: TypeAdapter[Message] = TypeAdapter(Message)


def encode(content: Command | Message) -> bytes:
    """One line of UTF-8 JSON with its line feed. Floats come back bit for bit."""
    return content.model_dump_json().encode() + b"\n"


def decode_command(line: bytes) -> Command:
    """Reads one line.

    Raises:
        ValueError: the line is not a command.
    """
    return _COMMANDS.validate_json(line)


def decode_message(line: bytes) -> Message:
    """Reads one line.

    Raises:
        ValueError: the line is not a message.
    """
    return _MESSAGES.validate_json(line)


def write_all(fd: int, data: bytes) -> None:
    """Writes all of `data`: a single `os.write` may take only a part of it.

    Raises:
        OSError: nobody reads the pipe any more (`BrokenPipeError`), or the descriptor is closed.
    """
    while data:
        data = data[os.write(fd, data) :]


class LineBuffer:
    """Cuts a stream of bytes, which come in any pieces, into lines."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, piece: bytes) -> None:
        """Takes the next bytes of the stream."""
        self._bytes += piece

    def next_line(self) -> bytes | None:
        """Takes out the first complete line, without its line feed; None if there is none yet."""
        end = self._bytes.find(b"\n")
        if end < 0:
            return None
        line = bytes(self._bytes[:end])
        del self._bytes[: end + 1]
        return line
