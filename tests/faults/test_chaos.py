"""All processes of a search are killed at random moments: three times here, or as often as `--kills` says.

    pytest -n 0 -s --slow --real-data --kills 50 tests/faults/test_chaos.py

prints the figures, too.
"""

import json
import subprocess
from pathlib import Path

import pytest

from mc1opt.data.sources import find_data
from mc1opt.database.records import StudyRecord
from tests.faults.chaos import Key, Kills, epochs_of, kill_at_random
from tests.faults.checker import Expected, check
from tests.faults.conftest import CURVES, REAL_CHANGES, SEARCH, Commands
from tests.support.curves import Switches
from tests.support.studies import facts

TRIALS = 30
REAL_TRIALS = 12
"""With few kills; a study that is killed more often has TRIALS."""
REAL = "run --study cnn --confirm 0 --pruner none --epochs 4 --train-images 500 --max-macs 4000000"
SLEEP = 0.1
"""Seconds that an epoch of a curve takes here: long enough to be killed in."""
LONG = ("--epochs", "24")
"""So that there is something to kill in, also where most trials are pruned."""


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    """How often."""
    count: int = request.config.getoption("--kills")
    return count


def curve_search(commands: Commands, workers: int) -> "subprocess.Popen[bytes]":
    arguments = (*SEARCH, *LONG, "--trials", str(TRIALS), "--workers", str(workers))
    return commands.start(*arguments, changes=CURVES)


def curve_epochs(switches: Switches) -> list[Key]:
    return [(epoch["seed"], epoch["epoch"]) for epoch in switches.epochs()]


def undisturbed_curves(commands: Commands) -> StudyRecord:
    """The same study to which nothing happens, in a database of its own."""
    arguments = (*SEARCH, *LONG, "--trials", str(TRIALS), "--workers", "1", "--storage", "calm/calm.db")
    ended = commands.finish(commands.start(*arguments, changes=CURVES))
    assert ended.code == 0, ended.stderr
    return check(commands.folder, "small", Expected(TRIALS), storage="calm/calm.db")


def check_same(record: StudyRecord, calm: StudyRecord) -> None:
    """Trial by trial, so that the first difference is what a failure shows."""
    for trial, undisturbed in zip(facts(record), facts(calm), strict=False):
        assert trial == undisturbed
    assert len(record.trials) == len(calm.trials)


def report(what: str, kills: Kills, record: StudyRecord) -> None:
    print(f"\n{what}: {len(record.trials)} trials, {epochs_of(record)} epochs, {kills}", flush=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_search_that_is_killed_again_and_again_loses_and_doubles_nothing(
    commands: Commands, switches: Switches, kills: int, workers: int
) -> None:
    calm = undisturbed_curves(commands)
    (switches.folder / "epochs.jsonl").unlink()
    switches.add("sleep", epoch=None, value=SLEEP)
    done = kill_at_random(
        commands,
        lambda: curve_search(commands, workers),
        lambda: curve_epochs(switches),
        epochs=epochs_of(calm),
        epoch_seconds=SLEEP / workers,
        start_seconds=2.0,
        kills=kills,
        seed=workers,
    )
    record = check(commands.folder, "small", Expected(TRIALS))
    report(f"learning curves, {workers} at once", done, record)
    assert done.count == kills
    assert sum(trial.interrupted for trial in record.trials) > 0
    assert done.repeated <= workers * kills
    trained = [trial.config_id for trial in record.trials if trial.values_by_epoch]
    assert len(set(trained)) == len(trained) == TRIALS
    if workers == 1:
        check_same(record, calm)


def real_search(commands: Commands, trials: int, storage: str) -> "subprocess.Popen[bytes]":
    arguments = (*REAL.split(), "--trials", str(trials), "--workers", "1", "--storage", storage)
    return commands.start(*arguments, changes=REAL_CHANGES)


def real_epochs() -> list[Key]:
    noted = Path("noted.jsonl")
    lines = noted.read_text().splitlines() if noted.exists() else []
    return [(epoch["seed"], epoch["epoch"]) for epoch in map(json.loads, lines)]


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.timeout(7200)
def test_a_search_on_real_images_that_is_killed_again_and_again_is_the_same(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    images = Path(find_data(None).folder)
    (commands.folder / "cache").mkdir()
    (commands.folder / "cache" / images.name).symlink_to(images)
    monkeypatch.setenv("MC1OPT_DATA", str(commands.folder / "cache"))
    trials = REAL_TRIALS if kills < TRIALS else TRIALS
    assert commands.finish(real_search(commands, trials, "calm/calm.db"), 3600).code == 0
    expected = Expected(trials, on_curves=False)
    calm = check(commands.folder, "cnn", expected, storage="calm/calm.db")
    Path("noted.jsonl").unlink()
    done = kill_at_random(
        commands,
        lambda: real_search(commands, trials, "storage/mc1opt.db"),
        real_epochs,
        epochs=epochs_of(calm),
        epoch_seconds=1.0,
        start_seconds=8.0,
        kills=kills,
        seed=0,
    )
    record = check(commands.folder, "cnn", expected)
    report("real images, 1 at once", done, record)
    assert done.count == kills
    assert done.repeated <= kills
    check_same(record, calm)
