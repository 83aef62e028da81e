"""Trials as the rows of a table."""

from pathlib import Path

import pytest

from mc1opt.database.rows import rows
from tests.support.display import again, study, trial
from tests.support.studies import stored


def test_each_trial_is_a_row_and_all_rows_have_the_same_columns(whole: Path) -> None:
    record = stored(str(whole / "s.db"))
    table = record.rows()
    assert [row["number"] for row in table] == [trial.number for trial in record.trials]
    assert len({tuple(row) for row in table}) == 1
    for row, each in zip(table, record.trials, strict=True):
        assert (row["state"], row["outcome"], row["value"]) == (each.state, each.outcome, each.value)
        assert (row["config_id"], row["seconds"]) == (each.config_id, each.seconds)
        assert row["epochs"] == len(each.values_by_epoch)
        drawn = {name.removeprefix("params_"): row[name] for name in row if name.startswith("params_")}
        assert {name: value for name, value in drawn.items() if value is not None} == each.params
    assert {row["failure"] for row in table} == {None, "diverged", "out_of_memory", "crashed", "killed"}


def test_trainings_with_new_seeds_are_in_the_mean_unless_they_failed() -> None:
    table = study(
        trial(0, confirmations=again(0.5, 0.7)), trial(1, confirmations=again(0.5, None)), trial(2)
    ).rows()
    assert [row["value_again"] for row in table] == [pytest.approx(0.6), 0.5, None]


def test_a_study_without_trials_has_no_rows() -> None:
    assert rows([]) == []
