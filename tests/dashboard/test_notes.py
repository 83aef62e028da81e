"""The notes on a study and on its best trials: what they say, to whom, and what they leave to people."""

import re
from typing import Any

import pytest

from mc1opt.dashboard.notes import (
    BEST,
    END,
    merged_note,
    study_note,
    trial_note,
)
from mc1opt.database.records import StudyRecord
from mc1opt.describe import describe_config
from mc1opt.inference.retrained import Retrained
from tests.support.display import CONFIG, again, study, trial

STORAGE = "my folder/s.db"
PAGE = "/dashboard/studies/7"
FOUND = Retrained(
    trial=1,
    config_id="0" * 12,
    seeds=3,
    epochs=20,
    validation=0.93,
    test=0.92,
    interval=(0.915, 0.925),
    model="storage/models/cnn",
    data="cifar10",
)


def note(record: StudyRecord, **options: Any) -> str:
    return study_note(record, **({"storage": STORAGE, "page": PAGE} | options))


def commands(text: str) -> list[str]:
    (block,) = re.findall(r"```bash\n(.*?)\n```", text, re.DOTALL)
    return block.split("\n")


# ---- On a study ------------------------------------------------------------------------------------------


def test_a_study_without_trials_says_what_it_is_and_that_nothing_is_complete() -> None:
    text = note(study())
    for fact in ("`cifar10`", "`cnn`", "5 epochs", "20,000 images"):
        assert fact in text
    assert commands(text) == ["mc1opt show --study cnn --storage 'my folder/s.db'"]


def test_the_best_trial_comes_first_with_its_config_in_words_and_a_link() -> None:
    text = note(study(trial(0, value=0.6), trial(1, value=0.8125), trial(2, "pruned")))
    assert f"0.8125, trial [#1]({PAGE}/trials?numbers=1)" in text
    architecture, recipe = describe_config(CONFIG).split(" | ")
    assert f"\n- {architecture}\n- {recipe}\n" in text
    assert "2 complete, 1 pruned" in text


def test_the_table_has_the_best_trials_in_order_and_no_cell_too_many() -> None:
    values = [0.5, 0.9, 0.7, 0.6, 0.8, 0.4, 0.3]
    text = note(study(*(trial(number, value=value) for number, value in enumerate(values))))
    rows = [line for line in text.split("\n") if line.startswith("| [#")]
    assert [int(re.findall(r"#(\d+)", row)[0]) for row in rows] == [1, 4, 2, 3, 0]
    assert len(rows) == BEST
    header = next(line for line in text.split("\n") if line.startswith("| trial"))
    assert {row.count("|") for row in rows} == {header.count("|")}


def test_the_ranking_says_what_seed_noise_leaves_of_it() -> None:
    def ranked(*values: float, others: tuple[float, ...]) -> str:
        second = trial(1, value=0.80, confirmations=again(*others))
        return note(study(trial(0, value=0.81, confirmations=again(*values)), second))

    assert "#1 (0.8000), #0 (0.7950)" in ranked(0.80, 0.79, others=(0.79, 0.81))
    assert "#0 is ahead (0.8005)" in ranked(0.800, 0.801, others=(0.600, 0.601))
    alone = ranked(0.800, 0.801, others=())
    assert "ahead" not in alone
    assert "#0 (0.8005)" in alone


def test_the_commands_name_study_and_database_and_quote_both() -> None:
    odd = "my `study`; rm -rf"
    text = note(study(trial(0), study=odd))
    quoted, place = "'my `study`; rm -rf'", "--storage 'my folder/s.db'"
    assert commands(text) == [
        f"mc1opt show --study {quoted} --trial 0 {place}",
        f"mc1opt retrain --study {quoted} {place}",
        f"mc1opt export --study {quoted} --trial 0 --format onnx {place}",
    ]
    assert text.startswith("# ``my `study`; rm -rf``\n")
    assert "--storage" not in note(study(trial(0)), storage="storage/mc1opt.db")
    assert "secret" not in note(study(trial(0)), storage="postgresql+psycopg://me:secret@host/db")


def test_a_retraining_is_said_with_its_test_accuracy_and_its_model() -> None:
    text = note(study(trial(0), trial(1)), found=FOUND)
    assert "0.9200" in text
    assert "0.9150 to 0.9250" in text
    assert any(command.startswith("mc1opt predict storage/models/cnn IMAGE") for command in commands(text))
    assert "interval" not in note(
        study(trial(1)), found=FOUND.model_copy(update={"seeds": 1, "interval": None})
    )


def test_a_config_of_a_newer_mc1opt_is_left_out_and_nothing_else() -> None:
    newer = {**(trial(0).config or {}), "schema_version": 99}
    record = study(trial(0, value=0.8, config=newer))
    assert "0.8000" in note(record)
    assert "0.8000" in trial_note(record, record.trials[0], storage=STORAGE)


# ---- On a trial ------------------------------------------------------------------------------------------


def test_a_trials_note_says_its_rank_size_new_seeds_and_commands() -> None:
    confirmed = trial(1, value=0.7, parameters=1234, confirmations=again(0.69, 0.71), starting_point="wide")
    record = study(trial(0, value=0.8), confirmed)
    text = trial_note(record, confirmed, storage=STORAGE)
    for fact in ("Trial 1: 0.7000, number 2", "1,234", "`wide`", "0.6900, 0.7100; mean 0.7000"):
        assert fact in text
    assert [command.split()[1] for command in commands(text)] == ["show", "retrain", "replay", "export"]
    assert all("--study cnn --trial 1" in command for command in commands(text))


def test_only_the_winner_is_said_to_be_retrained() -> None:
    record = study(trial(0, value=0.8), trial(1, value=0.7))
    winner, other = record.trials[1], record.trials[0]
    assert "test 0.9200" in trial_note(record, winner, storage=STORAGE, found=FOUND)
    assert "test" not in trial_note(record, other, storage=STORAGE, found=FOUND)
    assert "mc1opt retrain" in trial_note(record, winner, storage=STORAGE)
    assert "mc1opt retrain" not in trial_note(record, winner, storage=STORAGE, found=FOUND)  # refused
    assert "mc1opt retrain" not in note(record, found=FOUND)


# ---- Over an older note ----------------------------------------------------------------------------------


MINE = "\n\nMy own words.\n\n---\nand more"


@pytest.mark.parametrize(
    ("stored", "new", "merged"),
    [
        ("old" + END, "new", "new" + END),
        ("old" + END + MINE, "new", "new" + END + MINE),
        ("new" + END + MINE, "new", "new" + END + MINE),
        ("Mine.", "new", "Mine."),
        ("Mine.", "", "Mine."),
        ("", "", ""),
        ("old" + END, "", ""),
        ("old" + END + MINE, "", END + MINE),
        (END + MINE, "new", "new" + END + MINE),
    ],
)
def test_what_a_person_wrote_alone_or_below_our_line_stays(stored: str, new: str, merged: str) -> None:
    assert merged_note(stored, new) == merged
