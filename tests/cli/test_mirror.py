"""`mc1opt mirror`, and the mirror of `run` and `retrain`: real studies, processes, servers and signals."""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.command import (
    SECONDS,
    TINY_SEARCH,
    files_below,
    finish,
    mc1opt,
    states,
    stored_study,
    wait_until,
)
from tests.support.wandb_runs import API_KEY, FOLDER, no_account, no_server, read_runs, silent_server

__all__ = ["no_account"]

OFFLINE = ("mirror", "--study", "tiny", "--wandb", "offline")
DONE = (*TINY_SEARCH, "--trials", "3", "--confirm", "1")
"""The search of the finished study: nothing is left to train."""
LIMIT = 30.0
"""Seconds: far less than a wandb that hangs, far more than a limit of some seconds on a busy machine."""


def best_trials(top: int) -> dict[str, float]:
    """Values by the name that a trial has in W&B."""
    complete = [entry for entry in stored_study("tiny")["trials"] if entry["value"] is not None]
    complete.sort(key=lambda entry: -entry["value"])
    return {f"tiny #{entry['number']}": entry["value"] for entry in complete[:top]}


def mirrored_values() -> dict[str, float]:
    found = [read for read in read_runs().values() if read.run["job_type"] == "trial"]
    return {read.run["display_name"]: read.summary["value"] for read in found}


# ---- mirror ----------------------------------------------------------------------------------------------


def test_the_best_trials_are_mirrored_and_again_nothing_is(finished: Path) -> None:
    """The command that uploads is given where something waits."""
    before = stored_study("tiny")
    first = mc1opt(*OFFLINE, "--top", "2", "--json")
    assert (first.returncode, first.stderr) == (0, "")
    report = json.loads(first.stdout)
    assert report["error"] is None
    assert mirrored_values() == best_trials(2)
    assert sorted(report["written"]) == sorted(report["waiting"]) == sorted(read_runs())
    assert shlex.split(report["upload_command"])[1:] == ["sync", str(FOLDER)]
    for run in report["waiting"]:
        (place,) = FOLDER.glob(f"*-{run}")
        (place / f"run-{run}.wandb.synced").touch()
    (FOLDER / "offline-run-1").mkdir()
    folders = {path.name for path in FOLDER.iterdir()}
    again = mc1opt(*OFFLINE, "--top", "2")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == "W&B: 3 runs of study tiny mirrored offline, 0 written now. All are uploaded.\n"
    assert {path.name for path in FOLDER.iterdir()} == folders
    assert stored_study("tiny") == before


@pytest.mark.slow
def test_all_are_mirrored_where_asked(finished: Path) -> None:
    assert mc1opt(*OFFLINE, "--all").returncode == 0
    runs = [read for read in read_runs().values() if read.run["job_type"] == "trial"]
    assert {read.config["trial"]: read.summary["state"] for read in runs} == {
        entry["number"]: entry["outcome"]
        for entry in stored_study("tiny")["trials"]
        if entry["outcome"] in ("complete", "failed", "pruned")
    }
    assert all(read.exit_code == (read.summary["state"] == "failed") for read in runs)


@pytest.mark.slow
def test_without_a_login_it_stays_offline_and_gives_a_command_that_wandb_takes(finished: Path) -> None:
    ended = mc1opt("mirror", "--study", "tiny")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "WANDB_API_KEY" in ended.stdout
    command = shlex.split(ended.stdout.partition("Upload them:")[2])
    dry = subprocess.run(
        [sys.executable, "-m", "wandb", *command[1:], "--dry-run"], capture_output=True, text=True, check=True
    )
    assert f"Would sync {len(read_runs())} run(s)" in dry.stderr + dry.stdout


