"""What a retraining says: the plan before, each verdict, the result, and commands to copy."""

import dataclasses
import re

from mc1opt.database.records import StudyRecord
from mc1opt.retraining.plan import Progress
from mc1opt.retraining.report import (
    candidate_lines,
    command_lines,
    folds_line,
    plan_line,
    result_lines,
    standing_line,
)
from mc1opt.uncertainty import spread
from tests.support.retraining import (
    MODELS,
    STORAGE,
    retrain_curves,
    retrain_plan,
    retrainable,
    retrainable_folder,
)

__all__ = ["retrainable", "retrainable_folder"]


def test_the_plan_has_trainings_images_epochs_and_time() -> None:
    plan = retrain_plan(folds=4)
    line = plan_line("s", plan, Progress(stored=0, left=13, seconds=3480.0))
    for part in ("2 candidates, 3 seeds", "45,000", "50,000", "4 folds", "13 trainings", "10 epochs"):
        assert part in line, part
    assert "2 workers on cpu (float32); about 58 min." in line
    assert "stored" not in line
    assert "stored already: 5." in plan_line("s", plan, Progress(stored=5, left=8, seconds=None))
    finished = plan_line("s", plan, Progress(stored=12, left=0, seconds=0.0))
    assert re.findall(r"(?:stored already|early stopping): (\d+)", finished) == ["12", "1"]


def test_the_result_has_all_that_was_asked_for(retrainable: StudyRecord) -> None:
    result = retrain_curves(folds=2)
    text = "\n".join(result_lines(dataclasses.replace(result, seconds=61.0, planned_seconds=3000.0)))
    for part in (
        result.test.spread.line(),
        "0.8000 0.8000 0.8000",
        f"{result.winner.candidate.in_search:.4f} in the search (4 epochs of 1,000 images)",
        f"{result.retrained.mean:.4f} retrained (3 epochs of 180)",
        "0.8000 (3 epochs of 200)",
        "2 stratified folds",
        "61 s (planned: 50 min)",
        str(MODELS),
    ):
        assert part in text, part
    assert re.search(r"0 0\.\d{3}, 1 0\.\d{3}, .*9 0\.\d{3}", text)
    assert "Memory" not in text


def test_the_table_begins_with_the_winner_and_says_how_the_others_compare(retrainable: StudyRecord) -> None:
    result = retrain_curves(top=4)
    lines = candidate_lines(result)
    rows = [line for line in lines if line.startswith("#")]
    assert len(rows) == 4
    values = list(result.winner.counted().values())
    assert rows[0].startswith(f"#{result.winner.candidate.trial} ")
    assert rows[0].endswith(" ".join(f"{value:.4f}" for value in values) + "  winner")
    low, high = spread(values).interval
    assert f"{low:.4f} to {high:.4f}" in rows[0]
    for row in rows[1:]:
        assert re.search(r"(not told apart from|clearly worse than) the winner, p [01]\.\d{3}$", row)
    result = retrain_curves(top=2, seeds=2, force=True)
    _, other = (line for line in candidate_lines(result) if line.startswith("#"))
    assert "fewer than 3 common seeds" in other
    assert "again" in standing_line(result.winner)  # of one that was out, and competes again


def test_the_spreads_over_folds_and_over_seeds_are_told_apart() -> None:
    line = folds_line(spread([0.8, 0.9]), spread([0.80, 0.82]))
    assert re.findall(r"0\.\d{4}", line) == ["0.8500", "0.0707", "0.0141"]
    assert "over seeds" not in folds_line(spread([0.8, 0.9]), spread([0.8]))


def test_the_commands_to_copy_name_the_database_where_it_is_not_the_usual_one(
    retrainable: StudyRecord,
) -> None:
    result = retrain_curves(seeds=1, top=1)
    text = "\n".join(command_lines(result))
    assert text.count(f"--storage {STORAGE}") == 3
    for command in (f"export --study s --model {MODELS}", f"predict {MODELS}", f"evaluate {MODELS}"):
        assert f"mc1opt {command}" in text
    options = dataclasses.replace(result.options, storage="storage/mc1opt.db", study="a b")
    usual = "\n".join(command_lines(dataclasses.replace(result, options=options)))
    assert "--storage" not in usual
    assert "--study 'a b'" in usual
