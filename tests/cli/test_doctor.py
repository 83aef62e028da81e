"""`mc1opt doctor`: text, JSON, exit codes, and that it changes nothing."""

import json
from pathlib import Path

from tests.doctor.test_checks import NAMES
from tests.doctor.test_database import states


def test_a_folder_in_which_a_search_has_ended_is_well_and_stays_as_it_is(finished: Path, mc1opt_here) -> None:
    before = states(finished)
    told = mc1opt_here("doctor", "--data", "images")
    assert (told.returncode, told.stderr) == (0, "")
    assert "storage/mc1opt.db" in told.stdout
    assert states(finished) == before


def test_json_has_the_same_checks_and_nothing_else(finished: Path, mc1opt_here) -> None:
    told = mc1opt_here("doctor", "--data", "images", "--json")
    checks = json.loads(told.stdout)["checks"]
    assert [check["name"] for check in checks] == NAMES
    assert set(checks[0]) == {"name", "status", "found", "what_to_do"}


def test_a_problem_is_the_exit_code(finished: Path, mc1opt_here) -> None:
    path = finished / "storage/mc1opt.db"
    path.write_bytes(path.read_bytes()[:20_000])
    before = states(finished)
    told = mc1opt_here("doctor", "--data", "images")
    assert told.returncode == 1
    assert "problem  database" in told.stdout
    assert json.loads(mc1opt_here("doctor", "--json").stdout)["checks"]
    assert states(finished) == before


def test_nothing_at_all_is_no_problem_but_the_images_are_not_there(tmp_path: Path, mc1opt_here) -> None:
    told = mc1opt_here("doctor", "--storage", "other/s.db")
    assert told.returncode == 0
    assert "warning  data" in told.stdout
    assert "other/s.db" in told.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_is_none_is_wrong_use(mc1opt_here) -> None:
    told = mc1opt_here("doctor", "--storage", "sqlite://")
    assert (told.returncode, told.stdout) == (2, "")
    assert "--storage" in told.stderr
