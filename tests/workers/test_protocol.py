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
    ("content", "decode"),
    [
        (Train(training=example_training()), decode_command),
        (Continue(), decode_command),
        (Stop(), decode_command),
        (Ready(), decode_message),
        (EpochDone(result=RESULT), decode_message),
        (Finished(), decode_message),
        (Warned(message="ä"), decode_message),
        (Failed(kind="crashed", message="two\nlines\r\n, ä, \u2028", traceback="a\nb"), decode_message),
    ],
    ids=lambda value: getattr(value, "type", ""),
)
def test_each_content_is_a_line_and_comes_back_equal(content, decode):
    line = encode(content)
    assert decode(line) == content
    assert (line.count(b"\n"), line[-1:]) == (1, b"\n")


@pytest.mark.parametrize(
    ("line", "decode"),
    [
        *((line, decode_command) for line in (b"", b"{", b"printed", b"{}", b'{"type":"train"}')),
        (b'{"type":"ready"}', decode_command),
        *((line, decode_message) for line in (b"", b"1", b'{"type":"stop"}', b'{"type":"ready","more":1}')),
    ],
)
def test_what_is_no_command_or_no_message_is_refused(line, decode):
    with pytest.raises(ValueError, match="validation error"):
        decode(line)


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
