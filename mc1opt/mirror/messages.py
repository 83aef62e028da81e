"""The mirror of a study in W&B, as plain data: what its runs hold, what its process is told and says.

Not here: what is made a run of (`mc1opt.mirror.runs`), and W&B itself
(`mc1opt.mirror.writer`). Neither W&B nor Optuna is imported, so that the process starts quickly.
"""

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict

Mode = Literal["offline", "online"]
Scalar = bool | int | float | str
Row = dict[str, int | float]

SCRATCH = "mc1opt-mirror-"
"""How the names of folders begin in which a mirroring has its task, and what is of no use afterwards."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Leaderboard(_Model):
    """The best trials as a table."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Scalar | None, ...], ...]


class AttachedFile(_Model):
    """A file that is uploaded with a run."""

    path: str
    """Absolute."""
    sha256: str


class MirroredRun(_Model):
    """What one W&B run holds. All numbers are finite; what is not known is left out."""

    id: str
    """The same for the same study, trial or training, whenever it is mirrored."""
    name: str
    group: str
    """The study's name."""
    job_type: Literal["study", "trial", "retraining"]
    tags: tuple[str, ...]
    config: dict[str, Scalar]
    """Flat, and under `config_json` as a whole."""
    axis: Literal["epoch", "trial"]
    """The key in `history` against which the other ones are drawn."""
    history: tuple[Row, ...]
    summary: dict[str, Scalar]
    leaderboard: Leaderboard | None = None
    files: tuple[AttachedFile, ...] | None = None
    """What is uploaded with it, beside curve and config, as one artifact; None for no artifact."""
    trial: int | None = None
    """The trial that it is about."""
    is_best: bool = False
    """Whether that trial is among the best now."""

    @property
    def failed(self) -> bool:
        """Whether it shows a training that ended without a result."""
        return self.summary.get("state") == "failed"

    @property
    def fingerprint(self) -> str:
        """A hash of all that it holds but its files."""
        text = json.dumps(self.model_dump(mode="json", exclude={"files"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class MirrorTask(_Model):
    """What a mirroring shall do."""

    folder: str
    """Where the runs lie, an absolute path."""
    identity: str
    """The study's."""
    project: str
    mode: Mode
    runs: tuple[MirroredRun, ...]


class MirrorEvent(_Model):
    """What the mirroring process says, a line of JSON each; each one is progress."""

    what: Literal["begun", "written", "uploaded", "no_login", "failed", "done"]
    run: str | None = None
    """The id of the run that it is about."""
    message: str = ""
    """Why it failed, in one line for people."""
