"""Studies and trials as lines of text."""

import re

import pytest

from mc1opt.display.tables import (
    best_lines,
    confirmation_lines,
    counts_line,
    end_lines,
    pruning_line,
    starting_point_line,
    study_lines,
    trial_lines,
)
from mc1opt.search.forecast import Forecast
from mc1opt.workers.stop import StopReason
from tests.support.display import again, ended, study, trial

ODD = "[red]x[/red] 'y' \"z\" :smile: 🙂 <b>"


def rows(lines: list[str]) -> list[list[str]]:
    """The lines of a table that begin with a trial's number, in words."""
    return [line.split() for line in lines if line.startswith("#")]


def text(lines: list[str]) -> str:
    return "\n".join(lines)


# ---- The best --------------------------------------------------------------------------------------------


def test_the_best_five_are_in_order_and_the_earliest_of_equals_comes_first() -> None:
    values = {0: 0.5, 1: 0.8, 2: 0.7, 3: 0.8, 4: 0.6, 5: 0.9, 6: 0.4}
    record = study(
        trial(9, "pruned", 0.99), *(trial(number, value=value) for number, value in values.items())
    )
    assert [row[0] for row in rows(best_lines(record))] == ["#5", "#1", "#3", "#2", "#4"]


def test_a_row_has_value_size_and_time_and_below_it_the_config() -> None:
    record = study(trial(3, value=0.81234, parameters=98_201, macs=3_354_271, seconds=83.6))
    assert best_lines(record) == [
        "trial   accuracy  parameters  million MACs  seconds",
        "#3        0.8123      98,201           3.4       84",
        "        mlp 64, relu",
        "        sgd 0.1, constant, batch 32",
    ]


def test_starting_points_are_marked_in_the_table() -> None:
    lines = best_lines(study(trial(0, value=0.9, starting_point=ODD), trial(1, value=0.8)))
    assert lines[1].endswith(f"  starting point {ODD}")
    assert "starting point" not in text(lines[2:])


def test_the_best_starting_point_and_the_best_sampled_trial_are_told_apart() -> None:
    record = study(
        trial(0, value=0.6, starting_point="plain"),
        trial(1, value=0.7, starting_point=ODD),
        trial(2, value=0.65),
        trial(3, value=0.75),
        trial(4, "pruned", 0.9),
    )
    assert starting_point_line(record) == (
        f"Best starting point 0.7000 (#1, {ODD}); best sampled trial 0.7500 (#3)."
    )


def test_what_the_search_adds_to_the_best_starting_point_is_said_with_its_interval() -> None:
    record = study(
        trial(0, value=0.8, starting_point="plain", confirmations=again(0.800, 0.804)),
        trial(3, value=0.83, confirmations=again(0.818, 0.826)),
    )
    half = 100 * 4.303 * (2.0e-5) ** 0.5
    numbers = [float(each) for each in re.findall(r"[+-]\d+\.\d", starting_point_line(record).split("\n")[1])]
    assert numbers == pytest.approx([2.0, 2.0 - half, 2.0 + half], abs=0.051)


def test_a_study_without_starting_points_or_without_sampled_trials_says_no_more_than_it_has() -> None:
    assert starting_point_line(study(trial(0))) == ""
    assert starting_point_line(study(trial(0, starting_point="plain"))) == (
        "Best starting point 0.5000 (#0, plain); best sampled trial none yet."
    )


# ---- Counts and epochs -----------------------------------------------------------------------------------


def test_counts_are_said_by_outcome() -> None:
    outcomes = ["complete", "complete", "pruned", "too_large", "duplicate", "failed", "running", "waiting"]
    trials = [trial(number, outcome) for number, outcome in enumerate(outcomes)]  # type: ignore[arg-type]
    assert counts_line(trials) == (
        "2 complete, 1 pruned, 1 too large, 1 duplicate, 1 failed, 1 running, 1 waiting"
    )
    assert counts_line([trial(0, "infeasible"), trial(1, "foreign")]) == "1 infeasible, 1 passed over"
    assert counts_line([*trials, trial(9, "duplicate")]).count("2 duplicates") == 1
    assert counts_line([]) == "none yet"


