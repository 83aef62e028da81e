"""A mirrored run as data: finite numbers alone, and a hash that says whether it must be written again."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from mc1opt.mirror.messages import AttachedFile, Leaderboard, MirroredRun, MirrorTask

FIELDS: dict[str, Any] = {
    "id": "cnn-0123-trial-7",
    "name": "cnn #7",
    "group": "cnn",
    "job_type": "trial",
    "tags": ("best",),
    "config": {"batch_size": 32},
    "axis": "epoch",
    "history": ({"epoch": 1, "loss": 0.5},),
    "summary": {"state": "complete", "value": 0.5},
}
CHANGES: dict[str, Any] = {
    "name": "other",
    "tags": ("left-the-best",),
    "config": {"batch_size": 64},
    "history": ({"epoch": 1, "loss": 0.25},),
    "summary": {"value": 0.75},
    "leaderboard": Leaderboard(columns=("trial",), rows=((7,),)),
    "is_best": True,
}


def test_runs_that_hold_the_same_have_the_same_fingerprint() -> None:
    again = MirroredRun(**{**FIELDS, "config": dict(reversed(FIELDS["config"].items()))})
    assert MirroredRun(**FIELDS).fingerprint == again.fingerprint


@pytest.mark.parametrize("field", CHANGES)
def test_runs_that_hold_something_else_have_another_fingerprint(field: str) -> None:
    changed = MirroredRun(**FIELDS | {field: CHANGES[field]})
    assert changed.fingerprint != MirroredRun(**FIELDS).fingerprint


def test_files_are_compared_by_themselves() -> None:
    with_file = MirroredRun(**FIELDS, files=(AttachedFile(path="/a", sha256="a"),))
    assert with_file.fingerprint == MirroredRun(**FIELDS).fingerprint


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("field", ["config", "summary"])
def test_no_run_holds_a_number_that_is_not_finite(field: str, number: float) -> None:
    with pytest.raises(ValidationError):
        MirroredRun(**FIELDS | {field: {"loss": number}})
    with pytest.raises(ValidationError):
        MirroredRun(**FIELDS | {"history": ({"epoch": 1, "loss": number},)})


def test_a_task_comes_back_as_it_was_sent() -> None:
    run = MirroredRun(
        **FIELDS
        | {
            "config": {"flip": True, "width": 32, "rate": 0.1 + 0.2, "kind": "sgd"},
            "leaderboard": Leaderboard(columns=("a", "b"), rows=((1, None), ("x", 0.5))),
            "files": (AttachedFile(path="/a", sha256="a"),),
        }
    )
    task = MirrorTask(folder="/wandb", identity="0123", project="mc1opt", mode="offline", runs=(run,))
    sent = MirrorTask.model_validate_json(task.model_dump_json())
    assert sent == task
    assert [type(value) for value in sent.runs[0].config.values()] == [bool, int, float, str]
