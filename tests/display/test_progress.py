"""Counts, the time that is left, and plain lines."""

import re
import statistics
from dataclasses import replace
from typing import Any

import pytest

from mc1opt.database.records import TrialRecord
from mc1opt.database.study_attributes import BegunFrom
from mc1opt.dataset import Task
from mc1opt.display.progress import PlainProgress, SearchProgress, ending, plan_lines
from mc1opt.display.tables import study_lines
from mc1opt.search.observers import SearchStarted
from tests.support.curves import Switches
from tests.support.display import Clock, epoch, progress_with_gaps, started, trial
from tests.support.studies import fail_some, run_study, stored


class Lines:
    """Plain progress on a clock that the test sets, and the lines that it wrote."""

    def __init__(self, search: SearchStarted) -> None:
        self.lines: list[str] = []
        self.clock = Clock()
        self.progress = PlainProgress(self.lines.append, self.clock)
        self.progress.study_started(search)
        self.lines.clear()

    def pass_time(self, seconds: int) -> None:
        """Ticks once a second."""
        for _ in range(seconds):
            self.clock.seconds += 1
            self.progress.tick()


# ---- Lines -----------------------------------------------------------------------------------------------


def test_a_line_has_the_counts_the_trial_the_best_what_does_not_count_and_the_time_left() -> None:
    trials = [
        trial(7, value=0.791),
        *(trial(number, "duplicate") for number in range(20, 32)),
        *(trial(number, "too_large") for number in range(50, 59)),
    ]
    lines = Lines(started(*trials))
    for number in range(100, 136):
        lines.clock.seconds += 19 * 60 / 62.5
        lines.progress.trial_ended(trial(number if number < 135 else 41, "pruned", value=0.512))
    assert (
        lines.lines[-1]
        == "37/100  #41 pruned at epoch 3, 0.512 | best 0.791 (#7) | 12 duplicates, 9 too large | 19 min left"
    )


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (trial(1, "infeasible", infeasible="too deep"), "infeasible: too deep"),
        (trial(1, "infeasible", infeasible=""), "infeasible"),
        (trial(1, "foreign", foreign="ended by another program"), "passed over: ended by another program"),
        (trial(3, "complete", 0.8125), "complete, 0.812"),
        (trial(3, "pruned", 0.5), "pruned at epoch 3, 0.500"),
        (trial(3, "pruned", values_by_epoch=[]), "pruned"),
        (trial(3, "too_large", macs=20_275_350), "too large, 20.3 million multiply-accumulates"),
        (trial(3, "duplicate", duplicate_of=1), "duplicate of #1"),
        (
            trial(3, "failed", failure={"kind": "diverged", "message": "the loss is nan\nat step 7"}),
            "failed (diverged): the loss is nan",
        ),
        (trial(3, "waiting", interrupted=1), "interrupted, waits for the next start"),
        (trial(3, "waiting"), "not begun yet"),
    ],
    ids=lambda value: value.outcome if isinstance(value, TrialRecord) else "",
)
def test_each_end_of_a_trial_has_its_words(record: TrialRecord, words: str) -> None:
    assert ending(record) == words


def test_only_trials_that_were_trained_have_a_line_and_others_are_counted_in_it() -> None:
    lines = Lines(started())
    for number, outcome in enumerate(("duplicate", "too_large", "infeasible")):
        lines.progress.trial_ended(trial(number, outcome))
    assert lines.lines == []
    for number, outcome in enumerate(("complete", "pruned", "failed", "waiting"), start=3):
        lines.progress.trial_ended(trial(number, outcome))
        assert f"#{number} " in lines.lines[-1]
    assert len(lines.lines) == 4
    assert lines.lines[-1].endswith("| 1 duplicate, 1 too large, 1 infeasible, 1 failed")


def test_there_is_a_line_at_least_every_30_seconds() -> None:
    lines = Lines(started())
    lines.pass_time(29)
    assert lines.lines == []
    lines.pass_time(301)
    assert len(lines.lines) == 11
    lines.pass_time(20)
    lines.progress.trial_ended(trial(0))  # breaks the silence as well
    lines.pass_time(29)
    assert len(lines.lines) == 12
    lines.pass_time(1)
    assert len(lines.lines) == 13


def test_the_line_in_between_says_how_far_each_trial_is() -> None:
    lines = Lines(started())
    lines.progress.trial_started(0, "mlp")
    lines.progress.trial_started(1, "mlp")
    lines.progress.epoch(1, epoch(0, 0.25))
    lines.pass_time(30)
    assert lines.lines[-1] == "0/100  training #0 0/5 epochs, #1 1/5 epochs 0.250 | no best yet"


def test_a_config_that_was_trained_again_has_a_line() -> None:
    lines = Lines(started(trial(4, value=0.75), trials=1))
    lines.progress.confirmed(4, 0.7375)
    lines.progress.confirmed(4, None)
    assert ["#4" in line and "0.738" in line for line in lines.lines] == [True, False]