def test_the_epochs_that_pruning_saved_are_counted_from_the_reports() -> None:
    # Of 4 x 5 epochs one trial left 2 out and one left 4 out; what was never trained saved nothing.
    record = study(
        trial(0),
        trial(1),
        trial(2, "pruned"),
        trial(3, "pruned", values_by_epoch=[0.1]),
        trial(4, "too_large"),
        trial(5, "duplicate"),
        trial(6, "failed", values_by_epoch=[0.1]),
    )
    assert pruning_line(record) == "Pruning saved 6 of 20 epochs (30%)."
    assert pruning_line(study(trial(0, "failed"))) == ""


# ---- Confirmation ----------------------------------------------------------------------------------------


def test_confirmed_trials_are_ranked_by_the_mean_of_their_new_trainings() -> None:
    record = study(
        trial(1, value=0.9, confirmations=again(0.8, 0.82)),
        trial(2, value=0.85, confirmations=again(0.84, 0.86)),
        trial(3, value=0.8),
    )
    lines = confirmation_lines(record)
    assert rows(lines[:-1]) == [
        ["#2", "0.8500", "0.8400", "0.8600", "0.8500"],
        ["#1", "0.9000", "0.8000", "0.8200", "0.8100"],
    ]


@pytest.mark.parametrize(("other", "named"), [(0.845, "#1, #2: "), (0.84, "#1 is ahead ")])
def test_trials_are_ahead_or_within_seed_noise(other: float, named: str) -> None:
    # Both standard deviations are 0.001 * sqrt(2); with two degrees of freedom the least difference is
    # 4.303 * 0.001 * sqrt(2) * sqrt(2 / 2) = 0.0061.
    record = study(
        trial(1, value=0.9, confirmations=again(0.849, 0.851)),
        trial(2, value=0.8, confirmations=again(other - 0.001, other + 0.001)),
    )
    line = confirmation_lines(record)[-1]
    assert line.startswith(named)
    assert "(0.6 points)" in line


def test_trainings_that_failed_are_left_out_of_the_means() -> None:
    record = study(trial(1, confirmations=again(0.8, None)), trial(2, confirmations=again(None)))
    assert rows(confirmation_lines(record)) == [["#1", "0.5000", "0.8000", "0.8000"]]
    assert confirmation_lines(study(trial(1))) == []


# ---- The end of a search ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "message", "why", "planned"),
    [
        ("finished", "", "Done", True),
        ("signal", "SIGINT", "SIGINT", False),
        ("timeout", "", "time is up", False),
        ("enough", "20 trials in a row", "Stopped, because 20 trials in a row", False),
        ("exhausted", "Widen it.", "Widen it.", True),
        ("failures", "", "failed", False),
    ],
)
def test_the_end_says_why_and_how_long_beside_the_plan(
    reason: StopReason, message: str, why: str, planned: bool
) -> None:
    end = text(end_lines(ended(study(trial(0)), reason=reason, message=message), "s.db")[1:3])
    assert why in end
    assert "after 11 min" in end
    assert "Trials: 1 complete." in end
    assert ("(planned: 12 min)" in end) == planned
    for unknown in (None, 0.0):
        search = ended(study(trial(0)), reason=reason, message=message, expected_seconds=unknown)
        assert "planned" not in text(end_lines(search, "s.db"))


def test_the_end_has_importances_the_greatest_first_and_five_at_most() -> None:
    shares = {f"p{i}": share for i, share in enumerate([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])}
    lines = end_lines(ended(study(trial(0)), importances=shares), "s.db")
    assert "What matters most: p0 40%, p1 25%, p2 15%, p3 10%, p4 6%" in lines


