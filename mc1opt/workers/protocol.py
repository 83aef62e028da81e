"""The protocol between a pool and its worker processes: JSON lines over two pipes.

The pool sends commands: `Train`, then `Continue` or `Stop` after each epoch. The worker sends messages:
`Ready` once, then for each training an `EpochDone` per epoch and finally `Finished` or `Failed`; `Warned` may
come at any time. Not here: starting the processes (`child.py`), and training (`process.py`). No torch.
"""

import os
import signal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from mc1opt.spec import EpochResult, FailureKind, Training

INTERRUPT_SIGNAL = signal.SIGUSR1
"""Makes a worker write its training's checkpoint and end. A command would come too late: workers read them
between two epochs."""


class TrainingInterrupted(Exception):  # noqa: N818  (the pool was told to stop: nothing went wrong)
    """A training ended early because the pool was interrupted or closed; not the config's fault."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


# ---- Commands: from the pool to the worker ---------------------------------------------------------------


class Train(_Line):
    """Begin a training. Sent only to a worker that is ready and idle."""

    type: Literal["train"] = "train"
    training: Training


class Continue(_Line):
    """Train the next epoch, or end if that was the last."""

    type: Literal["continue"] = "continue"


class Stop(_Line):
    """Stop the training; the worker answers `Finished`."""

    type: Literal["stop"] = "stop"


Command = Annotated[Train | Continue | Stop, Field(discriminator="type")]


# ---- Messages: from the worker to the pool ---------------------------------------------------------------


class Ready(_Line):
    """The worker has loaded its trainer, and waits for its first training."""

    type: Literal["ready"] = "ready"


class EpochDone(_Line):
    """An epoch is complete; the worker waits for `Continue` or `Stop`."""

    type: Literal["epoch_done"] = "epoch_done"
    result: EpochResult


class Finished(_Line):
    """The training has ended, after its last epoch or by `Stop`, and its memory is free."""

    type: Literal["finished"] = "finished"


class Warned(_Line):
    """A warning for people; the training continues."""

    type: Literal["warned"] = "warned"
    message: str


class Failed(_Line):
    """The training has ended without a result."""

    type: Literal["failed"] = "failed"
    kind: FailureKind
    message: str
    """One line, for people."""
    traceback: str | None = None
    """The traceback of an unexpected exception."""


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
    """Writes all of `data`: a single `os.write` may write only a part.

    Raises:
        OSError: the reading end of the pipe is closed (`BrokenPipeError`), or the descriptor is.
    """
    while data:
        data = data[os.write(fd, data) :]


class LineBuffer:
    """Splits a stream of bytes, which comes in arbitrary pieces, into lines."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, piece: bytes) -> None:
        """Appends the next bytes of the stream."""
        self._bytes += piece

    def next_line(self) -> bytes | None:
        """Removes and returns the first complete line, without its line feed; None if there is none."""
        end = self._bytes.find(b"\n")
        if end < 0:
            return None
        line = bytes(self._bytes[:end])
        del self._bytes[: end + 1]
        return line
