import os

import pytest

from mc1opt.spec import EpochResult
from mc1opt.workers.protocol import (
    Continue,
    EpochDone,
    Failed,
    Finished,
    LineBuffer,
    Ready,
    Stop,
    Train,
    Warned,
    decode_command,
    decode_message,
    encode,
    write_all,
)
from tests.support.curves import example_training

RESULT = EpochResult(epoch=1, loss=0.1 + 0.2, validation_accuracy=1 / 3, seconds=1e-9)


@pytest.mark.parametrize(
    "command", [Train(training=example_training()), Continue(), Stop()], ids=lambda command: command.type
)
def test_commands_come_back_equal(command):
    assert decode_command(encode(command)) == command


@pytest.mark.parametrize(
    "message",
    [
        Ready(),
        EpochDone(result=RESULT),
        Finished(),
        Warned(message="ä"),
        Failed(kind="crashed", message="two\nlines, ä, \u2028", traceback="a\nb"),
    ],
    ids=lambda message: message.type,
)
def test_messages_come_back_equal(message):
    assert decode_message(encode(message)) == message


def test_a_message_is_one_line():
    line = encode(Failed(kind="crashed", message="two\nlines\r\nand more"))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")


@pytest.mark.parametrize("line", [b"", b"{", b"printed", b"{}", b'{"type":"train"}', b'{"type":"ready"}'])
def test_what_is_no_command_is_refused(line):
    with pytest.raises(ValueError, match="validation error"):
        decode_command(line)


@pytest.mark.parametrize("line", [b"", b"1", b'{"type":"stop"}', b'{"type":"ready","more":1}'])
def test_what_is_no_message_is_refused(line):
    with pytest.raises(ValueError, match="validation error"):
        decode_message(line)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_lines_do_not_depend_on_the_pieces_that_come(size):
    stream = b"first\n\nthird\nrest"
    buffer = LineBuffer()
    lines = []
    for start in range(0, len(stream), size):
        buffer.feed(stream[start : start + size])
        while (line := buffer.next_line()) is not None:
            lines.append(line)
    assert lines == [b"first", b"", b"third"]


def test_write_all_goes_on_after_a_part(monkeypatch):
    written = []
    monkeypatch.setattr(os, "write", lambda fd, data: written.append(data[:4]) or min(4, len(data)))
    write_all(1, b"0123456789")
    assert b"".join(written) == b"0123456789"
