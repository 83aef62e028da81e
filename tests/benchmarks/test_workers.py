"""The table of several workers on one device."""

from benchmarks.workers import DEFINITION, speeds_table


def test_medians_are_told_as_multiples_of_the_first_count_and_as_trials_an_hour() -> None:
    images = DEFINITION.fidelity.train_images * DEFINITION.fidelity.epochs
    a_trial_a_minute = images / 60
    speeds = {1: [a_trial_a_minute, 1.0, 10 * a_trial_a_minute], 4: [3 * a_trial_a_minute] * 3}
    assert [row.split(" | ")[2:] for row in speeds_table(speeds).splitlines()[2:]] == [
        ["60", "1.00 |"],
        ["180", "3.00 |"],
    ]