def test_the_end_says_what_another_half_hour_would_bring_if_it_is_known() -> None:
    known = ended(study(trial(0)), forecast=Forecast(76, 0.0142, (0.0, 0.0481)))
    assert re.search(
        r"half hour .* 76 trials.* 1\.4 points .*90 %.* 0\.0 to 4\.8", text(end_lines(known, "s.db"))
    )
    assert "half hour" not in text(end_lines(ended(study(trial(0))), "s.db"))


def test_the_end_without_a_complete_trial_names_no_best_one() -> None:
    end = text(end_lines(ended(study(trial(0, "failed"))), "storage/mc1opt.db"))
    assert "mc1opt show --study cnn\n" in end
    assert "--trial" not in end
    assert "accuracy" not in end


def test_a_search_that_ends_by_failures_says_what_it_has_and_where_to_look() -> None:
    record = study(trial(0, value=0.7), trial(1, "failed"), trial(2, "failed"))
    end = text(end_lines(ended(record, reason="failures", message="2 failed"), "s.db"))
    assert "#0        0.7000" in end
    assert "show --study cnn --trial 2 --storage s.db" in end


def test_the_best_trial_to_look_at_is_the_best_of_the_confirmed_ones() -> None:
    first, second = trial(1, value=0.9), trial(2, value=0.8)
    assert "--trial 1" in text(end_lines(ended(study(first, second)), "s.db"))
    confirmed = study(
        trial(1, value=0.9, confirmations=again(0.7, 0.71)),
        trial(2, value=0.8, confirmations=again(0.79, 0.8)),
    )
    assert "--trial 2" in text(end_lines(ended(confirmed), "s.db"))


def test_commands_to_copy_name_the_database_and_quote_names() -> None:
    lines = end_lines(ended(study(trial(0), study=ODD)), "my folder/s.db")
    quoted = "'" + ODD.replace("'", "'\"'\"'") + "'"
    place = "--storage 'my folder/s.db'"
    assert lines[-4].endswith(f"mc1opt show --study {quoted} --trial 0 {place}")
    assert lines[-3].endswith(f"mc1opt retrain --study {quoted} {place}")
    assert lines[-2].endswith(f"mc1opt export --study {quoted} --trial 0 --format onnx {place}")
    assert lines[-1].endswith(f"mc1opt dashboard --study {quoted} {place}")


# ---- Stored studies and trials ---------------------------------------------------------------------------


def test_a_study_is_shown_with_its_best_and_confirmed_trials() -> None:
    lines = study_lines(study(trial(1, value=0.75, confirmations=again(0.8)), study=ODD))
    assert lines[:4] == [
        f"Study {ODD} (cnn)",
        "  fidelity   5 epochs of 20,000 images",
        "  data       cifar10",
        "  trials     1 complete",
    ]
    assert [row[0] for row in rows(lines)] == ["#1", "#1"]


def test_a_study_without_anything_says_that() -> None:
    assert study_lines(study(fidelity=None, data=None, definition=None)) == [
        "Study cnn",
        "  trials     none yet",
        "No trial is complete yet.",
    ]


def test_a_trial_is_shown_in_full() -> None:
    record = trial(
        3,
        "failed",
        values_by_epoch=[0.25, 0.5],
        interrupted=2,
        starting_point=ODD,
        params={"width": 64, "activation": "relu"},
        confirmations=again(0.8, None),
        failure={"kind": "crashed", "message": "exit code 3\nTraceback [red]"},
    )
    lines = trial_lines(record)
    assert lines[0] == "Trial #3: failed (crashed): exit code 3"
    for line in (
        "  parameters         1,000",
        "  MACs               1,000,000",
        f"  starting point     {ODD}",
        "  interrupted        2",
        "  accuracy by epoch  0.250 0.500",
        "  with new seeds     0.8000 failed (diverged)",
        "    Traceback [red]",
        "    activation               relu",
        "    width                    64",
        '      "batch_size": 32,',
    ):
        assert line in lines
