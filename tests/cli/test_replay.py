"""`mc1opt replay`, end to end: a trial of a real search trained again."""

import json
import sqlite3
from pathlib import Path

import pytest

from tests.support.command import files_below, stored_study


def set_attribute(number: int, key: str, value: object) -> None:
    """Changes what is stored of a trial."""
    with sqlite3.connect("storage/mc1opt.db") as connection:
        connection.execute(
            "UPDATE trial_user_attributes SET value_json = ? WHERE key = ? AND trial_id = "
            "(SELECT trial_id FROM trials WHERE number = ?)",
            (json.dumps(value), key, number),
        )
    connection.close()


def test_a_trial_of_a_search_has_the_same_curve_again(finished: Path, mc1opt_here) -> None:
    before = stored_study("tiny")
    result = mc1opt_here("replay", "--study", "tiny", "--trial", "2")
    assert (result.returncode, result.stderr) == (0, "")
    assert "Trial 2 of study tiny: the curve is equal, bit for bit, over 2 epochs." in result.stdout
    assert stored_study("tiny") == before


@pytest.mark.slow
def test_a_difference_is_exit_code_1_and_named_in_json(finished: Path, mc1opt_here) -> None:
    set_attribute(0, "seed", 1)
    result = mc1opt_here("replay", "--study", "tiny", "--trial", "0", "--json")
    assert result.returncode == 1
    printed = json.loads(result.stdout)
    assert printed["equal"] is False
    assert printed["difference"]["epoch"] == 1
    assert "Training trial 0 again" in result.stderr


def test_another_torch_is_exit_code_1_and_the_reason(finished: Path, mc1opt_here) -> None:
    set_attribute(0, "versions", {"torch": "1.0"})
    result = mc1opt_here("replay", "--study", "tiny", "--trial", "0")
    assert (result.returncode, result.stderr) == (1, "")
    assert "cannot be compared here: it was trained with torch 1.0" in result.stdout


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--trial", "-1"], 2, "--trial -1 is too small"),
        (["--trial", "99"], 2, "has no trial 99"),
        (["--trial", "1"], 2, "trial 1 of study 'tiny' has no curve to compare (duplicate of #0)"),
        (["--trial", "0", "--study", "nope"], 1, "there is no study 'nope'"),
        (["--trial", "0", "--data", "nowhere"], 1, "--data nowhere does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_value_is_named(
    finished: Path, mc1opt_here, options: list[str], code: int, message: str
) -> None:
    before = files_below(finished)
    result = mc1opt_here("replay", "--study", "tiny", *options)
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert files_below(finished) == before