# ---- The plan --------------------------------------------------------------------------------------------


def test_the_plan_says_trials_images_time_disk_and_that_nothing_is_lost() -> None:
    assert plan_lines(started()) == [
        "Study cnn: 100 trials to train, each at most 5 epochs of 20,000 images, 2 workers on cpu. "
        "About 12 min, about 22 MB of disk. Ctrl-C keeps everything."
    ]


def test_of_other_images_than_cifar10s_the_plan_says_which_and_what_was_chosen_for_them() -> None:
    grey = Task(channels=1, size=28, class_names=("bag", "boot"))
    record = replace(started().record, task=grey, data={"name": "fashion_mnist", "sha256": "0"})
    (line,) = plan_lines(started(record=record))
    assert "20,000 images of fashion_mnist (28 x 28, grey, 2 classes), networks of at most 20 million" in line


ODD = "[red]x[/red] 'y' \"z\" :smile: 🙂 <b>"


@pytest.mark.parametrize(
    ("search", "said", "unsaid"),
    [
        (started(study=ODD), f"Study {ODD} (cnn): ", "done"),
        (
            started(trial(0), trial(1, "pruned"), trial(2, "too_large"), trials=3, workers=1),
            "2 of 3 trials done, 1 trial to train, ",
            "(cnn)",
        ),
        (started(trial(0), trials=1, expected_seconds=0.0), "1 of 1 trial done, 0 trials to train", "About"),
        (started(timeout=480.0, expected_seconds=None), "At most 8 min (--timeout), about 22 MB", "12 min"),
        (started(timeout=480.0), "About 12 min, at most 8 min (--timeout), about 22 MB", "done"),
    ],
    ids=["another name", "resumed", "finished", "unknown time", "timeout"],
)
def test_the_plan_says_what_is_known_and_left(search: SearchStarted, said: str, unsaid: str) -> None:
    (line,) = plan_lines(search)
    assert said in line
    assert unsaid not in line


@pytest.mark.parametrize("interrupted", [0, 1, 2])
def test_the_plan_counts_the_interrupted_trials_and_no_starting_points(interrupted: int) -> None:
    waiting = [trial(number, "waiting", interrupted=1) for number in range(interrupted)]
    starting_point = trial(9, "waiting", starting_point="tuned")
    lines = plan_lines(started(*waiting, starting_point))[1:]
    assert [line.split()[0] for line in lines] == [str(interrupted)] * (interrupted > 0)


def test_the_plan_names_what_is_passed_over_and_why_in_one_line() -> None:
    why = ["written by another program"] * 7 + ["with a damaged config"]
    trials = [trial(number, "foreign", foreign=reason) for number, reason in enumerate(why)]
    assert plan_lines(started(*trials))[1:] == [
        "Passed over: 7 trials written by another program (#0, #1, #2, #3, #4 and 2 more); "
        "1 trial with a damaged config (#7)."
    ]


def begun(**changes: Any) -> BegunFrom:
    fields: dict[str, Any] = {
        "study": "cnn",
        "trials": 100,
        "fit": 93,
        "misfits": {"too large": 4, "with batch_size out of range": 3},
        "differs": {},
        "starting_points": {"#41 of cnn": {}, "#7 of cnn": {}},
    }
    return BegunFrom(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [
        ({}, ["93", "100", "#41", "#7", "4", "3"]),
        ({"misfits": {}}, ["93", "100", "#41", "#7"]),
        ({"differs": {"images": "mnist-28"}}, ["28", "93", "100", "#41", "#7", "4", "3"]),
        ({"fit": 0, "starting_points": {}, "misfits": {"too large": 100}}, ["0", "100", "100"]),
    ],
    ids=["some fit", "all fit", "values do not compare", "none fits"],
)
def test_the_plan_and_the_study_say_what_was_taken_over_and_what_not(
    changes: dict[str, Any], numbers: list[str]
) -> None:
    plan = started(trial(0))
    record = replace(plan.record, begun_from=begun(**changes))
    lines = plan_lines(replace(plan, record=record))[1:]
    assert re.findall(r"#?\d+", " ".join(lines)) == numbers
    assert set(lines) <= set(study_lines(record))
    assert all(name in lines[0] for name in changes.get("differs", {}))


# ---- The time left ---------------------------------------------------------------------------------------


def test_the_time_left_is_unknown_before_three_trials_have_ended() -> None:
    for count in (0, 1, 2):
        progress, _ = progress_with_gaps([10.0] * count)
        assert progress.seconds_left() is None
        assert progress.time_left() == ""
    progress, _ = progress_with_gaps([10.0] * 3)
    assert progress.seconds_left() == (970.0, 0.0)


