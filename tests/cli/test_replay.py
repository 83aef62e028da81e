"""`mc1opt replay`, end to end: a trial of a real search trained again."""

import json
import sqlite3
from pathlib import Path

import pytest


def set_attribute(number: int, key: str, value: object) -> None:
    """Changes what is stored of a trial."""
    with sqlite3.connect("storage/mc1opt.db") as connection:
        connection.execute(
            "UPDATE trial_user_attributes SET value_json = ? WHERE key = ? AND trial_id = "
            "(SELECT trial_id FROM trials WHERE number = ?)",
            (json.dumps(value), key, number),
        )
    connection.close()


@pytest.mark.slow
def test_a_difference_is_exit_code_1_and_named_in_json(finished: Path, mc1opt_here) -> None:
    set_attribute(0, "seed", 1)
    result = mc1opt_here("replay", "--study", "tiny", "--trial", "0", "--json")
    assert result.returncode == 1
    printed = json.loads(result.stdout)
    assert printed["equal"] is False
    assert printed["difference"]["epoch"] == 1


def test_another_torch_is_exit_code_1_and_the_reason(finished: Path, mc1opt_here) -> None:
    set_attribute(0, "versions", {"torch": "1.0"})
    result = mc1opt_here("replay", "--study", "tiny", "--trial", "0")
    assert (result.returncode, result.stderr) == (1, "")
    assert "torch 1.0" in result.stdout
