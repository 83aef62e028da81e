"""Numbers and durations of options. Without typer: the benchmarks use it, too."""

import re

from mc1opt.errors import UsageError


def parse_duration(text: str | None, option: str) -> float | None:
    """Seconds of "90", "90s", "8m", "1h" or "1h30m"; None for None.

    Raises:
        UsageError: the text is not a duration above 0.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip().lower())
    hours, minutes, seconds = match.groups() if match else (None, None, None)
    total = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds or 0)
    if match is None or total <= 0:
        raise UsageError(f"{option} {text!r} is not a duration. Examples: 90 (seconds), 90s, 8m, 1h30m.")
    return total


def at_least(value: int | None, least: int, option: str) -> None:
    """Refuses a number below `least`.

    Raises:
        UsageError: names the option, the value and what is allowed.
    """
    if value is not None and value < least:
        raise UsageError(f"{option} {value} is too small; it must be at least {least}.")