def test_the_time_left_and_its_standard_error_come_from_the_gaps() -> None:
    gaps = [10.0, 30.0, 20.0, 60.0]
    progress, _ = progress_with_gaps(gaps)
    left, error = progress.seconds_left() or (0.0, 0.0)
    assert left == pytest.approx(96 * 30.0)
    # The sum of 96 gaps varies by 96 variances, and 96 times the mean of four by 96**2 / 4.
    assert error == pytest.approx(statistics.stdev(gaps) * (96 + 96**2 / 4) ** 0.5)


@pytest.mark.parametrize(
    ("gaps", "trials", "left", "twice_the_error", "words"),
    [
        ([50.0, 70.0] * 10, 60, 2400.0, 225, "40 min left (± 4 min)"),
        ([10.0, 200.0, 30.0], 63, 4800.0, 7412, "80 min left (up to 3 h 24 min)"),
        ([50.0, 51.0] * 10, 60, 2020.0, 11, "34 min left"),
        ([10.0, 30.0, 20.0, 60.0], 4, 0.0, 0, ""),
        ([10.0, 30.0, 20.0, 60.0], 3, 0.0, 0, ""),
    ],
    ids=["spread", "above the time itself", "below a minute", "the total", "more than the total"],
)
def test_the_uncertainty_is_two_standard_errors(
    gaps: list[float], trials: int, left: float, twice_the_error: int, words: str
) -> None:
    progress, _ = progress_with_gaps(gaps, trials=trials)
    seconds, error = progress.seconds_left() or (-1.0, -1.0)
    assert (seconds, round(2 * error)) == (left, twice_the_error)
    assert progress.time_left() == words


def test_trials_that_do_not_count_leave_the_time_left_alone() -> None:
    progress, clock = progress_with_gaps([10.0, 30.0, 20.0])
    before = progress.seconds_left()
    for number, outcome in enumerate(("too_large", "duplicate", "failed", "waiting"), start=50):
        clock.seconds += 1
        progress.trial_ended(trial(number, outcome))
    assert progress.seconds_left() == before


def test_only_trials_of_this_search_say_how_fast_it_is() -> None:
    clock = Clock()
    progress = SearchProgress(started(*(trial(number) for number in range(50))), clock)
    assert progress.seconds_left() is None
    for number in range(50, 53):
        clock.seconds += 20
        progress.trial_ended(trial(number))
    assert progress.seconds_left() == (47 * 20.0, 0.0)


def test_the_deadline_is_shown_where_it_comes_first_and_never_negative() -> None:
    progress, clock = progress_with_gaps([10.0] * 3, timeout=600.0)
    assert progress.time_left() == "16 min left, 10 min to --timeout"
    clock.seconds += 700
    assert progress.time_left() == "16 min left, 0 s to --timeout"
    progress, _ = progress_with_gaps([10.0] * 3, timeout=1200.0)
    assert progress.time_left() == "16 min left"
    progress, _ = progress_with_gaps([10.0], timeout=600.0)  # the time left is unknown
    assert progress.time_left() == "10 min to --timeout"


# ---- Counts ----------------------------------------------------------------------------------------------


def test_the_earliest_of_equals_is_the_best() -> None:
    progress = SearchProgress(started())
    for number in (3, 1, 2):
        progress.trial_ended(trial(number, value=0.75))
    assert progress.best_line() == "best 0.750 (#1)"


def test_a_trial_that_waited_counts_once() -> None:
    progress = SearchProgress(started(trial(0, "waiting", interrupted=1)))
    progress.trial_ended(trial(0))
    assert progress.outcomes == {"complete": 1}


def test_two_trainings_of_the_same_config_are_told_apart() -> None:
    progress = SearchProgress(started(trial(4)))
    for _ in range(2):
        progress.trial_started(4, "again, with a new seed")
    for index in (0, 0, 1, 2, 1, 3, 4):
        progress.epoch(4, epoch(index, 0.5))
    assert [running.epochs for running in progress.running] == [5, 2]
    progress.confirmed(4)
    assert [running.epochs for running in progress.running] == [2]


def test_the_counts_agree_with_the_records(switches: Switches) -> None:
    fail_some(switches)
    for trials in (7, 11):  # the second search resumes
        display = PlainProgress([].append)
        run_study(trials, workers=2, observers=(display,), confirm=2)
        record, progress = stored(), display.progress
        outcomes = [trial.outcome for trial in record.trials]
        assert progress.outcome_of == {trial.number: trial.outcome for trial in record.trials}
        assert progress.counted == trials == outcomes.count("complete") + outcomes.count("pruned")
        assert progress.best is not None
        assert record.best is not None
        assert replace(progress.best, confirmations=[]) == replace(record.best, confirmations=[])
        assert progress.running == []
    assert {"complete", "pruned", "failed", "duplicate", "too_large"} <= set(outcomes)
