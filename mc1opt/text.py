"""Numbers and messages as people read them, and how often they want to."""

from collections.abc import Sequence

SILENCE_SECONDS = 30.0
"""Without a terminal, at least one line in so many seconds."""


def duration(seconds: float) -> str:
    """A time as people say it: "40 s", "19 min", "2 h 05 min"; what is past is "0 s"."""
    if seconds < 90:
        return f"{max(seconds, 0.0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def megabytes(size: int) -> str:
    """A size in bytes as people say it: "22 MB", "1.5 GB"; at least "1 MB"."""
    if size < 1_000_000:
        return "1 MB"
    return f"{size / 1e6:.0f} MB" if size < 1_000_000_000 else f"{size / 1e9:.1f} GB"


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 trial", "2,000 trials"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def few(words: Sequence[object], most: int = 5) -> str:
    """The first of some words, and how many more there are: "a, b and 3 more"."""
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return ", ".join(map(str, words[:most])) + more


def first_line(message: object) -> str:
    """The first line of a message or of an error's."""
    return str(message).strip().partition("\n")[0]
