"""Records, events, a clock and a terminal for the tests of what people see of a search."""

import io
import re
from dataclasses import replace
from typing import Any

from rich.console import Console

from mc1opt.config import MLP, SGD, Config, LinearLayer, config_to_json
from mc1opt.database.records import Outcome, StudyRecord, TrialRecord
from mc1opt.dataset import Task
from mc1opt.display.progress import SearchProgress
from mc1opt.search.observers import SearchEnded, SearchStarted
from mc1opt.spec import EpochResult, Fidelity

CONFIG = Config(
    architecture=MLP(layers=(LinearLayer(width=64),)), optimizer=SGD(learning_rate=0.1), batch_size=32
)
STATES: dict[Outcome, str] = {
    "complete": "COMPLETE",
    "pruned": "PRUNED",
    "too_large": "PRUNED",
    "infeasible": "PRUNED",
    "duplicate": "PRUNED",
    "failed": "FAIL",
    "foreign": "COMPLETE",
    "running": "RUNNING",
    "waiting": "WAITING",
}


class Clock:
    """A monotonic clock that the test sets."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


# ---- Records and events ----------------------------------------------------------------------------------


def trial(number: int, outcome: Outcome = "complete", value: float = 0.5, **fields: Any) -> TrialRecord:
    """A trial of five epochs at most; one that was pruned reached `value` in its third."""
    reports: dict[str, list[float]] = {"complete": [value] * 5, "pruned": [value] * 3}
    made = TrialRecord(
        number=number,
        state=STATES[outcome],
        outcome=outcome,
        value=value if outcome == "complete" else None,
        config=config_to_json(CONFIG),
        config_id="0" * 12,
        params={},
        seed=number,
        parameters=1000,
        macs=1_000_000,
        values_by_epoch=reports.get(outcome, []),
        seconds=12.0,
        epoch_seconds=2.0,
        constraints={},
        failure={"kind": "crashed", "message": "the worker is gone"} if outcome == "failed" else None,
        interrupted=0,
        duplicate_of=0 if outcome == "duplicate" else None,
        starting_point=None,
        confirmations=[],
    )
    return replace(made, **fields)


def study(*trials: TrialRecord, **fields: Any) -> StudyRecord:
    """A study with these trials."""
    made = StudyRecord(
        study="cnn",
        definition="cnn",
        direction="maximize",
        fidelity=Fidelity(train_images=20_000, epochs=5),
        data={"name": "cifar10", "sha256": "0" * 64},
        task=Task(),
        seed=0,
        trials=trials,
        folder="cnn",
    )
    return replace(made, **fields)


def started(*trials: TrialRecord, **fields: Any) -> SearchStarted:
    """A search that is to bring a study with these trials to 100."""
    made = SearchStarted(
        study="cnn",
        definition="cnn",
        fidelity=Fidelity(train_images=20_000, epochs=5),
        trials=100,
        counted=sum(trial.outcome in ("complete", "pruned") for trial in trials),
        workers=2,
        device="cpu",
        timeout=None,
        expected_seconds=720.0,
        expected_bytes=22_000_000,
        max_macs=20_000_000,
        record=study(*trials),
    )
    return replace(made, **fields)


def ended(record: StudyRecord, **fields: Any) -> SearchEnded:
    """A search that has trained a whole study."""
    made = SearchEnded(
        reason="finished", message="", seconds=660.0, expected_seconds=720.0, record=record, importances={}
    )
    return replace(made, **fields)


def epoch(index: int, accuracy: float) -> EpochResult:
    """What the epoch `index` (from 0) gave."""
    return EpochResult(epoch=index, loss=1.0, validation_accuracy=accuracy, seconds=2.0)


def again(*values: float | None) -> list[dict[str, Any]]:
    """Confirmations with these accuracies; None is one that diverged."""
    diverged = {"failure": {"kind": "diverged", "message": "nan"}}
    return [
        {"seed": seed, "value": value} | (diverged if value is None else {})
        for seed, value in enumerate(values)
    ]


def progress_with_gaps(gaps: list[float], **fields: Any) -> tuple[SearchProgress, Clock]:
    """The progress of a search whose trials ended one after the other, these seconds apart."""
    clock = Clock()
    progress = SearchProgress(started(**fields), clock)
    for number, gap in enumerate(gaps):
        clock.seconds += gap
        progress.trial_ended(trial(number))
    return progress, clock


# ---- A terminal ------------------------------------------------------------------------------------------

_ERASE_LINE = "\x1b[2K"
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A terminal in memory, so wide and high."""

    def __init__(self, width: int = 120, height: int = 24) -> None:
        self.file = io.StringIO()
        self.console = Console(
            file=self.file, force_terminal=True, width=width, height=height, legacy_windows=False
        )

    @property
    def raw(self) -> str:
        """All that was written, with escape sequences."""
        return self.file.getvalue()

    @property
    def text(self) -> str:
        """All that was written, as text, also what was erased again."""
        return plain(self.raw)

    @property
    def view(self) -> list[str]:
        """The lines of the last drawing, if it was not the first: what came after the last erased line."""
        return [line.rstrip() for line in plain(self.raw.rpartition(_ERASE_LINE)[2]).split("\n")]

    @property
    def shows_cursor(self) -> bool:
        """Whether the cursor is to be seen, as on every terminal at first."""
        return self.raw.rfind("\x1b[?25h") >= self.raw.rfind("\x1b[?25l")


def plain(text: str) -> str:
    """Text without the escape sequences of a terminal; what replaces a line is a line of its own."""
    return _ESCAPE.sub("", text.replace(_ERASE_LINE, "\n")).replace("\r", "")
