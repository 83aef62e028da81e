"""A flag by which signals, threads and a deadline end long work, and why it ended."""

import math
import time
from typing import Literal

StopReason = Literal["finished", "timeout", "signal", "exhausted", "failures"]

TICK_SECONDS = 0.2
"""How often whoever waits for long work looks at the flag."""


class StopFlag:
    """Why long work shall stop; the first reason counts. Signals and threads set it."""

    def __init__(self) -> None:
        # No lock: a signal handler may come while its own thread holds it. `setdefault` is atomic.
        self._stops: dict[str, tuple[StopReason, str]] = {}
        self._deadline = math.inf  # of the clock `time.monotonic`

    def limit(self, seconds: float | None) -> None:
        """Time is up in so many seconds; None for no limit."""
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds

    def set(self, reason: StopReason, message: str) -> None:
        """Asks the work to stop."""
        self._stops.setdefault("first", (reason, message))

    def is_set(self) -> bool:
        """Whether the work shall stop."""
        return bool(self._stops)

    def is_due(self) -> bool:
        """As `is_set`, once the limit has been looked at."""
        if time.monotonic() >= self._deadline:
            self.set("timeout", "the time is up")
        return self.is_set()

    @property
    def reason(self) -> StopReason:
        """Why; "finished" until it is set."""
        return self._stops["first"][0] if self._stops else "finished"

    @property
    def message(self) -> str:
        """Why, in words; empty until it is set."""
        return self._stops["first"][1] if self._stops else ""
