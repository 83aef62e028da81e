"""What checks have found, as text and as JSON."""

import json

from mc1opt.doctor.diagnosis import Check, Diagnosis

GOOD = Check("python", "ok", "3.11.7")
ODD = Check("data", "warning", "not there", "Fetch it:\nmc1opt data")
BAD = Check("disk", "problem", "full", "Free some.")


def test_each_check_is_a_line_with_what_to_do_below_it() -> None:
    assert Diagnosis((GOOD, ODD)).lines() == [
        "ok       python    3.11.7",
        "warning  data      not there",
        "                   Fetch it:",
        "                   mc1opt data",
        "",
        "1 warning.",
    ]


def test_the_last_line_counts_what_is_not_well() -> None:
    assert Diagnosis((GOOD, GOOD)).lines()[-1] == "All is well."
    assert Diagnosis((ODD, BAD, BAD)).lines()[-1] == "2 problems and 1 warning."


def test_only_a_problem_is_one() -> None:
    assert not Diagnosis((GOOD, ODD)).has_problem
    assert Diagnosis((GOOD, BAD)).has_problem


def test_json_has_every_check_with_all_that_is_known() -> None:
    (check,) = json.loads(json.dumps(Diagnosis((ODD,)).to_json()))["checks"]
    assert check == {"name": "data", "status": "warning", "found": ODD.found, "what_to_do": ODD.what_to_do}
