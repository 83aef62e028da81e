"""A flag by which signals and threads end long work, and why it ended."""

from typing import Literal

StopReason = Literal["finished", "timeout", "signal", "exhausted", "failures"]


TICK_SECONDS = 0.2


class StopFlag:
    """Why a search shall stop; the first reason counts. Signals and threads set it."""

    def __init__(self) -> None:
        # No lock: a signal handler may come while its own thread holds it. `setdefault` is atomic.
        self._stops: dict[str, tuple[StopReason, str]] = {}

    def set(self, reason: StopReason, message: str) -> None:
        """Asks the search to stop."""
        self._stops.setdefault("first", (reason, message))

    def is_set(self) -> bool:
        """Whether the search shall stop."""
        return bool(self._stops)

    @property
    def reason(self) -> StopReason:
        """Why; "finished" until it is set."""
        return self._stops["first"][0] if self._stops else "finished"

    @property
    def message(self) -> str:
        """Why, in words; empty until it is set."""
        return self._stops["first"][1] if self._stops else ""
