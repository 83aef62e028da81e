"""The options that several commands share, and how their texts are read."""

import re
from pathlib import Path
from typing import Annotated

import typer

from mc1opt.errors import UsageError

Study = Annotated[
    str, typer.Option(help="A study definition by name (./studies/NAME.py, else a shipped one), or its file.")
]
StoredStudy = Annotated[str, typer.Option("--study", help="The name of a stored study.")]
Storage = Annotated[str, typer.Option(help="The study database: a SQLite file, or an SQLAlchemy URL.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, nothing else.")]
Data = Annotated[
    Path | None, typer.Option(help="CIFAR-10's files, or other images in its formats; fetched if not given.")
]

DEFAULT_STORAGE = "storage/mc1opt.db"


def parse_duration(text: str | None, option: str) -> float | None:
    """Seconds of "90", "90s", "8m", "1h" or "1h30m"; None for None.

    Raises:
        UsageError: the text says no time above 0.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip().lower())
    hours, minutes, seconds = match.groups() if match else (None, None, None)
    total = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds or 0)
    if match is None or total <= 0:
        raise UsageError(f"{option} {text!r} is no time. Give seconds (90), or such as 90s, 8m, 1h30m.")
    return total


def at_least(value: int | None, least: int, option: str) -> None:
    """Refuses a number below `least`.

    Raises:
        UsageError: the value, the option and what is allowed.
    """
    if value is not None and value < least:
        raise UsageError(f"{option} {value} is too small; it must be at least {least}.")
