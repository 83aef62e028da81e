"""A flag by which signals, threads and a deadline end long work, with the reason."""

import math
import time
from typing import Literal

StopReason = Literal["finished", "timeout", "signal", "enough", "exhausted", "failures"]

TICK_SECONDS = 0.2
"""Seconds between two checks of the flag."""


class StopFlag:
    """Why long work must stop; the first reason counts. Signal handlers and threads may set it."""

    def __init__(self) -> None:
        # No lock: a signal handler may run while its own thread holds it. `setdefault` is atomic.
        self._stops: dict[str, tuple[StopReason, str]] = {}
        self._deadline = math.inf  # on the clock `time.monotonic`

    def limit(self, seconds: float | None) -> None:
        """Seconds from now until the flag is due; None for no limit."""
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds

    def set(self, reason: StopReason, message: str) -> None:
        """Stops the work."""
        self._stops.setdefault("first", (reason, message))

    def is_set(self) -> bool:
        """Whether the work must stop."""
        return bool(self._stops)

    def is_due(self) -> bool:
        """Sets the flag if the limit is reached, and returns `is_set`."""
        if time.monotonic() >= self._deadline:
            self.set("timeout", "the time is up")
        return self.is_set()

    @property
    def reason(self) -> StopReason:
        """The reason; "finished" until it is set."""
        return self._stops["first"][0] if self._stops else "finished"

    @property
    def message(self) -> str:
        """The reason in words; empty until it is set."""
        return self._stops["first"][1] if self._stops else ""
