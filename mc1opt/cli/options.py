"""The options that several commands share; how their numbers and times are read: `mc1opt.cli.values`."""

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mc1opt.errors import UsageError
from mc1opt.paths import user_path

if TYPE_CHECKING:
    from mc1opt.mirror.writer import Mode


def _storage(text: str) -> str:
    from mc1opt.database.location import user_storage

    return user_storage(text)


Study = Annotated[
    str, typer.Option(help="A study definition by name (./studies/NAME.py, else a shipped one), or its file.")
]
StoredStudy = Annotated[str, typer.Option("--study", help="The name of a stored study.")]
Storage = Annotated[
    str, typer.Option(help="The study database: a SQLite file, or an SQLAlchemy URL.", parser=_storage)
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON on standard output, nothing else; NaN and infinity are null."),
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="CIFAR-10's files, or other images in its formats; fetched if not given.",
        parser=user_path,
        metavar="<path>",
    ),
]

Timeout = Annotated[str | None, typer.Option(help="Stop in good order after this time: 90s, 8m, 1h30m.")]
Workers = Annotated[str, typer.Option(help="Trainings at once: a number, or auto.")]
DeviceName = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]

Wandb = Annotated[
    str | None,
    typer.Option(
        "--wandb",
        help="Mirror to Weights & Biases: off, offline or online [default: WANDB_MODE, else off].",
    ),
]

DEFAULT_STORAGE = "storage/mc1opt.db"


def print_json(value: Any) -> None:
    """Prints what `--json` asks for; in place of NaN and infinity, which JSON has not, null."""
    typer.echo(json.dumps(_with_null(value), indent=2, allow_nan=False))


def _with_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_null(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_with_null(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


WANDB_MODES: dict[str, "Mode | None"] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": None,
}
"""What W&B's own modes, as WANDB_MODE has them, are here."""


def wandb_mode(option: str | None, default: "Mode | None" = None) -> "Mode | None":
    """How to mirror: as --wandb says; if it is not given as the variable WANDB_MODE says; else `default`.

    Returns:
        None for not at all.

    Raises:
        UsageError: there is no such mode.
    """
    if option is not None:
        modes: dict[str, Mode | None] = {"off": None, "offline": "offline", "online": "online"}
        if option not in modes:
            raise UsageError(f"--wandb {option!r} is no mode. Give off, offline or online.")
        return modes[option]
    variable = os.environ.get("WANDB_MODE", "")
    if variable and variable not in WANDB_MODES:
        known = ", ".join(WANDB_MODES)
        raise UsageError(
            f"WANDB_MODE {variable!r} is no mode of W&B's ({known}). Correct it, or give --wandb."
        )
    return WANDB_MODES[variable] if variable else default
