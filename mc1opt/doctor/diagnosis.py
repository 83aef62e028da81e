"""What `mc1opt doctor` has found: a result for each check, and what to do. The checks are in `doctor.py`."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from mc1opt.text import plural

Status = Literal["ok", "warning", "problem"]
"""A problem keeps a command from working; a warning is something to know or to do."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    found: str
    """What there is, on one line."""
    what_to_do: str = ""
    """Empty where there is nothing to do; may have several lines."""

    def lines(self) -> list[str]:
        """As text."""
        lines = [f"{self.status:<8} {self.name:<9} {self.found}"]
        return lines + [f"{'':<19}{line}" for line in self.what_to_do.split("\n") if line]


@dataclass(frozen=True)
class Diagnosis:
    """All checks, in the order in which they are shown."""

    checks: tuple[Check, ...]

    @property
    def has_problem(self) -> bool:
        """Whether something keeps a command from working."""
        return any(check.status == "problem" for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """As `doctor --json` prints it."""
        return {"checks": [asdict(check) for check in self.checks]}

    def lines(self) -> list[str]:
        """As text: each check, what to do below it, and how many are not well."""
        lines = [line for check in self.checks for line in check.lines()]
        counts = [
            plural(count, status)
            for status in ("problem", "warning")
            if (count := sum(check.status == status for check in self.checks))
        ]
        return [*lines, "", f"{' and '.join(counts)}." if counts else "All is well."]
