"""What people see of commands, word for word: `tests/messages.txt`, which `--update-messages` writes anew."""

from pathlib import Path

import pytest

from tests.support.messages import Give, given, sections, update


@pytest.mark.usefixtures("curve_pool")
@pytest.mark.parametrize("title", sections())
def test_people_see_what_the_file_of_messages_says(
    title: str, finished: Path, mc1opt_here: Give, request: pytest.FixtureRequest
) -> None:
    """In a folder in which a search has ended."""
    expected = sections()[title]
    text = given(expected, mc1opt_here)
    if request.config.getoption("--update-messages"):
        update(title, text)
    else:
        assert text == expected
