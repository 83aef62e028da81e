"""`mc1opt report`, and the page that run and retrain leave."""

from pathlib import Path

import pytest

from tests.support.command import output_of
from tests.support.messages import Give

PAGE = Path("storage/reports/tiny.html")


@pytest.mark.usefixtures("finished")
def test_a_search_leaves_a_page_and_the_command_writes_it_anew(mc1opt_here: Give) -> None:
    assert PAGE.read_text().startswith("<!doctype html>")
    PAGE.unlink()
    assert output_of(mc1opt_here("report", "--study", "tiny")) == f"{PAGE}\n"
    assert PAGE.exists()
    assert output_of(mc1opt_here("report", "--study", "tiny", "--output", "x/y.html")) == "x/y.html\n"
    assert "tiny" in Path("x/y.html").read_text()


@pytest.mark.usefixtures("finished")
def test_a_study_that_is_not_there_is_an_error(mc1opt_here: Give) -> None:
    ended = mc1opt_here("report", "--study", "missing")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "missing" in ended.stderr
    assert not Path("storage/reports/missing.html").exists()
