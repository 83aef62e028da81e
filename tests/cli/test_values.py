"""Numbers and times as people write them."""

import pytest

from mc1opt.cli.values import at_least, parse_duration
from mc1opt.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("90s", 90.0),
        ("0.5", 0.5),
        ("2.5s", 2.5),
        ("8m", 480.0),
        ("1h", 3600.0),
        ("1h30m", 5400.0),
        ("1h30m10s", 5410.0),
        ("1h5", 3605.0),
        (" 8M ", 480.0),
    ],
)
def test_a_time_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert parse_duration(text, "--timeout") == seconds


def test_no_time_stays_none() -> None:
    assert parse_duration(None, "--timeout") is None


@pytest.mark.parametrize(
    "text",
    ["", " ", "0", "0s", "0h0m", "-5", "soon", "m", "8 minutes", "30m1h", "1.5h", "1e3", "nan", "inf", "8mm"],
)
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration(text, "--timeout")
    assert str(caught.value).startswith(f"--timeout {text!r} ")


@pytest.mark.parametrize("value", [0, -3])
def test_too_little_is_refused_with_the_least_value_and_enough_is_not(value: int) -> None:
    for enough in (None, 1, 2):
        at_least(enough, 1, "--trials")
    with pytest.raises(UsageError, match=f"--trials {value} .* 1"):
        at_least(value, 1, "--trials")