@pytest.mark.slow
@pytest.mark.parametrize("server", [silent_server, no_server])
def test_without_an_answer_it_costs_the_time_that_was_given_and_no_run(
    finished: Path, monkeypatch: pytest.MonkeyPatch, server: Callable[[], AbstractContextManager[str]]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    assert mc1opt(*OFFLINE).returncode == 0
    runs = read_runs().keys()
    with server() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        begun = time.monotonic()
        ended = mc1opt("mirror", "--study", "tiny", "--timeout", "4s")
        assert time.monotonic() - begun < LIMIT
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert "no progress for 4 s" in line
    assert "wandb sync storage/wandb" in line
    assert read_runs().keys() == runs


@pytest.mark.slow
def test_ctrl_c_stops_it_and_what_was_mirrored_is_kept(
    finished: Path, start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    with silent_server() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        command = start("mirror", "--study", "tiny", "--json")
        wait_until(lambda: any(FOLDER.glob("*/*.syncstate")))
        command.send_signal(signal.SIGINT)
        ended = finish(command, LIMIT)
    assert ended.returncode == 1
    report = json.loads(ended.stdout)
    assert sorted(report["written"]) == sorted(report["waiting"]) == sorted(read_runs())


@pytest.mark.parametrize(
    "arguments",
    [["--wandb", "often"], ["--wandb", "off"], ["--project", "a/b"], ["--top", "0"], ["--timeout", "0"]],
    ids=" ".join,
)
def test_wrong_use_is_refused_before_anything_is_made(mc1opt_here, arguments: list[str]) -> None:
    ended = mc1opt_here("mirror", "--study", "tiny", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert all(argument in ended.stderr for argument in arguments)
    assert files_below(Path()) == {}


def test_a_study_that_is_not_there_is_said(finished: Path, mc1opt_here) -> None:
    ended = mc1opt_here("mirror", "--study", "other", "--wandb", "offline")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "'other'" in ended.stderr
    assert not FOLDER.exists()


# ---- run and retrain -------------------------------------------------------------------------------------


def test_run_refuses_a_mode_that_there_is_not(tiny: Path, mc1opt_here) -> None:
    ended = mc1opt_here(*TINY_SEARCH, "--wandb", "on")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--wandb 'on'" in ended.stderr


@pytest.mark.slow
def test_with_a_server_that_never_answers_a_search_ends_the_same(
    finished: Path, mc1opt_here, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = time.monotonic()
    without = mc1opt_here(*DONE)
    seconds = time.monotonic() - begun
    assert mc1opt(*OFFLINE).returncode == 0
    study = stored_study("tiny")
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    with silent_server() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        begun = time.monotonic()
        ended = mc1opt_here(*DONE, "--wandb", "online")
        assert time.monotonic() - begun - seconds < LIMIT
    assert ended.returncode == without.returncode == 0
    lines = [line for line in ended.stdout.splitlines() if line not in without.stdout.splitlines()]
    (warning,) = [line for line in lines if line.startswith("W&B:")]
    assert "no progress for 4.5 s" in warning
    assert ended.stderr == without.stderr
    assert stored_study("tiny") == study


@pytest.mark.slow
def test_a_search_that_is_stopped_is_mirrored_too(tiny: Path, start) -> None:
    search = start(*TINY_SEARCH, "--trials", "5000", "--wandb", "offline")
    wait_until(lambda: states().count("COMPLETE") >= 3)
    search.send_signal(signal.SIGINT)
    ended = finish(search, SECONDS)
    assert (ended.returncode, ended.stderr) == (130, "")
    mirrored, _go_on = ended.stdout.splitlines()[-2:]
    runs = len(best_trials(5)) + 1
    assert mirrored.startswith(f"W&B: {runs} runs of study tiny mirrored offline, {runs} written now.")
    assert mirrored_values() == best_trials(5)


@pytest.mark.slow
def test_a_retraining_is_mirrored(finished: Path, mc1opt_here) -> None:
    small = ("--top", "1", "--seeds", "1", "--epochs", "2", "--workers", "1", "--json")
    ended = mc1opt_here("retrain", "--study", "tiny", *small, "--wandb", "offline")
    assert ended.returncode == 0, ended.stderr
    assert "\nW&B: " in ended.stderr
    test = json.loads(ended.stdout)["test"]["mean"]
    found = [read for read in read_runs().values() if read.run["job_type"] == "retraining"]
    assert len(found) == 2
    assert [read.summary["test_accuracy"] for read in found if "test_accuracy" in read.summary] == [
        pytest.approx(test)
    ]


@pytest.mark.slow
def test_the_variable_turns_it_on_and_the_option_off(
    finished: Path, mc1opt_here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert "W&B:" not in mc1opt_here(*DONE, "--wandb", "off").stdout
    assert not FOLDER.exists()
    assert "W&B:" in mc1opt_here(*DONE).stdout
    assert mirrored_values() == best_trials(5)
