"""What a retraining says: the plan before, each verdict, the result, and commands to copy."""

import dataclasses
import re

from mc1opt.database.records import StudyRecord
from mc1opt.retraining.plan import Progress
from mc1opt.retraining.report import (
    candidate_lines,
    command_lines,
    confusion_lines,
    folds_line,
    plan_line,
    result_lines,
    standing_line,
)
from mc1opt.uncertainty import spread
from tests.support.retraining import MODELS, STORAGE, retrain_curves, retrainable, retrainable_folder

__all__ = ["retrainable", "retrainable_folder"]


def test_the_plan_says_trainings_images_epochs_and_time_before_it_starts(retrainable: StudyRecord) -> None:
    plan = retrain_curves(folds=4).result.plan
    line = plan_line("s", plan, Progress(stored=0, left=16, seconds=3480.0))
    assert line == (
        "Retraining study s: 3 candidates, 3 seeds each, on 180 images; the winner, 3 seeds, on all 200; the "
        f"winner in 4 folds. 16 trainings of 3 epochs, 2 workers on cpu ({plan.precision}); about 58 min. "
        "Ctrl-C keeps every finished training."
    )
    line = plan_line("s", plan, Progress(stored=5, left=11, seconds=None))
    assert "how long they take is not known. Of them stored already: 5. Ctrl-C" in line
    line = plan_line("s", plan, Progress(stored=15, left=0, seconds=0.0))
    assert "nothing is left to train. Of them stored already: 15; spared by early stopping: 1. Ctrl-C" in line


def test_one_that_competes_again_is_not_called_out(retrainable: StudyRecord) -> None:
    standing = retrain_curves(seeds=1).result.winner
    assert standing_line(standing).endswith("competes again: the one that it was clearly worse than is out")


def test_the_result_has_all_that_was_asked_for(retrainable: StudyRecord) -> None:
    result = retrain_curves(folds=2).result
    text = "\n".join(result_lines(dataclasses.replace(result, seconds=61.0, planned_seconds=3000.0)))
    test = result.test
    assert f"Test accuracy: {test.spread.mean:.4f}, standard deviation" in text
    assert "95 % interval" in text
    assert "(n = 3)" in text
    assert "  by seed      0.8000 0.8000 0.8000" in text
    assert re.search(r"by class +airplane 0\.\d{3}, automobile 0\.\d{3}, .*truck 0\.\d{3}", text)
    in_search = result.winner.candidate.in_search
    assert (
        f"Optimism: validation {in_search:.4f} in the search (4 epochs of 1,000 images), "
        f"{result.retrained.mean:.4f} retrained (3 epochs of 180), test 0.8000 (3 epochs of 200)." in text
    )
    assert "Cross-validation, 2 stratified folds" in text
    assert "Done, after 61 s (planned: 50 min)." in text
    assert "Memory was short" not in text


def test_the_table_begins_with_the_winner_and_says_how_the_others_compare(retrainable: StudyRecord) -> None:
    result = retrain_curves(top=4).result
    lines = candidate_lines(result.comparison, result.winner, 20)
    assert lines[0] == (
        "Validation accuracy on 20 images, over seeds (paired t test over the common seeds, two-sided, level "
        "5 % over all pairs and looks together):"
    )
    rows = [line for line in lines if line.startswith("#")]
    assert len(rows) == 4
    values = list(result.winner.counted().values())
    shown = " ".join(f"{value:.4f}" for value in values)
    assert rows[0].startswith(f"#{result.winner.candidate.trial} ")
    assert rows[0].endswith(f"{shown}  winner")
    low, high = spread(values).interval
    assert f"{low:.4f} to {high:.4f}" in rows[0]
    for row in rows[1:]:
        assert re.search(r"(not told apart from|clearly worse than) the winner, p [01]\.\d{3}$", row)
    result = retrain_curves(top=2, seeds=2, force=True).result
    (other,) = [
        line
        for line in candidate_lines(result.comparison, result.winner, 20)
        if line.startswith("#") and "winner" not in line
    ]
    assert other.endswith("not tested: fewer than 3 common seeds")


def test_the_spreads_over_folds_and_over_seeds_are_told_apart() -> None:
    assert folds_line(spread([0.8, 0.9]), spread([0.80, 0.82])) == (
        "Cross-validation, 2 stratified folds: mean 0.8500, standard deviation 0.0707 over folds with one "
        "seed; over seeds on one split it is 0.0141."
    )
    assert "over seeds" not in folds_line(spread([0.8, 0.9]), spread([0.8]))


def test_the_confusion_matrix_has_a_row_for_each_true_class() -> None:
    confusion = [[0] * 10 for _ in range(10)]
    confusion[3][5] = 1234
    lines = confusion_lines(confusion)
    assert "rows true" in lines[0]
    header, row = lines[1], lines[2 + 3]
    assert row.startswith("cat ")
    assert row.index("1234") + 4 == header.index("dog") + 3
    assert {len(line) for line in lines[1:]} == {len(header)}


def test_the_commands_to_copy_name_the_database_where_it_is_not_the_usual_one(
    retrainable: StudyRecord,
) -> None:
    result = retrain_curves(seeds=1, top=1).result
    text = "\n".join(command_lines(result))
    assert text.count(f"--storage {STORAGE}") == 3
    for command in (
        f"export --study s --model {MODELS}",
        f"predict {MODELS}",
        f"evaluate {MODELS}",
    ):
        assert f"mc1opt {command}" in text
    usual = dataclasses.replace(result, storage="storage/mc1opt.db", study="a b")
    assert "--storage" not in "\n".join(command_lines(usual))
    assert "--study 'a b'" in "\n".join(command_lines(usual))
