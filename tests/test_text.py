"""Numbers and messages as people read them."""

import pytest

from mc1opt.text import duration, first_line, megabytes, plural


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 s"), (0, "0 s"), (89, "89 s"), (90, "2 min"), (1140, "19 min"), (7500, "2 h 05 min")],
)
def test_times_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(("size", "words"), [(200, "1 MB"), (21_600_000, "22 MB"), (1_540_000_000, "1.5 GB")])
def test_sizes_are_said_as_people_say_them(size: int, words: str) -> None:
    assert megabytes(size) == words


def test_one_of_a_kind_is_no_plural() -> None:
    assert [plural(1, "trial"), plural(0, "trial"), plural(2000, "image")] == [
        "1 trial",
        "0 trials",
        "2,000 images",
    ]


@pytest.mark.parametrize("message", ["one", " one\ntwo\n", ValueError("\none \ntwo")])
def test_of_a_message_the_first_line_is_said(message: object) -> None:
    assert first_line(message).rstrip() == "one"
